"""Linear probes on a frozen or trained model's features: which labels do they contradict?

One ridge regression for each representation of the rows (layers of a model), each row's scores by a fit
without its group; a calibration that makes probabilities of the true classes of them, and a noise model that
weighs these against the given labels (``calibration``).
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from clear_peft.errors import InputError
from clear_peft.label_quality.calibration import Fit, calibrate
from clear_peft.label_quality.groups import Groups, as_groups, copy_weights
from clear_peft.label_quality.interval import noise_rate_interval, rate_error, widened
from clear_peft.label_quality.opinions import Rows
from clear_peft.label_quality.quality import LabelQuality, TopProbs
from clear_peft.label_quality.ridge import PENALTIES, Array, Features, Ridge, one_hot, whole_groups
from clear_peft.label_quality.sampled_rate import rate_interval
from clear_peft.label_quality.soft_ridge import Axes
from clear_peft.label_quality.verified import (
    VerifiedProbe,
    check_verified,
    chosen,
    fit_verified,
    rows_to_learn,
)

Labels = npt.NDArray[np.integer]

# rows × classes that are enough to choose a penalty by, and to fit a calibration to
_PENALTY_CELLS, _FIT_CELLS = 1 << 20, 1 << 19
_MOST_FIT_ROWS = 1 << 15
# of standardised features
_LEAST_SLOPE = 1e-6
# rows × classes that are judged together
_JUDGED_CELLS = 1 << 20
_SEED = 0


class Judgement(NamedTuple):
    """What a probe says of rows and their labels.

    Attributes:
        pred_probs: P(true class | row), (N, C).
        clean_probability: p, (N,).
    """

    pred_probs: npt.NDArray[np.floating]
    clean_probability: npt.NDArray[np.floating]


@dataclass(frozen=True, eq=False)
class LinearProbe:
    """Fitted probes, calibration and noise model; made by ``fit_probe``.

    Attributes:
        ridges: One for each representation.
        penalties: Of each.
        fit: Calibration and noise model.
        support: Groups of each class that were fitted to, (C,).
        rate: The noise rate among the rows that it was fitted to.
        verified: What verified rows make of it; None where no row was verified.
    """

    ridges: tuple[Ridge, ...]
    penalties: tuple[float, ...]
    fit: Fit
    support: npt.NDArray[np.int64]
    rate: float
    verified: VerifiedProbe | None = None

    def judge(
        self, features: Features, labels: Labels, prior_scores: npt.NDArray[np.floating] | None = None
    ) -> Judgement:
        """Judge rows that it was not fitted to.

        Args:
            features: (M, D) or (M, V, D), on the scale of those that it was fitted to.
            labels: Given labels, (M,).
            prior_scores: As for ``fit_probe``.
        """
        views: list[npt.NDArray[np.floating]] = []
        rows = _planes(features[:])
        for place, (ridge, penalty) in enumerate(zip(self.ridges, self.penalties, strict=True)):
            slopes, intercepts = ridge.coefficients(penalty)
            views.append(rows[:, place] @ slopes + intercepts)
        if prior_scores is not None:
            views.append(prior_scores)
        if self.verified is None:
            return judged(self.fit, views, labels, self.support, self.rate)
        ignoring = self.fit.calibration(views)
        pred_probs, posterior = self.verified.judge(rows, labels, ignoring, prior_scores)
        p = posterior[np.arange(len(labels)), labels]
        return Judgement(pred_probs, shrunk(p, self.support[labels], self.rate))


def fit_probe(
    features: Features,
    labels: Labels,
    num_classes: int,
    *,
    groups: npt.ArrayLike | None = None,
    copies: npt.ArrayLike | None = None,
    prior_scores: npt.NDArray[np.floating] | None = None,
    verified: npt.ArrayLike | None = None,
) -> tuple[LinearProbe, LabelQuality]:
    """Fit probes to doubtful labels, and judge each label by fits that have not seen it.

    Ridge regression of one-hot labels predicts every row without the rows of its group, in closed form, for
    all strengths of the penalty out of one decomposition; the strength with the least squared error on the
    groups left out is taken, so that it grows with the noise. Copies of a text count together as one row. How
    scores become probabilities of *true* classes is fitted together with the noise (``calibrate``). In
    small classes p is shrunk towards the table's mean: where the class has m other groups, with weight
    1/(m + 1)².

    Verified rows are evidence for all others (``clear_peft.label_quality.verified``).

    O(V·(N·D² + D³)) time. Beside the features, O(N·K) memory, where K is C for up to 64 classes and 32 for
    more.

    Args:
        features: What a model makes of the rows, on any scale: (N, D), or (N, V, D) for V representations of
            each, such as layers.
        labels: Given labels, (N,) in [0, C).
        num_classes: C.
        groups: Of each row, (N,): rows of one group are left out together. Default: every row is alone.
        copies: Of each row, (N,): rows with the same text, which count together as one row; they should be
            in one of ``groups`` too. Default: ``groups``.
        prior_scores: Scores that no label has had a part in, such as the similarity of a text to the names
            of the classes, (N, C). Default: none.
        verified: The true class of each row that a person has looked at and -1 elsewhere, (N,). Default: no
            row is verified.

    Returns:
        The probe, for other rows, and the quality of the labels.

    Raises:
        InputError: If arrays have other shapes, a feature is not finite or a label is out of range.
    """
    size = len(labels)
    _check(features, labels, num_classes)
    answers = check_verified(verified, size, num_classes)
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
    probe = LinearProbe(ridges, penalties, fit, support, rate)
    if answers is not None:
        return with_verified(probe, quality, features, answers, copies=same, prior_scores=prior_scores)
    error = rate_error(fit, views, labels[rows], counted, None if left_out is None else left_out[rows])
    interval = noise_rate_interval(quality.noise_rate, error)
    interval = widened(interval, fit, views, labels[rows], counted)
    return probe, replace(quality, noise_rate_interval=interval)


def with_verified(
    probe: LinearProbe,
    quality: LabelQuality,
    features: Features,
    verified: npt.ArrayLike,
    *,
    copies: npt.ArrayLike | None = None,
    prior_scores: npt.NDArray[np.floating] | None = None,
) -> tuple[LinearProbe, LabelQuality]:
    """Judge labels anew by what some rows truly are: ``fit_probe`` with ``verified``, but for its first part.

    That first part ignores verified rows, and is the same in every round of a review.

    Args:
        probe: Of ``fit_probe`` without verified rows.
        quality: Of the same.
        features: As for ``fit_probe``, and so are the others.
        verified: The true class of each row that a person has looked at and -1 elsewhere, (N,).
        copies: Of each row, (N,). Default: the groups of ``quality``.
        prior_scores: (N, C). Default: none.

    Raises:
        InputError: If verified is not of that shape, or names a class that there is not.
    """
    size, classes = len(quality), quality.pred_probs.num_classes
    answers = check_verified(verified, size, classes)
    if answers is None or quality.noise is None:
        return probe, quality
    counted = copy_weights(quality.groups if copies is None else as_groups(copies, size))

    def known(rows: npt.NDArray[np.integer]) -> tuple[npt.NDArray[np.float32], Array, Any]:
        views = _planes(_rows_of(features, rows))
        ignoring = quality.pred_probs[rows].dense().astype(np.float64)
        return views, ignoring, None if prior_scores is None else prior_scores[rows]

    fitted = chosen(quality.groups, answers, rows_to_learn(classes))
    views, ignoring, prior = known(fitted)
    axes = Axes.of(views, classes)
    of_fitted = (quality.given[fitted], answers[fitted], quality.groups[fitted], counted[fitted])
    verdict = fit_verified(Rows(axes(views), *of_fitted, ignoring, quality.noise.transition, prior), axes)
    parts = [(fitted, verdict.pred_probs, verdict.posterior)]
    others = np.setdiff1d(np.arange(size), fitted)
    step = max(_JUDGED_CELLS // classes, 256)
    for start in range(0, len(others), step):
        rows = others[start : start + step]
        views, ignoring, prior = known(rows)
        parts.append((rows, *verdict.probe.judge(views, quality.given[rows], ignoring, prior)))
    blind, own, tops = np.empty(size), np.empty(size, np.float32), []
    for rows, pred_probs, posterior in parts:
        places, answered = np.arange(len(rows)), np.flatnonzero(answers[rows] >= 0)
        blind[rows] = posterior[places, quality.given[rows]]
        pred_probs[answered] = one_hot(answers[rows[answered]], classes)
        own[rows] = pred_probs[places, quality.given[rows]]
        tops.append(TopProbs.of(pred_probs))
    order = np.argsort(np.concatenate([rows for rows, *_ in parts]))
    rate = float(1 - np.average(blind, weights=counted))
    blind = shrunk(blind, probe.support[quality.given] - 1, rate)
    p = np.where(answers < 0, blind, answers == quality.given).astype(np.float32)
    believed = replace(
        quality,
        pred_probs=TopProbs.concatenate(tops)[order],
        self_confidence=own,
        clean_probability=p,
        noise=verdict.noise,
        verified=answers,
        blind_probability=blind.astype(np.float32),
    )
    interval = rate_interval(blind, answers, quality.given, believed.noise_rate)
    return replace(probe, rate=rate, verified=verdict.probe), replace(believed, noise_rate_interval=interval)


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
                ridge.project(_rows_of(plane, rows)), self.labels[rows], group_size, penalty, weights
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


def _rows_of(features: Features, rows: npt.NDArray[np.integer]) -> npt.NDArray[np.floating]:
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
        projected, given = ridge.project(_rows_of(plane, rows)), one_hot(labels[rows], classes)
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


def _planes(features: npt.NDArray[np.floating]) -> npt.NDArray[np.float32]:
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
