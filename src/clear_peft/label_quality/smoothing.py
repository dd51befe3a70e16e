"""Averaging of losses over epochs."""

import numpy as np
import numpy.typing as npt

from clear_peft.errors import InputError


def smooth(previous: npt.ArrayLike, current: npt.ArrayLike, beta: float) -> npt.NDArray[np.floating]:
    """Exponential moving average of losses over epochs, (1 − β)·current + β·previous.

    Where one of the two is NaN (not scored in that epoch), the other counts alone.

    Args:
        previous: The smoothed losses so far, (N,) float.
        current: This epoch's losses, (N,) float.
        beta: β in [0, 1); 0 keeps the current losses.

    Returns:
        (N,) in the common float dtype of the two.

    Raises:
        InputError: If the shapes differ or β is outside [0, 1).
    """
    before, now = np.asarray(previous), np.asarray(current)
    if before.shape != now.shape:
        raise InputError(
            f"The previous losses have shape {before.shape}, the current {now.shape}: match them."
        )
    if not 0 <= beta < 1:
        raise InputError(f"beta is {beta}: give a number from 0 to below 1.")
    average = (1 - beta) * now + beta * before
    return np.where(np.isnan(before), now, np.where(np.isnan(now), before, average))
