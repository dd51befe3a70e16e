"""A linear probe on hidden features: it judges each label without having been fitted to it."""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
from scipy.optimize import minimize_scalar
from scipy.special import log_softmax, softmax

from clear_peft.cleanliness.estimate import CleanlinessEstimator
from clear_peft.cleanliness.noise_model import NoiseModel, fit_noise_model

Array = npt.NDArray[np.float64]

# of features whose squared norm is 1 on average
_PENALTIES = 10.0 ** np.arange(-2, 5, 0.5)
_LOG_SHARPNESS = (-1.0, 6.0)
_STEPS = 30
_CHUNK = 1 << 14
# of labels that are believed; were all random, any sharpness would fit what is left
_MOST_RANDOM = 0.5
_SMALLEST = 1e-12
# a row that is surely wrong still counts a little: a class may have no other
_LEAST_WEIGHT = 1e-3
_MOST_FITS = 10
# nats for each label
_LIKELIER = 3e-3


class Opinion(NamedTuple):
    """What a probe says of N rows and their labels.

    Attributes:
        predicted: P(true class) of each row, whatever its label, (N, C) float64.
        clean_probability: p, that the given label is the true class, (N,) float64.
    """

    predicted: Array
    clean_probability: Array


class Readout(NamedTuple):
    """A linear map from features to the logits of the classes.

    Attributes:
        weights: (D, C) float64.
        bias: (C,) float64.
    """

    weights: Array
    bias: Array

    def __call__(self, features: npt.NDArray[np.floating]) -> Array:
        """Class probabilities of rows, (N, D) → (N, C)."""
        return softmax(features @ self.weights + self.bias, axis=1)


@dataclass(frozen=True, eq=False)
class Probe:
    """A probe, and what it says of the N rows that it was fitted to, each left out in turn.

    Attributes:
        left_out: Its opinion of those rows, of each by a probe that has not seen its label.
        noise: How the given labels of those rows come from true ones, by these predictions.
        first: Of the fit in which all rows counted alike.
        last: Of the fit in which they counted by p.
        scores: P(label | row, given label) by the mean of both fits' predictions, (N,) float64, ascending.
        probabilities: The p of labels with these scores, (N,) float64, ascending.
    """

    left_out: Opinion
    noise: NoiseModel
    first: Readout
    last: Readout
    scores: Array
    probabilities: Array

    def judge(self, features: npt.NDArray[np.floating], labels: npt.NDArray[np.integer]) -> Opinion:
        """Say the same of other rows.

        Args:
            features: (M, D), on the scale of those that it was fitted to.
            labels: Given labels, (M,).
        """
        predicted, p = np.empty((len(labels), len(self.last.bias))), np.empty(len(labels))
        for part in _chunks(len(labels)):
            predicted[part] = self.last(features[part])
            mean = (self.first(features[part]) + predicted[part]) / 2
            scores = self.noise.clean_probability(mean, labels[part])
            p[part] = np.interp(scores, self.scores, self.probabilities)
        return Opinion(predicted, p)


def probe(
    features: npt.NDArray[np.floating],
    labels: npt.NDArray[np.integer],
    num_classes: int,
    estimator: CleanlinessEstimator,
) -> Probe:
    """Predict each true label by ridge regression of the other rows' labels on features.

    Least squares on one-hot labels give every row's prediction without that row in closed form (Allen 1974,
    PRESS), for all strengths of the penalty out of one decomposition; the strength taken has the least
    squared error on the rows left out, and so grows with the noise. At least three times: the second time
    each row counts by the clean probability that the losses of the first give it, but by no less than the
    probability of its label; later by what the fit before and a model of the noise make of it. So wrong
    labels that have been found teach the next one nothing. Where that model finds flips from class to class,
    which come to light little by little, fits go on while labels become likelier. Probabilities are a softmax
    of the predictions, as sharp as makes the labels likeliest; of later fits, if a share of them, any share,
    is drawn at random.

    How many labels are wrong, and how surely, the last fit and its noise model say: p has the distribution of
    their posterior. Which ones, the mean of the first and the last fit's predictions says under the same
    noise model: the first counts all rows alike, and so confirms no doubt of its own. O(N·D² + D³) time;
    beside the features, the result is the largest array.

    Args:
        features: What a model makes of the rows, (N, D), on any scale.
        labels: Given labels, (N,) in [0, C).
        num_classes: C.
        estimator: What turns the losses of the first fit into clean probabilities.
    """
    rows, center, scale = _standardised(features)
    first, coefficients = _fitted(rows, labels, num_classes, np.ones(len(labels)), some_random=False)
    all_alike = _unstandardised(coefficients, center, scale)
    losses = losses_of(first, labels)
    mixture = estimator.estimate(losses.astype(np.float32), labels).clean_probability.astype(np.float64)
    belief = np.maximum(mixture, np.exp(-losses))
    likelihood = -math.inf
    for fit in range(2, _MOST_FITS + 1):
        weights = np.maximum(belief, _LEAST_WEIGHT)
        left_out, coefficients = _fitted(rows, labels, num_classes, weights, some_random=True)
        noise = fit_noise_model(left_out, labels)
        belief = noise.clean_probability(left_out, labels)
        before, likelihood = likelihood, noise.log_likelihood(left_out, labels) / len(labels)
        if fit > 2 and not (noise.kind == "flips" and likelihood > before + _LIKELIER):
            break
    scores, p = noise.clean_probability((first + left_out) / 2, labels), np.sort(belief)
    ascending = np.sort(scores)
    opinion = Opinion(left_out, np.interp(scores, ascending, p))
    return Probe(opinion, noise, all_alike, _unstandardised(coefficients, center, scale), ascending, p)


