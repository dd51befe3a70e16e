"""Probes, and what more than the given labels is known: votes of several sources, and verified rows."""

from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt

from clear_peft.label_quality.groups import as_groups, copy_weights
from clear_peft.label_quality.joint_fits import Rows, counted_by_class
from clear_peft.label_quality.noise_model import NoiseModel
from clear_peft.label_quality.probe import LinearProbe, Voted, fit_to_labels, planes_of, rows_of, shrunk
from clear_peft.label_quality.quality import LabelQuality, TopProbs
from clear_peft.label_quality.ridge import Features, one_hot
from clear_peft.label_quality.sampled_rate import rate_interval
from clear_peft.label_quality.soft_ridge import Axes
from clear_peft.label_quality.transition import prior_counts
from clear_peft.label_quality.types import Array
from clear_peft.label_quality.verified import check_verified, chosen, fit_verified, rows_to_learn
from clear_peft.label_quality.votes import check_votes, fit_votes

# rows × classes that are judged together
_JUDGED_CELLS = 1 << 20


def fit_probe(
    features: Features,
    labels: npt.NDArray[np.integer],
    num_classes: int,
    *,
    groups: npt.ArrayLike | None = None,
    copies: npt.ArrayLike | None = None,
    prior_scores: npt.NDArray[np.floating] | None = None,
    votes: npt.ArrayLike | None = None,
    verified: npt.ArrayLike | None = None,
) -> tuple[LinearProbe, LabelQuality]:
    """Fit probes to doubtful labels, and judge each label by fits that have not seen it.

    Ridge regression of one-hot labels predicts every row without the rows of its group, in closed form, for
    all strengths of the penalty out of one decomposition; the strength with the least squared error on the
    groups left out is taken, so that it grows with the noise. Copies of a text count together as one row. How
    scores become probabilities of *true* classes is fitted together with the noise (``calibrate``). In
    small classes p is shrunk towards the table's mean: where the class has m other groups, with weight
    1/(m + 1)².

    Several sources of labels are evidence for all rows (``clear_peft.label_quality.votes``), and verified
    rows for all others (``clear_peft.label_quality.verified``).

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
        votes: What several sources say of each row, -1 where one says nothing, (N, A). Labels are then judged
            by all of them; the given labels count only as far as they are among them. Default: the given
            labels are all that is said.
        verified: The true class of each row that a person has looked at and -1 elsewhere, (N,). Default: no
            row is verified.

    Returns:
        The probe, for other rows, and the quality of the labels.

    Raises:
        InputError: If arrays have other shapes, a feature is not finite or a label is out of range.
    """
    probe, quality = fit_to_labels(
        features, labels, num_classes, groups=groups, copies=copies, prior_scores=prior_scores
    )
    same = groups if copies is None else copies
    if votes is not None:
        probe, quality = with_votes(probe, quality, features, votes, copies=same, prior_scores=prior_scores)
    if verified is not None:
        probe, quality = with_verified(
            probe, quality, features, verified, copies=same, prior_scores=prior_scores
        )
    return probe, quality


def with_votes(
    probe: LinearProbe,
    quality: LabelQuality,
    features: Features,
    votes: npt.ArrayLike,
    *,
    copies: npt.ArrayLike | None = None,
    prior_scores: npt.NDArray[np.floating] | None = None,
) -> tuple[LinearProbe, LabelQuality]:
    """Judge labels anew by what several sources say: ``fit_probe`` with ``votes``, but for its first part.

    Args:
        probe: Of ``fit_probe`` without votes and verified rows.
        quality: Of the same.
        features: As for ``fit_probe``, and so are the others.
        votes: (N, A).
        copies: Of each row, (N,). Default: the groups of ``quality``.
        prior_scores: (N, C). Default: none.

    Returns:
        The probe, and the quality: its ``pred_probs`` know all votes of the row, so that the given label says
        nothing more, and its ``noise`` says so.

    Raises:
        InputError: If votes are not of that shape, or name a class that there is not.
    """
    size, classes = len(quality), quality.pred_probs.num_classes
    labels = check_votes(votes, size, classes)
    heard = np.asarray((labels >= 0).any(axis=0))  # a part of a table may lack what a source has said
    labels = labels[:, heard]
    if not labels.shape[1]:
        return probe, quality
    same = quality.groups if copies is None else as_groups(copies, size)
    counted = copy_weights(same)
    fitted = chosen(quality.groups, np.full(size, -1), rows_to_learn(classes))
    views = planes_of(rows_of(features, fitted))
    axes = Axes.of(views, classes)

    def prior(rows: npt.NDArray[np.integer]) -> npt.NDArray[np.floating] | None:
        return None if prior_scores is None else prior_scores[rows]

    voted, _, beliefs = fit_votes(
        axes(views), quality.groups[fitted], counted[fitted], labels[fitted], classes, prior(fitted)
    )
    parts = [(fitted, beliefs)]
    for rows in _blocks(np.setdiff1d(np.arange(size), fitted), classes):
        places = axes(planes_of(rows_of(features, rows)))
        parts.append((rows, voted.judge(places, labels[rows], prior(rows))[1]))
    own, p, tops, counts = np.empty(size, np.float32), np.empty(size), [], prior_counts(classes)
    for rows, beliefs in parts:
        given = quality.given[rows]
        own[rows] = p[rows] = beliefs[np.arange(len(rows)), given]
        tops.append(TopProbs.of(beliefs))
        counts += counted_by_class(beliefs * counted[rows, None], given)
    rate = float(1 - np.average(p, weights=counted))
    p = shrunk(p, probe.support[quality.given] - 1, rate)
    judged = replace(
        quality,
        pred_probs=TopProbs.concatenate(tops)[np.argsort(np.concatenate([rows for rows, *_ in parts]))],
        self_confidence=own,
        clean_probability=p.astype(np.float32),
        noise=NoiseModel("class_conditional", np.tile(counts.sum(axis=0) / counts.sum(), (classes, 1))),
        noise_rate_interval=None,
        source="votes",
    )
    noise = NoiseModel("class_conditional", counts / counts.sum(axis=1, keepdims=True))
    return replace(probe, rate=rate, voted=Voted(axes, voted, heard, noise)), judged


def _blocks(rows: npt.NDArray[np.integer], num_classes: int) -> list[npt.NDArray[np.integer]]:
    """Rows in parts that are small for many classes."""
    step = max(_JUDGED_CELLS // num_classes, 256)
    return [rows[start : start + step] for start in range(0, len(rows), step)]


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
        views = planes_of(rows_of(features, rows))
        ignoring = quality.pred_probs[rows].dense().astype(np.float64)
        return views, ignoring, None if prior_scores is None else prior_scores[rows]

    fitted = chosen(quality.groups, answers, rows_to_learn(classes))
    views, ignoring, prior = known(fitted)
    axes = Axes.of(views, classes)
    of_fitted = (quality.given[fitted], answers[fitted], quality.groups[fitted], counted[fitted])
    verdict = fit_verified(Rows(axes(views), *of_fitted, ignoring, quality.noise.transition, prior), axes)
    parts = [(fitted, verdict.pred_probs, verdict.posterior)]
    others = np.setdiff1d(np.arange(size), fitted)
    for rows in _blocks(others, classes):
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
        # votes know the given label already
        noise=quality.noise if quality.source == "votes" else verdict.noise,
        verified=answers,
        blind_probability=blind.astype(np.float32),
    )
    interval = rate_interval(blind, answers, quality.given, believed.noise_rate)
    return replace(probe, rate=rate, verified=verdict.probe), replace(believed, noise_rate_interval=interval)
