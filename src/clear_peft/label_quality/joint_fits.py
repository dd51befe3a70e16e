"""Fits of which class is the true one, some of which make little of verified rows and some much.

The joint ones are fitted by EM (semi-supervised: Nigam et al. 2000): a probe P(true class z | features x) and
a transition matrix P(given label y | z), in turn, to

    q(z) ∝ P(z | x) · P(y | z)

of all rows but the verified ones, where q is what the answer says; each row by the probe without its group.
"""

from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
from scipy.special import gammaln

from clear_peft.label_quality.calibration import Calibration
from clear_peft.label_quality.noise_model import NoiseModel
from clear_peft.label_quality.ridge import one_hot
from clear_peft.label_quality.soft_ridge import Probe, SoftRidge
from clear_peft.label_quality.transition import prior_counts
from clear_peft.label_quality.types import Array, Labels

# verified rows that a joint fit can be made by
FEWEST = 4
_STEPS, _PENALTY_STEPS = 6, (0, 2)
# where a joint fit starts, and what the verified rows count there, all together, beside all given labels
_JOINT = (("few", 0.5), ("ignoring", 0.1), ("ignoring", 0.5))
# labels that a T is worth, as a prior
_WORTH = 10.0 ** np.arange(-0.5, 3.1, 0.5)
_LEAST_SHARE = 1e-4


@dataclass(frozen=True, eq=False)
class Rows:
    """What fits are made to.

    Attributes:
        places: Rows in their principal axes, (N, R).
        labels: Given labels, (N,).
        verified: Answers of reviewers, −1 elsewhere, (N,).
        groups: (N,); None where every row is alone.
        counted: How much each row counts, copies of a text together as one, (N,).
        ignoring: P(true class | row) by the fit that ignores the verified rows, (N, C).
        transition: T of that fit, (C, C).
        prior_scores: Scores that no label has had a part in, (N, C), or None.
    """

    places: npt.NDArray[np.floating]
    labels: Labels
    verified: Labels
    groups: Labels | None
    counted: Array
    ignoring: Array
    transition: Array
    prior_scores: npt.NDArray[np.floating] | None

    def __getitem__(self, some: npt.NDArray[np.integer]) -> "Rows":
        def of(values: npt.NDArray | None) -> npt.NDArray | None:
            return None if values is None else values[some]

        return replace(
            self,
            places=self.places[some],
            labels=self.labels[some],
            verified=self.verified[some],
            groups=of(self.groups),
            counted=self.counted[some],
            ignoring=self.ignoring[some],
            prior_scores=of(self.prior_scores),
        )

    @property
    def answered(self) -> npt.NDArray[np.integer]:
        """Positions of the verified rows."""
        return np.flatnonzero(self.verified >= 0)

    @property
    def asked(self) -> npt.NDArray[np.bool_]:
        """Which rows are in a group with a verified one, (N,)."""
        known = self.verified >= 0
        return known if self.groups is None else np.isin(self.groups, self.groups[known])

    @property
    def num_classes(self) -> int:
        """C."""
        return self.ignoring.shape[1]


class JointFit(NamedTuple):
    """What one fit says.

    Attributes:
        probe: For other rows; None of the fit that ignores the verified rows, which is at hand.
        pred_probs: P(true class | row) of the rows that it was fitted to, each without its group, (N, C).
        transition: T, (C, C).
    """

    probe: Probe | None
    pred_probs: Array
    transition: Array


def posterior(pred_probs: Array, transition: Array, labels: Labels) -> Array:
    """P(true class | row, given label), (N, C)."""
    return NoiseModel("class_conditional", transition).posterior(pred_probs, labels)


def counted_by_class(beliefs: Array, labels: Labels) -> Array:
    """Expected numbers of rows by true and given class, (C, C)."""
    sums = np.zeros((beliefs.shape[1],) * 2)
    np.add.at(sums, labels, beliefs)
    return sums.T


def joint_fits(rows: Rows) -> list[JointFit]:
    """The one that ignores verified rows in all but T, and joint fits."""
    answered = rows.answered
    counts = counted_by_class(one_hot(rows.verified[answered], rows.num_classes), rows.labels[answered])
    ignoring = JointFit(None, rows.ignoring, _shrunk(counts, rows.transition))
    if len(answered) < FEWEST:
        return [ignoring]
    starts = {"few": _few_shot(rows), "ignoring": rows.ignoring}
    return [ignoring, *(_joint(rows, starts[start], share) for start, share in _JOINT)]


def _shrunk(counts: Array, transition: Array) -> Array:
    """T by counts of verified rows and, as a Dirichlet prior, another T; how much that counts is fitted."""
    mean = np.maximum(transition, _LEAST_SHARE)
    mean = mean / mean.sum(axis=1, keepdims=True)

    def evidence(concentration: float) -> float:
        prior = concentration * mean
        full = prior + counts
        of_rows = gammaln(prior.sum(axis=1)) - gammaln(full.sum(axis=1))
        return float(of_rows.sum() + (gammaln(full) - gammaln(prior)).sum())

    full = max(_WORTH, key=evidence) * mean + counts
    return full / full.sum(axis=1, keepdims=True)


def _few_shot(rows: Rows) -> Array:
    """P(true class | row) by a probe on the verified rows, (N, C); of their groups, by what ignores them."""
    few = rows[rows.answered]
    fitted = SoftRidge(few.places, few.groups, np.ones(len(few.labels)), None)
    targets = one_hot(few.verified, rows.num_classes)
    probe, _ = fitted.probe(targets, fitted.best_penalty(targets))
    pred_probs = probe(rows.places, None)
    pred_probs[rows.asked] = rows.ignoring[rows.asked]
    return pred_probs


def _joint(rows: Rows, pred_probs: Array, share: float) -> JointFit:
    """Probe and T by EM; verified rows count ``share`` times as much as all others."""
    answered, classes = rows.answered, rows.num_classes
    answers = one_hot(rows.verified[answered], classes)
    counted = rows.counted.copy()
    counted[answered] = max(1.0, share * rows.counted.sum() / len(answered))
    fitted, penalty = SoftRidge(rows.places, rows.groups, counted, rows.prior_scores), 0.0
    calibration: Calibration | None = None
    seen = counted_by_class(answers, rows.labels[answered])
    for step in range(_STEPS):
        counts = prior_counts(classes) + seen
        transition = counts / counts.sum(axis=1, keepdims=True)
        beliefs = posterior(pred_probs, transition, rows.labels)
        beliefs[answered] = answers
        if step in _PENALTY_STEPS:
            penalty = fitted.best_penalty(beliefs)
        probe, pred_probs = fitted.probe(beliefs, penalty, start=calibration)
        calibration = probe.calibration
        seen = counted_by_class(beliefs * rows.counted[:, None], rows.labels)
    return JointFit(probe, pred_probs, transition)
