"""The scales on which losses are looked at."""

import numpy as np
import numpy.typing as npt

# A cross entropy in float32 cannot tell probabilities apart that are nearer to 1 than this.
_SMALLEST_LOSS = 1e-6
# A class's mean counts with this many examples at the mean of all classes, so that rare classes hardly move.
_PRIOR_EXAMPLES = 20


def log_odds(losses: npt.NDArray[np.floating]) -> npt.NDArray[np.float64]:
    """Log-odds against the given label, log((1 − p_y)/p_y), from the cross entropy ℓ = −log p_y.

    The losses of right labels pile up at 0 with a long tail, which no Gaussian describes; their log-odds are
    close to bell-shaped. Order is kept: the larger the loss, the larger the log-odds, with 0 at p_y = 1/2.

    Args:
        losses: Cross entropies, any shape, non-negative; those below 1e-6 count as 1e-6.

    Returns:
        float64 of the same shape, from −13.8 up.
    """
    bounded = np.maximum(losses, _SMALLEST_LOSS, dtype=np.float64)
    return bounded + np.log(-np.expm1(-bounded))


def unit_interval(losses: npt.NDArray[np.floating], low: float, high: float) -> npt.NDArray[np.float64]:
    """Losses mapped affinely from [low, high] to [0, 1] and kept off its ends, where a Beta density blows up.

    Args:
        losses: Any shape.
        low: The loss that becomes 0.
        high: The loss that becomes 1, above ``low``.

    Returns:
        float64 of the same shape, in [0.001, 0.999].
    """
    return np.clip((losses.astype(np.float64) - low) / (high - low), 1e-3, 1 - 1e-3)


def class_shifts(
    values: npt.NDArray[np.float64], labels: npt.NDArray[np.integer]
) -> tuple[npt.NDArray[np.integer], npt.NDArray[np.float64], npt.NDArray[np.float64]]:
    """How far each class lies from all classes together, shrunk towards 0 as a random effect is.

    Args:
        values: (N,), on any scale.
        labels: The given labels, (N,).

    Returns:
        The K distinct labels, ascending; the shift of each, (K,), its mean deviation times n/(n + 20); and
        the shift of each example, (N,).
    """
    classes, index, counts = np.unique(labels, return_inverse=True, return_counts=True)
    shifts = np.bincount(index, values - values.mean()) / (counts + _PRIOR_EXAMPLES)
    return classes, shifts, shifts[index]
