"""What an objective may be given: options that are numbers, tensors whose rows are distributions."""

import math
import operator
from numbers import Real

import torch
from torch import Tensor

from clear_peft.errors import InputError


def number(name: str, value: float, interval: str) -> float:
    """An option, if it is a finite number in an interval such as ``"(0, 1]"`` or ``"[0, inf)"``.

    Raises:
        InputError: Otherwise.
    """
    low, high = (float(bound) for bound in interval[1:-1].split(","))
    above = operator.ge if interval.startswith("[") else operator.gt
    below = operator.le if interval.endswith("]") else operator.lt
    if (
        isinstance(value, bool)
        or not isinstance(value, Real)
        or not math.isfinite(value)
        or not (above(value, low) and below(value, high))
    ):
        raise InputError(f"{name} is {value!r}: give a finite number in {interval}.")
    return float(value)


def distributions(name: str, rows: Tensor, shape: tuple[int, int]) -> Tensor:
    """A float32 copy of a tensor whose rows are distributions.

    Raises:
        InputError: If the shape is another, or a row is negative somewhere or does not sum to 1.
    """
    if rows.shape != shape:
        raise InputError(f"{name} have shape {tuple(rows.shape)}: give {shape}.")
    rows = rows.detach().to(torch.float32, copy=True)
    # a hundredth: rows may have been rounded to half precision
    wrong = ~((rows >= 0).all(dim=1) & ((rows.sum(dim=1) - 1).abs() < 0.01))
    if wrong.any():
        row = int(wrong.nonzero()[0])
        raise InputError(f"Row {row} of {name} is no distribution: give numbers of at least 0 that sum to 1.")
    return rows
