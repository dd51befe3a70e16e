"""What estimators may be given."""

import numpy as np
import numpy.typing as npt

from clear_peft.errors import InputError


def check_losses(losses: npt.ArrayLike) -> npt.NDArray[np.floating]:
    """Per-example losses as an array, (N,) float, N ≥ 1; NaN where an example has not been scored.

    Raises:
        InputError: If they are not one-dimensional, empty, no floats, or infinite.
    """
    array = np.asarray(losses)
    if array.ndim != 1 or array.size == 0 or not np.issubdtype(array.dtype, np.floating):
        raise InputError(
            f"losses have shape {array.shape} and dtype {array.dtype}: give a non-empty 1-D float array."
        )
    if np.isinf(array).any():
        raise InputError(f"{np.isinf(array).sum()} losses are infinite: score in float32, or mark them NaN.")
    return array


def check_labels(labels: npt.ArrayLike, count: int) -> npt.NDArray[np.integer]:
    """Given labels as an array, (count,) int.

    Raises:
        InputError: If they are not that.
    """
    array = np.asarray(labels)
    if array.shape != (count,) or not np.issubdtype(array.dtype, np.integer):
        raise InputError(
            f"labels have shape {array.shape} and dtype {array.dtype}: give one integer per loss, ({count},)."
        )
    return array


def all_alike(values: npt.NDArray[np.floating]) -> bool:
    """Whether there are no values, or none that differs from another by more than rounding."""
    return values.size == 0 or bool(np.ptp(values) <= 1e-9 * np.abs(values).max())
