"""Losses that were seen while the model was learning, as if all had been seen at one moment."""

import numpy as np
import numpy.typing as npt

from clear_peft.label_quality.scale import log_odds

_PARTS = 10
# the mean of fewer losses says less of the moment than of the examples
_SMALLEST_PART = 30
_LEAST_SPREAD = 0.1


def moved_to(
    losses: npt.NDArray[np.floating], times: npt.NDArray[np.floating], end: float
) -> npt.NDArray[np.float32]:
    """Cross entropies of different moments, moved to one moment.

    While a model learns, the losses of right labels fall and those of wrong ones need not: early losses are
    not only larger, they also lie closer together. So mean and spread of the log-odds are followed over ten
    parts of the time, each by a line through all parts (Theil–Sen: the median of the slopes of all pairs,
    which one odd part does not move), and every loss keeps its standardised place. Moving all by the slope of
    a median alone jumps, and finds fewer wrong labels than doing nothing, once there are two heaps. It is
    taken for granted that examples come in random order.

    Args:
        losses: Cross entropies, (N,).
        times: When each was seen, (N,).
        end: The moment to move them to.

    Returns:
        (N,) float32, non-negative. Fewer than 60 losses are left as they are.
    """
    parts = min(_PARTS, len(losses) // _SMALLEST_PART)
    if parts < 2:
        return losses.astype(np.float32)
    scores = log_odds(losses)
    since = times.astype(np.float64) - end
    pieces = np.array_split(np.argsort(since, kind="stable"), parts)
    middles = np.array([since[piece].mean() for piece in pieces])
    mean, slope = _line(middles, np.array([scores[piece].mean() for piece in pieces]))
    spread, growth = _line(middles, np.array([scores[piece].std() for piece in pieces]))
    places = (scores - mean - slope * since) / np.maximum(spread + growth * since, _LEAST_SPREAD)
    return np.logaddexp(0, mean + places * max(spread, _LEAST_SPREAD)).astype(np.float32)


def _line(x: npt.NDArray[np.float64], y: npt.NDArray[np.float64]) -> tuple[float, float]:
    """Value at 0 and slope of the Theil–Sen line through points."""
    first, second = np.triu_indices(len(x), 1)
    apart = x[second] > x[first]
    if not apart.any():
        return float(np.median(y)), 0.0
    slope = float(np.median((y[second] - y[first])[apart] / (x[second] - x[first])[apart]))
    return float(np.median(y - slope * x)), slope
