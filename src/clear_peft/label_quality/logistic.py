"""Logistic regressions of several labels, each present or absent, and what they say of rows unseen.

One regression for each label on principal axes of the features, and a penalty for each label. Ridge
regression, which serves single labels, predicts shares: a row with three labels gets a third of each, and a
sigmoid of that is no probability.
"""

from collections.abc import Sequence
from functools import cached_property
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
from scipy.optimize import minimize
from scipy.special import expit, log_expit

from clear_peft.errors import InputError
from clear_peft.label_quality.head import LinearHead
from clear_peft.label_quality.probe import planes_of, rows_of, sampled
from clear_peft.label_quality.ridge import Features
from clear_peft.label_quality.soft_ridge import Axes
from clear_peft.label_quality.types import Array, Flags, Groups

# from strong to weak: each fit starts where the stronger has ended
_PENALTIES = (10.0, 1.0, 0.3, 0.1)
_HEAD_PENALTIES = (10.0, 1.0)
_FOLDS = 5
_STEPS = 200
# of the objective, relative
_TOLERANCE = 1e-5
_INTERCEPT_PRECISION = 0.1
_MOST_FIT_ROWS, _ROWS_FOR_AXES, _CHUNK = 1 << 15, 1 << 12, 1 << 14
_TINY = 1e-12
_SEED = 0


class _Coordinates(NamedTuple):
    """Features less their mean, each view at unit length, in principal axes."""

    center: npt.NDArray[np.float32]
    axes: Axes

    @classmethod
    def of(cls, features: Features, num_labels: int, rng: np.random.Generator) -> "_Coordinates":
        some = sampled(None, features.shape[0], _ROWS_FOR_AXES, rng)
        rows = _finite(features, some)
        center = rows.mean(axis=0, dtype=np.float64).astype(np.float32)
        return cls(center, Axes.of(_directions(rows, center), num_labels))

    def __call__(self, features: Features, rows: npt.NDArray[np.integer]) -> npt.NDArray[np.float32]:
        """(B, R)."""
        parts = [rows[start : start + _CHUNK] for start in range(0, len(rows), _CHUNK)]
        placed = [self.axes(_directions(_finite(features, part), self.center)) for part in parts]
        return np.concatenate(placed).astype(np.float32)


def _finite(features: Features, some: npt.NDArray[np.integer]) -> npt.NDArray[np.float32]:
    """Rows as (B, V, D)."""
    rows = planes_of(rows_of(features, some))
    if not np.isfinite(rows).all():
        raise InputError(
            "The features are not all finite numbers: give those of a model that runs in float32 or bf16."
        )
    return rows


