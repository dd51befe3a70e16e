"""A linear classifier to begin training from: the probe that a head is set to."""

from typing import NamedTuple

import numpy as np
import numpy.typing as npt
from scipy.optimize import minimize_scalar
from scipy.special import log_softmax, softmax

from clear_peft.label_quality.probe import best_penalty, sampled
from clear_peft.label_quality.ridge import Ridge, whole_groups
from clear_peft.label_quality.types import Array, Labels

_CELLS = 1 << 21
_LOG_SHARPNESS = (-1.0, 6.0)
_POINTS = 29
# a row that is surely wrong still counts a little: a class may have no other
_LEAST_WEIGHT = 1e-3


class LinearHead(NamedTuple):
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


def fit_linear_head(
    features: npt.NDArray[np.floating],
    labels: Labels,
    num_classes: int,
    *,
    clean_probability: npt.NDArray[np.floating] | None = None,
    groups: npt.NDArray[np.integer] | None = None,
) -> LinearHead:
    """Ridge regression of one-hot labels, as sharp as makes the labels of groups left out likeliest.

    Args:
        features: (N, D), on any scale.
        labels: Given labels, (N,) in [0, C).
        num_classes: C.
        clean_probability: By how much each row counts, (N,). Default: all alike.
        groups: Rows that are left out together, (N,). Default: each row is alone.
    """
    size = len(labels)
    counted = None if clean_probability is None else np.maximum(clean_probability, _LEAST_WEIGHT)
    ridge = Ridge.fit(features, labels, num_classes, counted)
    some = sampled(groups, size, _CELLS // num_classes, np.random.default_rng(0))
    penalty = best_penalty(ridge, features, labels, counted, some, groups)
    scores, own, weights = [], [], []
    for places, each in whole_groups(None if groups is None else groups[some], len(some)):
        rows = some[places]
        of = None if counted is None else counted[rows]
        scores.append(ridge.left_out(ridge.project(features[rows]), labels[rows], each, penalty, of))
        own.append(labels[rows])
        weights.append(np.ones(len(rows)) if of is None else of)
    sharpness = _sharpness(np.concatenate(scores), np.concatenate(own), np.concatenate(weights))
    slopes, intercepts = ridge.coefficients(penalty)
    return LinearHead(sharpness * slopes, sharpness * intercepts)


def _sharpness(scores: Array, labels: Labels, weights: Array) -> float:
    """The factor before the softmax that makes the labels likeliest."""
    rows = np.arange(len(labels))

    def surprise(log_sharpness: float) -> float:
        return -float(weights @ log_softmax(np.exp(log_sharpness) * scores, axis=1)[rows, labels])

    grid = np.linspace(*_LOG_SHARPNESS, _POINTS)
    best = grid[np.argmin([surprise(point) for point in grid])]
    step = grid[1] - grid[0]
    return float(np.exp(minimize_scalar(surprise, bounds=(best - step, best + step), method="bounded").x))
