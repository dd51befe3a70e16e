"""Linear probes on a frozen or trained model's features: which labels do they contradict?

One ridge regression for each representation of the rows (layers of a model), each row's scores by a fit
without its group; a calibration that makes probabilities of the true classes of them, and a noise model that
weighs these against the given labels (``calibration``).
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from clear_peft.errors import InputError
from clear_peft.label_quality.agreement import agreement
from clear_peft.label_quality.calibration import Fit, calibrate
from clear_peft.label_quality.groups import as_groups, copy_weights
from clear_peft.label_quality.interval import noise_rate_interval, rate_error, widened
from clear_peft.label_quality.noise_model import NoiseModel
from clear_peft.label_quality.quality import LabelQuality, TopProbs
from clear_peft.label_quality.ridge import PENALTIES, Features, Ridge, one_hot, whole_groups
from clear_peft.label_quality.soft_ridge import Axes
from clear_peft.label_quality.types import Array, Groups, Labels
from clear_peft.label_quality.verified import VerifiedProbe
from clear_peft.label_quality.votes import VotedProbe

# rows × classes that are enough to choose a penalty by, and to fit a calibration to
_PENALTY_CELLS, _FIT_CELLS = 1 << 20, 1 << 19
_MOST_FIT_ROWS = 1 << 15
# of standardised features
_LEAST_SLOPE = 1e-6
_SEED = 0


class Judgement(NamedTuple):
    """What a probe says of rows and their labels.

    Attributes:
        pred_probs: P(true class | row), (N, C).
        clean_probability: p, (N,).
    """

    pred_probs: npt.NDArray[np.floating]
    clean_probability: npt.NDArray[np.floating]


class Voted(NamedTuple):
    """What several sources of labels make of rows.

    Attributes:
        axes: Of the features.
        probe: By what the sources say.
        heard: Which of all sources said something, (A,) bool.
        noise: How given labels come from true ones, for rows without votes.
    """

    axes: Axes
    probe: VotedProbe
    heard: npt.NDArray[np.bool_]
    noise: NoiseModel


@dataclass(frozen=True, eq=False)
class LinearProbe:
    """Fitted probes, calibration and noise model; made by ``fit_probe``.

    Attributes:
        ridges: One for each representation.
        penalties: Of each.
        fit: Calibration and noise model.
        support: Groups of each class that were fitted to, (C,).
        rate: The noise rate among the rows that it was fitted to.
        agreement: How far left-out scores of these rows agree with their labels beyond chance, in standard
            errors; None of fewer than 100.
        voted: What several sources of labels make of it; None where there was one.
        verified: What verified rows make of it; None where no row was verified.
    """

    ridges: tuple[Ridge, ...]
    penalties: tuple[float, ...]
    fit: Fit
    support: npt.NDArray[np.int64]
    rate: float
    agreement: float | None
    voted: Voted | None = None
    verified: VerifiedProbe | None = None

    def judge(
        self,
        features: Features,
        labels: Labels,
        prior_scores: npt.NDArray[np.floating] | None = None,
        votes: Labels | None = None,
    ) -> Judgement:
        """Judge rows that it was not fitted to.

        Args:
            features: (M, D) or (M, V, D), on the scale of those that it was fitted to.
            labels: Given labels, (M,).
            prior_scores: As for ``fit_probe``.
            votes: As for ``fit_probe``, of as many sources. Default: the given labels are all that is said.
        """
        views: list[npt.NDArray[np.floating]] = []
        rows = planes_of(features[:])
        for place, (ridge, penalty) in enumerate(zip(self.ridges, self.penalties, strict=True)):
            slopes, intercepts = ridge.coefficients(penalty)
            views.append(rows[:, place] @ slopes + intercepts)
        if prior_scores is not None:
            views.append(prior_scores)
        pred_probs, noise = self.fit.calibration(views), self.fit.noise
        p = noise.clean_probability(pred_probs, labels)
        if self.voted is not None:
            places = self.voted.axes(rows)
            if votes is None:
                pred_probs = self.voted.probe.probe(places, prior_scores)
                p = self.voted.noise.clean_probability(pred_probs, labels)
            else:
                _, pred_probs = self.voted.probe.judge(places, votes[:, self.voted.heard], prior_scores)
                p = pred_probs[np.arange(len(labels)), labels]
        if self.verified is not None:
            pred_probs, posterior = self.verified.judge(rows, labels, pred_probs, prior_scores)
            p = posterior[np.arange(len(labels)), labels]
        return Judgement(pred_probs, shrunk(p, self.support[labels], self.rate))


def fit_to_labels(
    features: Features,
    labels: Labels,
    num_classes: int,
    *,
    groups: npt.ArrayLike | None = None,
    copies: npt.ArrayLike | None = None,
    prior_scores: npt.NDArray[np.floating] | None = None,
) -> tuple[LinearProbe, LabelQuality]:
    """``fit_probe`` where the given labels are all that is known.

    Args:
        features: As for ``fit_probe``, and so are the others.
        labels: (N,).
        num_classes: C.
        groups: (N,).
        copies: (N,).
        prior_scores: (N, C).
    """
    size = len(labels)
    _check(features, labels, num_classes)
    left_out = None if groups is None else as_groups(groups, size)
    same = left_out if copies is None else as_groups(copies, size)
    weights = None if same is None else copy_weights(same)
    rng = np.random.default_rng(_SEED)
    planes: list[Features] = [features]
    if len(features.shape) == 3:
        planes = [_Plane(features, view) for view in range(features.shape[1])]
    ridges = tuple(Ridge.fit(plane, labels, num_classes, weights) for plane in planes)
    some = sampled(left_out, size, max(_PENALTY_CELLS // num_classes, 1000), rng)
    penalties = tuple(
        best_penalty(ridge, plane, labels, weights, some, left_out)
        for ridge, plane in zip(ridges, planes, strict=True)
    )
    told = [_tells_apart(ridge, penalty) for ridge, penalty in zip(ridges, penalties, strict=True)]
    scored = _Scores(ridges, penalties, planes, labels, weights, prior_scores, told)
    support = class_support(labels, left_out, num_classes)
    fitted = sampled(left_out, size, rows_to_fit(num_classes), rng)
    rows, views = scored.of(fitted, left_out)
    counted = (np.ones(size) if weights is None else weights)[rows] * (support[labels[rows]] > 1)
    fit = calibrate(views, labels[rows], counted)
    rate = rate_of(fit, views, labels[rows], counted)
    quality = _quality(scored, fit, labels, left_out, support, rate)
    by_features = np.mean(views[: len(ridges)], axis=0)
    probe = LinearProbe(ridges, penalties, fit, support, rate, agreement(by_features, labels[rows], counted))
    error = rate_error(fit, views, labels[rows], counted, None if left_out is None else left_out[rows])
    interval = noise_rate_interval(quality.noise_rate, error)
    interval = widened(interval, fit, views, labels[rows], counted)
    return probe, replace(quality, noise_rate_interval=interval)


def rows_to_fit(num_classes: int) -> int:
    """How many rows a calibration is fitted to, at the most."""
    return int(np.clip(_FIT_CELLS // num_classes, 4 * num_classes, _MOST_FIT_ROWS))


def class_support(labels: Labels, groups: Groups | None, num_classes: int) -> npt.NDArray[np.int64]:
    """Number of groups that name each class, (C,)."""
    if groups is None:
        return np.bincount(labels, minlength=num_classes)
    pairs = np.unique(groups * num_classes + labels)
    return np.bincount(pairs % num_classes, minlength=num_classes)


@dataclass(frozen=True, eq=False)
class _Plane:
    """One representation of rows that have several: (N, V, D) as (N, D)."""

    features: Features
    place: int

    @property
    def shape(self) -> tuple[int, ...]:
        return self.features.shape[0], self.features.shape[2]

    def __getitem__(self, rows: slice | npt.NDArray[np.integer]) -> npt.NDArray[np.floating]:
        return self.features[rows][:, self.place]


@dataclass(frozen=True, eq=False)
class _Scores:
    """Scores of rows by ridges that have not seen their groups."""

    ridges: Sequence[Ridge]
    penalties: Sequence[float]
    planes: Sequence[Features]
    labels: Labels
    weights: Array | None
    prior_scores: npt.NDArray[np.floating] | None
    told: Sequence[bool]

    def of_chunk(self, rows: npt.NDArray[np.integer], group_size: int) -> list[npt.NDArray[np.floating]]:
        """Of whole groups of one size, (B, C) for each view."""
        weights = None if self.weights is None else self.weights[rows]
        views: list[npt.NDArray[np.floating]] = [
            told
            * ridge.left_out(
                ridge.project(rows_of(plane, rows)), self.labels[rows], group_size, penalty, weights
            )
            for ridge, plane, penalty, told in zip(
                self.ridges, self.planes, self.penalties, self.told, strict=True
            )
        ]
        return views if self.prior_scores is None else [*views, self.prior_scores[rows]]

    def of(
        self, some: npt.NDArray[np.integer], groups: Groups | None
    ) -> tuple[npt.NDArray[np.integer], list[npt.NDArray[np.floating]]]:
        """Of some whole groups: their rows, in another order, and (B, C) for each view."""
        chunks = [
            (some[places], self.of_chunk(some[places], each))
            for places, each in whole_groups(None if groups is None else groups[some], len(some))
        ]
        rows, views = zip(*chunks, strict=True)
        return np.concatenate(rows), [np.concatenate(view) for view in zip(*views, strict=True)]


def _tells_apart(ridge: Ridge, penalty: float) -> bool:
    """Whether features tell rows apart; if not, leaving out a row still lowers its own label's score."""
    slopes, _ = ridge.coefficients(penalty)
    return bool(np.abs(slopes).max() * ridge.scale > _LEAST_SLOPE)


