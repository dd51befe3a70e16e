"""What every noise model refuses."""

from numbers import Real

import numpy as np
import numpy.typing as npt

from clear_peft.errors import InputError


def check_rate(rate: float) -> None:
    """Refuse a noise rate that is no number in [0, 1]."""
    if not (isinstance(rate, Real) and 0 <= rate <= 1):
        raise InputError(f"The noise rate is {rate!r}: give a probability between 0 and 1.")


def check_classes(num_classes: int) -> None:
    """Refuse fewer than two classes."""
    if num_classes < 2:
        raise InputError(f"num_classes is {num_classes}: label noise needs at least 2 classes.")


def check_labels(labels: npt.ArrayLike, num_classes: int) -> npt.NDArray[np.int64]:
    """Labels as int64 (N,); refuses what is not (N,) integers in [0, num_classes) with N ≥ 1."""
    array = np.asarray(labels)
    if array.ndim != 1 or array.size == 0 or not np.issubdtype(array.dtype, np.integer):
        raise InputError(
            f"labels have shape {array.shape} and dtype {array.dtype}: give non-empty 1-D integers."
        )
    if array.min() < 0 or array.max() >= num_classes:
        raise InputError(
            f"labels run from {array.min()} to {array.max()}: give class numbers from 0 to {num_classes - 1}."
        )
    return array.astype(np.int64)


def check_matrix(matrix: npt.ArrayLike) -> npt.NDArray[np.float64]:
    """A transition matrix as float64 (C, C); refuses what is not square and row-stochastic (to 1e-6)."""
    try:
        rows = np.asarray(matrix, dtype=np.float64)
    except (TypeError, ValueError) as error:
        raise InputError(
            "The transition matrix is no table of numbers: give rows of equal length."
        ) from error
    if rows.ndim != 2 or rows.shape[0] != rows.shape[1] or len(rows) < 2:
        raise InputError(
            f"The transition matrix has shape {rows.shape}: give a square (C, C) one with C ≥ 2."
        )
    if not (np.all(rows >= 0) and np.allclose(rows.sum(axis=1), 1, rtol=0, atol=1e-6)):
        raise InputError(
            "A row of the transition matrix is no distribution: make it non-negative with sum 1."
        )
    return rows
