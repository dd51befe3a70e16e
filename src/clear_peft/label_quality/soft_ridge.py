"""A linear probe that learns from class probabilities, and says of each row what it would without its group.

Ridge regression (``ridge``) in the principal axes of the features, so that a fit costs little and many can be
tried; what its scores mean, a calibration says.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
from scipy.optimize import minimize
from scipy.special import log_softmax

from clear_peft.label_quality.calibration import Calibration, centred
from clear_peft.label_quality.noise_model import TINY
from clear_peft.label_quality.ridge import PENALTIES, Ridge, whole_groups
from clear_peft.label_quality.types import Array, Labels

_LEAST_AXES, _AXES_PER_CLASS, _ROWS_FOR_AXES = 256, 6, 1 << 12
_SOME_PENALTIES = PENALTIES[2::2]
# of a first calibration; a later one goes on from there (a generalised M-step)
_CALIBRATION_STEPS, _FURTHER_STEPS = 30, 4
# Gaussian priors, as in ``calibration``
_WEIGHT_PRECISION, _BIAS_PRECISION = 2.0, 0.1
_SEED = 0


@dataclass(frozen=True, eq=False)
class Axes:
    """The principal axes of features: all views side by side, each on the same scale.

    Attributes:
        centers: Of the views, (V, D).
        scales: Roots of their mean squared norms after centring, (V,).
        axes: (V·D, R) float32.
    """

    centers: npt.NDArray[np.float32]
    scales: npt.NDArray[np.float32]
    axes: npt.NDArray[np.float32]

    @classmethod
    def of(cls, features: npt.NDArray[np.floating], num_classes: int) -> "Axes":
        """The axes of most variance of rows (N, V, D): 256, or six for each of many classes.

        Of more than 4,096 rows, a random part is looked at.
        """
        if len(features) > _ROWS_FOR_AXES:
            some = np.random.default_rng(_SEED).choice(len(features), _ROWS_FOR_AXES, replace=False)
            features = features[np.sort(some)]
        centers = features.mean(axis=0, dtype=np.float64).astype(np.float32)
        spread = ((features - centers) ** 2).sum(axis=2).mean(axis=0)
        scales = np.sqrt(np.where(spread > TINY, spread, 1) * len(spread)).astype(np.float32)
        rows = ((features - centers) / scales[:, None]).reshape(len(features), -1)
        _, vectors = np.linalg.eigh(rows.T @ rows)
        most = max(_LEAST_AXES, _AXES_PER_CLASS * num_classes)
        return cls(centers, scales, np.ascontiguousarray(vectors[:, ::-1][:, :most]))

    def __call__(self, features: npt.NDArray[np.floating]) -> npt.NDArray[np.floating]:
        """Rows (B, V, D) as (B, R)."""
        rows = (np.asarray(features, np.float32) - self.centers) / self.scales[:, None]
        return rows.reshape(len(rows), self.axes.shape[0]) @ self.axes


class Probe(NamedTuple):
    """P(true class | row) for rows that it was not fitted to.

    Attributes:
        slopes: (R, C).
        intercepts: (C,).
        calibration: Of these scores and, where there are any, of prior scores.
    """

    slopes: Array
    intercepts: Array
    calibration: Calibration

    def __call__(
        self, places: npt.NDArray[np.floating], prior_scores: npt.NDArray[np.floating] | None
    ) -> Array:
        """Of rows in their principal axes (B, R), with prior scores (B, C)."""
        return self.calibration(_views(places @ self.slopes + self.intercepts, prior_scores))


class SoftRidge:
    """Ridge regression of class probabilities, and the calibration of its scores.

    Args:
        places: Rows in their principal axes, (N, R).
        groups: (N,); None where every row is alone.
        counted: How much each row counts, (N,).
        prior_scores: One more view for the calibration, (N, C), or None.
    """

    def __init__(
        self,
        places: npt.NDArray[np.floating],
        groups: Labels | None,
        counted: Array,
        prior_scores: npt.NDArray[np.floating] | None,
    ) -> None:
        self._counted, self._prior_scores = counted, prior_scores
        self._ridge = Ridge.fit(places, np.zeros(len(places), np.int64), 1, counted)
        self._projected = self._ridge.project(places)
        self._chunks = list(whole_groups(groups, len(places)))

    def best_penalty(self, targets: Array) -> float:
        """The penalty whose left-out predictions have the least squared error."""
        ridge = self._fitted(targets)

        def missed(penalty: float) -> float:
            return float(
                self._counted @ ((self._left_out(ridge, targets, penalty) - targets) ** 2).sum(axis=1)
            )

        return float(min(_SOME_PENALTIES, key=missed))

    def probe(
        self,
        targets: Array,
        penalty: float,
        *,
        start: Calibration | None = None,
    ) -> tuple[Probe, Array]:
        """Fit to class probabilities.

        Args:
            targets: (N, C).
            penalty: λ.
            start: A calibration to go on from. Default: none.

        Returns:
            The probe for other rows, and P(true class | row) of these, each without its group, (N, C).
        """
        ridge = self._fitted(targets)
        views = _views(self._left_out(ridge, targets, penalty), self._prior_scores)
        # what counts unequally says as little as so many rows (Kish 1965)
        effective = self._counted * self._counted.sum() / (self._counted**2).sum()
        calibration = _calibrated(views, targets, effective, start)
        return Probe(*ridge.coefficients(penalty), calibration), calibration(views)

    def _fitted(self, targets: Array) -> Ridge:
        weighted = (targets * self._counted[:, None]).astype(np.float32)
        return replace(self._ridge, products=(self._projected.T @ weighted).astype(np.float64))

    def _left_out(self, ridge: Ridge, targets: Array, penalty: float) -> Array:
        scores = np.empty_like(targets)
        for rows, each in self._chunks:
            scores[rows] = ridge.left_out(
                self._projected[rows], targets[rows], each, penalty, self._counted[rows]
            )
        return scores


def _views(scores: Array, prior_scores: npt.NDArray[np.floating] | None) -> list[npt.NDArray[np.floating]]:
    return [scores] if prior_scores is None else [scores, prior_scores]


def _calibrated(
    views: Sequence[npt.NDArray[np.floating]], targets: Array, counted: Array, start: Calibration | None
) -> Calibration:
    """Weights of views and a bias that make class probabilities (N, C) likeliest, on the whole."""
    known, classes = len(views), targets.shape[1]
    rows = [centred(view) for view in views]
    scales = np.array([np.sqrt((view**2).mean()) or 1.0 for view in rows])
    weighted = targets * counted[:, None]

    def negative(theta: Array) -> tuple[float, Array]:
        log_weights, bias = theta[:known], theta[known:]
        weights = np.exp(log_weights) / scales
        logs = log_softmax(sum(a * view for a, view in zip(weights, rows, strict=True)) + bias, axis=1)
        off = np.exp(logs) * counted[:, None] - weighted
        prior = 0.5 * (_WEIGHT_PRECISION * log_weights @ log_weights + _BIAS_PRECISION * bias @ bias)
        by_weights = [a * np.vdot(off, view) for a, view in zip(weights, rows, strict=True)]
        gradient = [by_weights + _WEIGHT_PRECISION * log_weights, off.sum(axis=0) + _BIAS_PRECISION * bias]
        return float(prior - np.vdot(weighted, logs)), np.concatenate(gradient)

    theta, steps = np.zeros(known + classes), _CALIBRATION_STEPS
    if start is not None:
        theta, steps = np.concatenate([np.log(start.weights * scales), start.bias]), _FURTHER_STEPS
    bounds = [(-6.0, 5.0)] * known + [(-10.0, 10.0)] * classes
    options = {"maxiter": steps}
    found = minimize(negative, theta, jac=True, method="L-BFGS-B", bounds=bounds, options=options).x
    return Calibration(np.exp(found[:known]) / scales, found[known:], None)
