"""A linear probe on hidden features: it judges each label without having been fitted to it."""

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
from scipy.optimize import minimize_scalar
from scipy.special import log_softmax, softmax

from clear_peft.cleanliness.estimate import CleanlinessEstimator

Array = npt.NDArray[np.float64]

# of features whose squared norm is 1 on average
_PENALTIES = 10.0 ** np.arange(-2, 5, 0.5)
_LOG_SHARPNESS = (-1.0, 6.0)
_CHUNK = 1 << 14
_SMALLEST = 1e-12
# a row that is surely wrong still counts a little: a class may have no other
_LEAST_WEIGHT = 1e-3


class ProbePredictions(NamedTuple):
    """What a probe says of the N rows that it is fitted to, each left out in turn, and of M others.

    Attributes:
        left_out: Class probabilities of each row by a probe that has not seen it, (N, C) float64.
        held_out: Class probabilities of the other rows, (M, C) float64.
    """

    left_out: Array
    held_out: Array


def probe(
    features: npt.NDArray[np.floating],
    labels: npt.NDArray[np.integer],
    held_out: npt.NDArray[np.floating],
    num_classes: int,
    estimator: CleanlinessEstimator,
) -> ProbePredictions:
    """Predict each label by ridge regression of the others on features.

    Least squares on one-hot labels give every row's prediction without that row in closed form (Allen 1974,
    PRESS), for all strengths of the penalty out of one decomposition; the strength taken has the least
    squared error on the rows left out, and so grows with the noise. Twice: the second time each row counts
    by the clean probability that the first regression gives it, so that the wrong labels that the first one
    found teach the second one nothing. Probabilities are a softmax of the predictions, as sharp as makes the
    labels likeliest. O(N·D² + D³) time; beside the features, the result is the largest array.

    Args:
        features: What a model makes of the rows, (N, D), on any scale.
        labels: Given labels, (N,) in [0, C).
        held_out: Features of rows that are no part of any fit, (M, D).
        num_classes: C.
        estimator: What turns losses into clean probabilities.
    """
    rows, others = _standardised(features, features), _standardised(held_out, features)
    first = _fitted(rows, labels, others, num_classes, np.ones(len(labels)))
    losses = losses_of(first.left_out, labels).astype(np.float32)
    belief = estimator.estimate(losses, labels).clean_probability.astype(np.float64)
    return _fitted(rows, labels, others, num_classes, np.maximum(belief, _LEAST_WEIGHT))


def losses_of(probabilities: Array, labels: npt.NDArray[np.integer]) -> Array:
    """Cross entropies under labels, (N,), from class probabilities, (N, C)."""
    return -np.log(np.maximum(probabilities[np.arange(len(labels)), labels], _SMALLEST))


def share_of_random_labels(probabilities: Array, labels: npt.NDArray[np.integer]) -> float:
    """How many labels look as if drawn at random: in the lower half of what the predictions rank.

    Of C classes, ⌊C/2⌋ lie there: a label drawn at random does so with that share, a right one hardly
    ever, whether or not the predictions are calibrated. For predictions that have not seen the labels.
    Blind to flips between classes that are alike.

    Args:
        probabilities: (N, C).
        labels: (N,).

    Returns:
        The estimated share, in [0, 1].
    """
    classes = probabilities.shape[1]
    lower = classes // 2
    if lower == 0:
        return 0.0
    own = probabilities[np.arange(len(labels)), labels]
    better = (probabilities > own[:, None]).sum(axis=1)
    return min(1.0, float((better >= classes - lower).mean()) * classes / lower)


def _standardised(
    features: npt.NDArray[np.floating], reference: npt.NDArray[np.floating]
) -> npt.NDArray[np.float32]:
    """Features (N, D), moved and scaled as gives a reference mean 0 and mean squared norm 1, and a 1 each."""
    center = reference.mean(axis=0, dtype=np.float64)
    scale = np.sqrt(reference.var(axis=0, dtype=np.float64).sum()) or 1.0
    ones = np.ones((len(features), 1), np.float32)
    return np.concatenate([((features - center) / scale).astype(np.float32), ones], axis=1)


def _chunks(size: int) -> Iterator[slice]:
    """Parts of the rows, so that what is computed for each of them takes little memory."""
    return (slice(start, start + _CHUNK) for start in range(0, size, _CHUNK))


def _fitted(
    rows: npt.NDArray[np.float32],
    labels: npt.NDArray[np.integer],
    others: npt.NDArray[np.float32],
    num_classes: int,
    weights: Array,
) -> ProbePredictions:
    """Weighted ridge regression on one-hot labels with the best of ``_PENALTIES``."""
    size, dimensions = rows.shape
    gram, products = np.zeros((dimensions, dimensions)), np.zeros((dimensions, num_classes))
    for part in _chunks(size):
        weighted = rows[part].T * weights[part]
        gram += weighted @ rows[part]
        products += weighted @ np.eye(num_classes)[labels[part]]
    values, vectors = np.linalg.eigh(gram)
    products = vectors.T @ products

    def left_out(part: slice, penalties: Array) -> Iterator[Array]:
        """Predictions for a part of the rows, each by the regression without it, for each penalty."""
        projected = rows[part] @ vectors
        for penalty in penalties:
            shrunk = 1 / (np.maximum(values, 0) + penalty)
            own = (projected**2 @ shrunk * weights[part])[:, None]  # what a row adds to its own prediction
            given = np.eye(num_classes)[labels[part]]
            yield (projected @ (shrunk[:, None] * products) - own * given) / (1 - own)

    errors = np.zeros(len(_PENALTIES))
    for part in _chunks(size):
        given = np.eye(num_classes)[labels[part]]
        for i, predicted in enumerate(left_out(part, _PENALTIES)):
            errors[i] += weights[part] @ ((predicted - given) ** 2).sum(axis=1)
    penalty = _PENALTIES[errors.argmin()]
    predicted = np.concatenate([next(left_out(part, np.array([penalty]))) for part in _chunks(size)])
    coefficients = vectors @ (products / (np.maximum(values, 0) + penalty)[:, None])

    def surprise(log_sharpness: float) -> float:
        own = log_softmax(np.exp(log_sharpness) * predicted, axis=1)[np.arange(size), labels]
        return -float(weights @ own)

    sharpness = np.exp(minimize_scalar(surprise, bounds=_LOG_SHARPNESS, method="bounded").x)
    held_out = softmax(sharpness * (others @ coefficients), axis=1)
    return ProbePredictions(softmax(sharpness * predicted, axis=1), held_out)
