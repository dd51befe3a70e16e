"""The scale on which losses are looked at."""

import numpy as np
import numpy.typing as npt

# A cross entropy in float32 cannot tell probabilities apart that are nearer to 1 than this.
_SMALLEST_LOSS = 1e-6


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
