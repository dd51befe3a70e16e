"""How sure a classifier should be: one temperature for all its logits, fitted to rows held out."""

import numpy as np
import numpy.typing as npt
from scipy.optimize import minimize_scalar
from scipy.special import log_softmax, softmax

_BINS = 15  # as Guo et al. 2017
_MOST = 4.0  # of |log T|


def fit_temperature(
    logits: npt.NDArray[np.floating], labels: npt.NDArray[np.integer], weights: npt.NDArray[np.floating]
) -> float:
    """The temperature T of ``softmax(logits / T)`` (Guo et al. 2017, arXiv 1706.04599).

    It minimises the weighted cross entropy plus (log T)²/2, as if log T had been drawn from a standard normal
    distribution: a few rows, all of them predicted rightly, do not make a model as sure as can be.

    Args:
        logits: Of N rows, (N, C).
        labels: Their labels, (N,).
        weights: How much each counts, (N,), at least 0.

    Returns:
        T; 1 where no row counts.
    """
    if not weights.sum():
        return 1.0
    rows, exact = np.arange(len(labels)), logits.astype(np.float64)

    def penalised(log_t: float) -> float:
        scores = log_softmax(exact / np.exp(log_t), axis=1)[rows, labels]
        return float(log_t**2 / 2 - (weights * scores).sum())

    return float(np.exp(minimize_scalar(penalised, bounds=(-_MOST, _MOST), method="bounded").x))


def probabilities(logits: npt.NDArray[np.floating], temperature: float) -> npt.NDArray[np.float64]:
    """``softmax(logits / temperature)``, (N, C)."""
    return softmax(logits.astype(np.float64) / temperature, axis=1)


def expected_calibration_error(
    pred_probs: npt.NDArray[np.floating], labels: npt.NDArray[np.integer], weights: npt.NDArray[np.floating]
) -> float:
    """How far the probability of the predicted class is from how often it is right: the mean over 15 bins.

    Args:
        pred_probs: Of N rows, (N, C).
        labels: Their labels, (N,).
        weights: How much each counts, (N,), at least 0.

    Returns:
        The error in [0, 1]; NaN where no row counts.
    """
    total = weights.sum()
    if not total:
        return float("nan")
    confidence, right = pred_probs.max(axis=1), pred_probs.argmax(axis=1) == labels
    bins = np.minimum((confidence * _BINS).astype(np.int64), _BINS - 1)
    return float(np.abs(np.bincount(bins, weights=weights * (confidence - right))).sum() / total)