def _directions(rows: npt.NDArray[np.float32], center: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    off = rows - center
    return off / np.maximum(np.linalg.norm(off, axis=2, keepdims=True), _TINY)


class Regressions:
    """Regressions of all labels on the features of rows.

    Five folds of whole groups. The penalty of each label is the one that makes its labels in the folds left
    out likeliest. Of more than 32,768 rows a random part is fitted to; the others are predicted by a fit to
    all of it.

    Args:
        features: (N, D) or (N, V, D), on any scale.
        given: (N, C).
        counted: How much each row counts, (N,).
        groups: (N,); None where every row is alone.

    Attributes:
        left_out: Log odds of each label in each row, by regressions that have not seen the row's group,
            (N, C) float32.

    Raises:
        InputError: If a feature is not finite.
    """

    def __init__(self, features: Features, given: Flags, counted: Array, groups: Groups | None) -> None:
        size, labels = given.shape
        rng = np.random.default_rng(_SEED)
        self._coordinates = _Coordinates.of(features, labels, rng)
        fitted = sampled(groups, size, _MOST_FIT_ROWS, rng)
        units = (
            np.arange(len(fitted)) if groups is None else np.unique(groups[fitted], return_inverse=True)[1]
        )
        folds = min(_FOLDS, int(units.max()) + 1)
        fold = (rng.permutation(units.max() + 1) % folds)[units]
        rows, known, weights = self._coordinates(features, fitted), given[fitted], counted[fitted]
        found = np.empty((len(_PENALTIES), *known.shape), np.float32)
        for each in range(folds):
            seen, unseen = fold != each, fold == each
            path = _path(rows[seen], known[seen], weights[seen], _PENALTIES)
            for place, coefficients in enumerate(path):
                found[place, unseen] = _log_odds(rows[unseen], coefficients)
        explained = np.array([weights @ log_expit(np.where(known, odds, -odds)) for odds in found])
        self._best = explained.argmax(axis=0)
        self._fitted = rows, known, weights
        self.left_out = np.empty(given.shape, np.float32)
        self.left_out[fitted] = found[self._best, :, np.arange(labels)].T
        others = np.setdiff1d(np.arange(size), fitted)
        if len(others):
            self.left_out[others] = self._of(features, others)

    def log_odds(self, features: Features) -> npt.NDArray[np.float32]:
        """Log odds of each label in other rows, (B, …) → (B, C)."""
        return self._of(features, np.arange(features.shape[0]))

    def _of(self, features: Features, rows: npt.NDArray[np.integer]) -> npt.NDArray[np.float32]:
        parts = [rows[start : start + _CHUNK] for start in range(0, len(rows), _CHUNK)]
        return np.concatenate(
            [_log_odds(self._coordinates(features, part), self._coefficients) for part in parts]
        )

    @cached_property
    def _coefficients(self) -> npt.NDArray[np.float32]:
        """Of a fit to all rows, (R + 1, C)."""
        path = np.array(_path(*self._fitted, _PENALTIES))
        return path[self._best, :, np.arange(len(self._best))].T


def fit_logistic_head(features: npt.NDArray[np.floating], targets: npt.NDArray[np.floating]) -> LinearHead:
    """Logistic regressions of labels that apply with a probability, as a head to begin training from.

    For each label, a row counts as one that has it and as one that lacks it, by the probability of both. The
    penalty is scikit-learn's default (C = 1) on features of mean 0 and mean squared length 1. Of more than
    16,384 rows a random part is fitted to.

    Args:
        features: (N, D), on any scale.
        targets: Probability that each label applies, (N, C) in [0, 1].

    Returns:
        The map to the log odds of the labels.
    """
    some = sampled(None, len(features), _MOST_FIT_ROWS // 2, np.random.default_rng(_SEED))
    rows, likely = features[some].astype(np.float64), np.asarray(targets[some], np.float64)
    center = rows.mean(axis=0)
    scale = np.sqrt(((rows - center) ** 2).sum(axis=1).mean()) or 1.0
    placed = ((rows - center) / scale).astype(np.float32)
    *_, coefficients = _path(
        np.concatenate([placed, placed]),
        np.repeat([True, False], len(placed))[:, None] & np.ones(likely.shape[1], bool),
        np.concatenate([likely, 1 - likely]),
        _HEAD_PENALTIES,
    )
    slopes = coefficients[:-1].astype(np.float64) / scale
    return LinearHead(slopes, coefficients[-1] - center @ slopes)


def _log_odds(rows: npt.NDArray[np.float32], coefficients: npt.NDArray[np.float32]) -> npt.NDArray:
    return rows @ coefficients[:-1] + coefficients[-1]


def _path(
    rows: npt.NDArray[np.float32], given: Flags, weights: Array, penalties: Sequence[float]
) -> list[npt.NDArray[np.float32]]:
    """Coefficients of all labels, intercepts last, (R + 1, C) for each penalty; weights (N,) or (N, C)."""
    many = weights @ given if weights.ndim == 1 else (weights * given).sum(axis=0)
    base = np.log((many + 0.5) / (weights.sum(axis=0) - many + 0.5))
    start, found = np.zeros((rows.shape[1] + 1, given.shape[1])), []
    start[-1] = base
    for penalty in penalties:
        start = _fitted(rows, given, weights, penalty, base, start)
        found.append(start.astype(np.float32))
    return found


def _fitted(
    rows: npt.NDArray[np.float32], given: Flags, weights: Array, penalty: float, base: Array, start: Array
) -> Array:
    signs, counted = np.where(given, np.float32(1), np.float32(-1)), weights.astype(np.float32)
    counted = counted[:, None] if counted.ndim == 1 else counted

    def negative(theta: Array) -> tuple[float, Array]:
        coefficients = theta.reshape(start.shape)
        odds = signs * _log_odds(rows, coefficients.astype(np.float32))
        off = coefficients[-1] - base
        value = -float((counted * log_expit(odds)).sum(dtype=np.float64))
        value += 0.5 * (penalty * float((coefficients[:-1] ** 2).sum()) + _INTERCEPT_PRECISION * off @ off)
        by_odds = -counted * signs * expit(-odds)
        gradient = np.empty(start.shape)
        gradient[:-1] = rows.T @ by_odds + penalty * coefficients[:-1]
        gradient[-1] = by_odds.sum(axis=0) + _INTERCEPT_PRECISION * off
        return value, gradient.ravel()

    options = {"maxiter": _STEPS, "ftol": _TOLERANCE}
    found = minimize(negative, start.ravel(), jac=True, method="L-BFGS-B", options=options)
    return found.x.reshape(start.shape)