def readout(
    features: npt.NDArray[np.floating],
    labels: npt.NDArray[np.integer],
    num_classes: int,
    belief: npt.NDArray[np.floating] | None = None,
) -> Readout:
    """Fit what the first or, where labels are believed or not, a later one of ``probe``'s fits is.

    Args:
        features: (N, D), on any scale.
        labels: Given labels, (N,) in [0, C).
        num_classes: C.
        belief: The clean probabilities that rows count by, (N,). Default: all count alike.
    """
    rows, center, scale = _standardised(features)
    weights = np.ones(len(labels)) if belief is None else np.maximum(belief, _LEAST_WEIGHT)
    _, coefficients = _fitted(rows, labels, num_classes, weights, some_random=belief is not None)
    return _unstandardised(coefficients, center, scale)


def clean_probability_out_of_sample(
    predicted: npt.NDArray[np.floating], labels: npt.NDArray[np.integer]
) -> Array:
    """How believable labels are by any classifier that was fitted to such labels, but not to the row's.

    It predicts given labels, of which a share is wrong, and so is too flat for true ones. As for ``probe``,
    its predictions are made as sharp as makes the labels likeliest, if a share of them, any share, is drawn
    at random; a noise model then weighs them against the labels.

    Args:
        predicted: Class probabilities, out of sample, (N, C).
        labels: Given labels, (N,).

    Returns:
        p, (N,) float64.
    """
    logs = np.log(np.maximum(predicted.astype(np.float64), _SMALLEST))
    sample = slice(None, None, math.ceil(len(labels) / _CHUNK))
    sharpness = _sharpness(logs[sample], labels[sample], np.ones(len(labels[sample])), some_random=True)
    true = softmax(sharpness * logs, axis=1)
    return fit_noise_model(true, labels).clean_probability(true, labels)


def losses_of(probabilities: Array, labels: npt.NDArray[np.integer]) -> Array:
    """Cross entropies under labels, (N,), from class probabilities, (N, C)."""
    return -np.log(np.maximum(probabilities[np.arange(len(labels)), labels], _SMALLEST))


def _standardised(features: npt.NDArray[np.floating]) -> tuple[npt.NDArray[np.float32], Array, float]:
    """Features (N, D) of mean 0 and mean squared norm 1, each with a 1 behind; the mean and the scale."""
    center, squares = features.mean(axis=0, dtype=np.float64), 0.0
    rows = np.ones((len(features), features.shape[1] + 1), np.float32)
    for part in _chunks(len(features)):
        rows[part, :-1] = moved = features[part] - center
        squares += float((moved**2).sum())
    scale = math.sqrt(squares / len(features)) or 1.0
    rows[:, :-1] /= scale
    return rows, center, scale


def _unstandardised(coefficients: Array, center: Array, scale: float) -> Readout:
    """The same for features as they come: coefficients (D + 1, C) are of standardised ones."""
    slopes = coefficients[:-1] / scale
    return Readout(slopes, coefficients[-1] - center @ slopes)


def _chunks(size: int) -> Iterator[slice]:
    """Parts of the rows, so that what is computed for each of them takes little memory."""
    return (slice(start, start + _CHUNK) for start in range(0, size, _CHUNK))


def _fitted(
    rows: npt.NDArray[np.float32],
    labels: npt.NDArray[np.integer],
    num_classes: int,
    weights: Array,
    *,
    some_random: bool,
) -> tuple[Array, Array]:
    """Weighted ridge regression with the best of ``_PENALTIES``.

    Returns:
        P(true class) of the rows left out, (N, C), and coefficients whose softmax is that of others, (D, C).
    """
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

    sample = slice(None, None, math.ceil(size / _CHUNK))  # more rows say nothing new of one number
    given = np.eye(num_classes)[labels[sample]]
    errors = np.array(
        [
            weights[sample] @ ((predicted - given) ** 2).sum(axis=1)
            for predicted in left_out(sample, _PENALTIES)
        ]
    )
    penalty = _PENALTIES[errors.argmin()]
    predicted = np.concatenate([next(left_out(part, np.array([penalty]))) for part in _chunks(size)])
    coefficients = vectors @ (products / (np.maximum(values, 0) + penalty)[:, None])

    sharpness = _sharpness(predicted[sample], labels[sample], weights[sample], some_random)
    return softmax(sharpness * predicted, axis=1), sharpness * coefficients


def _sharpness(predicted: Array, labels: npt.NDArray[np.integer], weights: Array, some_random: bool) -> float:
    """The factor before the softmax that makes the labels likeliest, all of them or but for some random ones.

    Of labels that are believed a few are wrong, and would flatten all probabilities if none could be random;
    more than half are not.
    """
    total, random = weights.sum(), 1 / predicted.shape[1]

    def surprise(log_sharpness: float) -> float:
        logs = log_softmax(np.exp(log_sharpness) * predicted, axis=1)
        own = np.exp(logs[np.arange(len(labels)), labels]).clip(np.finfo(float).tiny)
        share = 0.1 * some_random
        for _ in range(_STEPS if some_random else 0):
            drawn = weights @ (share * random / ((1 - share) * own + share * random)) / total
            share = min(drawn, _MOST_RANDOM)
        return -float(weights @ np.log((1 - share) * own + share * random))

    grid = np.linspace(*_LOG_SHARPNESS, 29)
    best = grid[np.argmin([surprise(point) for point in grid])]
    bounds = best - grid[1] + grid[0], best + grid[1] - grid[0]
    return float(np.exp(minimize_scalar(surprise, bounds=bounds, method="bounded").x))