def rows_of(features: Features, rows: npt.NDArray[np.integer]) -> npt.NDArray[np.floating]:
    """Index contiguous rows by a slice, which memory-mapped files read fastest."""
    if len(rows) and rows[-1] - rows[0] + 1 == len(rows) and (np.diff(rows) == 1).all():
        return features[int(rows[0]) : int(rows[-1]) + 1]
    return features[rows]


def sampled(groups: Groups | None, size: int, most: int, rng: np.random.Generator) -> npt.NDArray[np.integer]:
    """Rows of random whole groups, some ``most`` of them, ascending: a table may be periodic."""
    if size <= most:
        return np.arange(size)
    if groups is None:
        return np.sort(rng.choice(size, most, replace=False))
    counts = np.bincount(groups)
    drawn = rng.permutation(len(counts))
    taken = drawn[: max(1, int(np.searchsorted(np.cumsum(counts[drawn]), most, side="right")))]
    return np.flatnonzero(np.isin(groups, taken))


def best_penalty(
    ridge: Ridge,
    plane: Features,
    labels: Labels,
    weights: Array | None,
    some: npt.NDArray[np.integer],
    groups: Groups | None,
) -> float:
    """The penalty whose left-out predictions of these rows have the least squared error."""
    classes, errors = ridge.products.shape[1], np.zeros(len(PENALTIES))
    for places, each in whole_groups(None if groups is None else groups[some], len(some)):
        rows = some[places]
        projected, given = ridge.project(rows_of(plane, rows)), one_hot(labels[rows], classes)
        counted = None if weights is None else weights[rows]
        for place, penalty in enumerate(PENALTIES):
            missed = ((ridge.left_out(projected, labels[rows], each, penalty, counted) - given) ** 2).sum(
                axis=1
            )
            errors[place] += missed.sum() if counted is None else counted @ missed
    return float(PENALTIES[errors.argmin()])


