"""Several sources of labels: people, rules and models that label the same rows and do not always agree.

Dawid and Skene (1979) tell how often each source errs by how the sources agree; a probe on the features of
the rows joins in (Raykar et al. 2010). Their model takes a source's errors to depend on the true class alone.
Those of a rule depend on the text, so that the probe confirms them. Here source a says of a row with features
x and the true class z

    P(y | z, x) = (1 − λ_a) · T_a[z, y] + λ_a · R_a(y | x):

a share λ of its labels follows from the text whatever the true class is, as a probe that was fitted to this
source's labels alone predicts them. All λ and T and the probe P(z | x) are fitted together by EM, from the
share of votes for each class on.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt
from scipy.special import softmax

from clear_peft.errors import InputError
from clear_peft.label_quality.calibration import single_threaded
from clear_peft.label_quality.groups import as_groups
from clear_peft.label_quality.noise_model import TINY
from clear_peft.label_quality.quality import TopProbs
from clear_peft.label_quality.ridge import one_hot
from clear_peft.label_quality.soft_ridge import Probe, SoftRidge
from clear_peft.label_quality.transition import prior_counts
from clear_peft.label_quality.types import Array, Labels

Places = npt.NDArray[np.floating]

# of a vote: what every class has to begin with, and at most all together, who would else outvote the sources
_SMOOTHING, _ALL_SMOOTHING = 0.3, 2.0
# labels of a source that has a probe of its own
_FEWEST = 10
_STEPS, _PENALTY_STEPS = 20, (0, 2)
_FIRST_SHARE = 0.3
# keeps λ small, which is not determined where the text tells the class: as if so many more labels, as a share
# of all, depended on the true class
_PRIOR_BY_CLASS = 0.05
_CONSENSUS_STEPS = 30


@dataclass(frozen=True, eq=False)
class Source:
    """How one source labels.

    Attributes:
        transition: T, (C, C).
        share: λ, the share of its labels that follows from the text alone.
        text_probe: R, a probe on its labels; None where they are too few for one, and R is even.
    """

    transition: Array
    share: float
    text_probe: Probe | None

    def by_text(self, places: Places, labels: Labels, prior_scores: Places | None) -> Array:
        """R of labels of rows that the probe was not fitted to, (B,)."""
        if self.text_probe is None:
            return np.full(len(labels), 1 / len(self.transition))
        return self.text_probe(places, prior_scores)[np.arange(len(labels)), labels]

    def by_class(self, labels: Labels) -> Array:
        """The part of P(y | z, x) that depends on z, for labels (B,): (B, C)."""
        return (1 - self.share) * self.transition[:, labels].T

    def likelihood(self, labels: Labels, by_text: Array) -> Array:
        """P(y | z, x) for labels (B,) and R of each: (B, C)."""
        return np.maximum(self.by_class(labels) + self.share * by_text[:, None], TINY)


def check_votes(votes: npt.ArrayLike, size: int, num_classes: int) -> Labels:
    """Labels of several sources, (N, A) int64.

    Raises:
        InputError: If they are not of that shape, or name a class that there is not.
    """
    values = np.asarray(votes)
    if values.ndim != 2 or len(values) != size or not values.shape[1]:
        raise InputError(f"votes have shape {values.shape}: give a column for each source, ({size}, A).")
    if not np.issubdtype(values.dtype, np.integer) or values.min() < -1 or values.max() >= num_classes:
        raise InputError(
            f"votes hold other values than whole numbers from -1 to {num_classes - 1}: give class ids, and "
            "-1 where a source says nothing."
        )
    return values.astype(np.int64)


def share_of_votes(labels: Labels, num_classes: int) -> Array:
    """Share of the votes for each class, smoothed, (N, C)."""
    counts = np.full((len(labels), num_classes), min(_SMOOTHING, _ALL_SMOOTHING / num_classes))
    for source in labels.T:
        said = np.flatnonzero(source >= 0)
        counts[said, source[said]] += 1
    return counts / counts.sum(axis=1, keepdims=True)


@dataclass(frozen=True, eq=False)
class VotedProbe:
    """What several sources make of rows; made by ``fit_votes``.

    Attributes:
        probe: P(true class | row), of rows in their principal axes.
        sources: How each labels.
    """

    probe: Probe
    sources: tuple[Source, ...]

    def judge(self, places: Places, votes: Labels, prior_scores: Places | None) -> tuple[Array, Array]:
        """Of rows that nothing was fitted to.

        Args:
            places: Rows in their principal axes, (B, R).
            votes: Class ids, -1 where a source says nothing, (B, A).
            prior_scores: (B, C), or None.

        Returns:
            P(true class | row) and P(true class | row, votes), (B, C) each.
        """
        by_text = np.full(votes.shape, 1 / self.probe.slopes.shape[1])
        for a, source in enumerate(self.sources):
            said = np.flatnonzero(votes[:, a] >= 0)
            by_text[said, a] = source.by_text(places[said], votes[said, a], _part(prior_scores, said))
        pred_probs = self.probe(places, prior_scores)
        return pred_probs, _informed(pred_probs, votes, by_text, self.sources)


@single_threaded
def fit_votes(
    places: Places,
    groups: Labels | None,
    counted: Array,
    votes: Labels,
    num_classes: int,
    prior_scores: Places | None,
) -> tuple[VotedProbe, Array, Array]:
    """Fit a probe and how each source labels, by EM.

    Args:
        places: Rows in their principal axes, (N, R).
        groups: (N,); None where every row is alone.
        counted: How much each row counts, (N,).
        votes: Class ids, -1 where a source says nothing, (N, A).
        num_classes: C.
        prior_scores: (N, C), or None.

    Returns:
        The probe for other rows; P(true class | row) by a fit without its group and P(true class | row,
        votes), (N, C) each.
    """
    by_text, text_probes = np.full(votes.shape, 1 / num_classes), []
    for a, labels in enumerate(votes.T):
        said = np.flatnonzero(labels >= 0)
        together = None if groups is None else as_groups(groups[said], len(said))
        text_probe = None
        if len(said) >= _FEWEST and (together is None or together.max() > 0):
            ridge = SoftRidge(places[said], together, counted[said], _part(prior_scores, said))
            targets = one_hot(labels[said], num_classes)
            text_probe, own = ridge.probe(targets, ridge.best_penalty(targets))
            by_text[said, a] = own[np.arange(len(said)), labels[said]]
        text_probes.append(text_probe)
    ridge = SoftRidge(places, groups, counted, prior_scores)
    beliefs, penalty, start = share_of_votes(votes, num_classes), 0.0, None
    sources = [
        Source(_transition(beliefs * counted[:, None], labels), _FIRST_SHARE, text_probe)
        for labels, text_probe in zip(votes.T, text_probes, strict=True)
    ]
    for step in range(_STEPS):
        if step in _PENALTY_STEPS:
            penalty = ridge.best_penalty(beliefs)
        probe, pred_probs = ridge.probe(beliefs, penalty, start=start)
        start = probe.calibration
        beliefs = _informed(pred_probs, votes, by_text, sources)
        sources = [
            _fitted(source, beliefs, counted, labels, own)
            for source, labels, own in zip(sources, votes.T, by_text.T, strict=True)
        ]
    return VotedProbe(probe, tuple(sources)), pred_probs, beliefs


def _informed(pred_probs: Array, votes: Labels, by_text: Array, sources: Sequence[Source]) -> Array:
    """P(true class | row, votes), (N, C), of P(true class | row)."""
    logs = np.log(np.maximum(pred_probs, TINY))
    for source, labels, own in zip(sources, votes.T, by_text.T, strict=True):
        said = np.flatnonzero(labels >= 0)
        logs[said] += np.log(source.likelihood(labels[said], own[said]))
    return softmax(logs, axis=1)


def _fitted(source: Source, beliefs: Array, counted: Array, labels: Labels, by_text: Array) -> Source:
    """The M-step of one source; one that says nothing of these rows stays as it is."""
    said = np.flatnonzero(labels >= 0)
    if not len(said):
        return source
    of_class = beliefs[said] * source.by_class(labels[said]) / source.likelihood(labels[said], by_text[said])
    by_true_class = float(np.average(of_class.sum(axis=1), weights=counted[said]))
    share = 1 - (by_true_class + _PRIOR_BY_CLASS) / (1 + _PRIOR_BY_CLASS)
    return replace(source, transition=_transition(of_class * counted[said, None], labels[said]), share=share)


def _part(values: Places | None, rows: npt.NDArray[np.integer]) -> Places | None:
    return None if values is None else values[rows]


def _transition(beliefs: Array, labels: Labels) -> Array:
    """T by what is believed of the rows, each as it counts, (N, C), and their labels."""
    said = labels >= 0
    counts = np.zeros((beliefs.shape[1],) * 2)
    np.add.at(counts, labels[said], beliefs[said])
    counts = counts.T + prior_counts(beliefs.shape[1])
    return counts / counts.sum(axis=1, keepdims=True)


def consensus(votes: Labels, num_classes: int) -> Labels:
    """The likeliest class of each row by votes alone (Dawid and Skene 1979), (N,) int64; -1 without a vote.

    Args:
        votes: Class ids, -1 where a source says nothing, (N, A).
        num_classes: C.
    """
    beliefs = share_of_votes(votes, num_classes)
    for _ in range(_CONSENSUS_STEPS):
        logs = np.log(np.maximum(beliefs.mean(axis=0), TINY)) + np.zeros_like(beliefs)
        for labels in votes.T:
            said = np.flatnonzero(labels >= 0)
            logs[said] += np.log(_transition(beliefs, labels)[:, labels[said]].T)
        beliefs = softmax(logs, axis=1)
    return np.where((votes >= 0).any(axis=1), beliefs.argmax(axis=1), -1)


def reliability(votes: Labels, beliefs: TopProbs) -> Array:
    """Expected share of each source's labels that are right, (A,); NaN of one without a label.

    Args:
        votes: Class ids, -1 where a source says nothing, (N, A).
        beliefs: P(true class | row, votes) of the N rows.
    """
    right = np.full(votes.shape[1], np.nan)
    for source, labels in enumerate(votes.T):
        said = np.flatnonzero(labels >= 0)
        if len(said):
            right[source] = beliefs[said].dense()[np.arange(len(said)), labels[said]].mean()
    return right
