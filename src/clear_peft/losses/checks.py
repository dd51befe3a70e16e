"""What a loss may be given: options that are numbers."""

import math
import operator
from numbers import Real

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
