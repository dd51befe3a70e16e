"""Whether predictions and labels have anything to do with each other."""

import numpy as np
import numpy.typing as npt

# fewer rows cannot tell
_FEWEST = 100
_ROUNDING = 1e-9


def agreement(
    scores: npt.NDArray[np.floating],
    labels: npt.NDArray[np.integer],
    weights: npt.NDArray[np.floating] | None = None,
) -> float | None:
    """How far scores agree with labels more than with the labels of other rows, in standard errors.

    Where rows and labels have nothing to do with each other it is about N(0, 1), or below.

    Args:
        scores: Of each row by what has not seen its label, (N, C).
        labels: (N,) class ids.
        weights: How much each row counts, (N,). Default: all the same.

    Returns:
        None where fewer than 100 rows count.
    """
    counted = np.ones(len(labels)) if weights is None else np.asarray(weights, np.float64)
    if (counted > 0).sum() < _FEWEST:
        return None
    share = np.bincount(labels, counted, minlength=scores.shape[1]) / counted.sum()
    beyond = np.take_along_axis(scores, labels[:, None], axis=1)[:, 0] - scores @ share
    mean = np.average(beyond, weights=counted)
    # of the mean: rows count as they are weighted
    error = np.sqrt((counted**2 * (beyond - mean) ** 2).sum()) / counted.sum()
    return float(mean / max(error, _ROUNDING))