def judged(
    fit: Fit,
    views: Sequence[npt.NDArray[np.floating]],
    labels: Labels,
    others: npt.NDArray[np.integer],
    rate: float,
) -> Judgement:
    """Judge labels; ``others`` is the number of other groups in each class, (C,)."""
    pred_probs = fit.calibration(views)
    p = fit.noise.clean_probability(pred_probs, labels)
    return Judgement(pred_probs, shrunk(p, others[labels], rate))


def shrunk(p: npt.NDArray[np.floating], others: npt.NDArray[np.integer], rate: float) -> Array:
    """Clean probabilities (N,), the nearer to the table's the fewer other groups the class has, (N,)."""
    unknown = 1 / (np.maximum(others, 0) + 1.0) ** 2
    return (1 - unknown) * p + unknown * (1 - rate)


def rate_of(fit: Fit, views: Sequence[npt.NDArray[np.floating]], labels: Labels, counted: Array) -> float:
    """The noise rate among rows, each as it counts."""
    if not counted.any():
        return 0.0
    p = fit.noise.clean_probability(fit.calibration(views), labels)
    return float(1 - np.average(p, weights=counted))


def _chunks(groups: Groups | None, size: int, num_classes: int) -> Iterator[tuple[npt.NDArray, int]]:
    """``whole_groups``, in parts that are small for many classes."""
    most = max((1 << 22) // num_classes, 256)
    for rows, each in whole_groups(groups, size):
        step = max(1, most // each) * each
        for start in range(0, len(rows), step):
            yield rows[start : start + step], each


def _quality(
    scored: _Scores,
    fit: Fit,
    labels: Labels,
    groups: Groups | None,
    support: npt.NDArray[np.int64],
    rate: float,
) -> LabelQuality:
    """Judge all rows, chunk by chunk; the interval is still to come."""
    size, classes = len(labels), len(support)
    p, own = np.empty(size, np.float32), np.empty(size, np.float32)
    top: TopProbs | None = None
    for rows, each in _chunks(groups, size, classes):
        given = labels[rows]
        pred_probs, p[rows] = judged(fit, scored.of_chunk(rows, each), given, support - 1, rate)
        own[rows] = pred_probs[np.arange(len(rows)), given]
        part = TopProbs.of(pred_probs)
        if top is None:
            shape = (size, part.classes.shape[1])
            top = TopProbs(np.empty(shape, part.classes.dtype), np.empty(shape, np.float32), classes)
        top.classes[rows], top.values[rows] = part.classes, part.values
    assert top is not None  # there are rows
    every = np.arange(size) if groups is None else groups
    return LabelQuality(labels.astype(np.int64), top, own, p, fit.noise, (0.0, 1.0), every)


def planes_of(features: npt.NDArray[np.floating]) -> npt.NDArray[np.float32]:
    """Rows as (B, V, D)."""
    rows = np.asarray(features, np.float32)
    return rows[:, None] if rows.ndim == 2 else rows


def _check(features: Features, labels: Labels, num_classes: int) -> None:
    if len(features.shape) not in (2, 3) or features.shape[0] != len(labels) or not len(labels):
        raise InputError(
            f"features have shape {tuple(features.shape)} and labels {labels.shape}: give (N, D) or "
            "(N, V, D) and (N,)."
        )
    if labels.min() < 0 or labels.max() >= num_classes:
        raise InputError(f"labels are not all whole numbers from 0 to {num_classes - 1}: give class ids.")
