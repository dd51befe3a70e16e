"""How often each of several labels is wrongly given or missing, fitted for all labels together.

Scores predict *given* labels, so the probability that a label truly applies is found together with the
noise, as for single labels (``calibration``). For label c of row n with scores s,

    q = σ(Σ_v a_cv · s_ncv + b_c),    P(given) = q · (1 − m_c) + (1 − q) · r_c · f_c,

where m_c is the share of true labels that are missing, f_c how often the label is given, and r_c the wrongly
given labels for each given one. A rare label shows little of its own rates. So all rates, weights and biases
are drawn to their means over the labels, which are fitted too (partial pooling, as in hierarchical models:
Gelman et al., Bayesian Data Analysis, chapter 5).
"""

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
from scipy.optimize import minimize
from scipy.special import expit, ndtr

from clear_peft.label_quality.noise_model import TINY
from clear_peft.label_quality.types import Array, Flags

_STEPS = 300
# of the objective, relative
_TOLERANCE = 1e-8
# standard deviations: of each label around the mean of all in log a, b, and the logits of m and r
_OF_WEIGHT, _OF_BIAS, _OF_RATE = 0.3, 1.0, 0.5
# Gaussian priors of the means, mean and standard deviation: log a, b, logits of m and r
_WEIGHT, _BIAS, _RATE = (0.0, 1.0), (0.0, 3.0), (-3.0, 1.5)
# where fits start from: log a, logits of m and r
_STARTS = ((0.0, -4.0), (0.5, -1.5))
_LEAST_LIKELY = 1e-12
# share of pairs called confused that are not (Benjamini and Hochberg 1995)
_FALSE_DISCOVERIES = 0.05


class Verdict(NamedTuple):
    """What is known of each label of each row.

    Attributes:
        pred_probs: q, P(the label truly applies | row), (N, C).
        clean_probability: P(the label is rightly given, or rightly missing | row, given labels), (N, C).
    """

    pred_probs: Array
    clean_probability: Array


@dataclass(frozen=True, eq=False)
class PooledNoise:
    """Fitted calibration and noise of C labels.

    Attributes:
        weights: a, (C, V).
        bias: b, (C,).
        missing: m, P(missing | the label applies), (C,).
        added: P(given | the label does not apply), (C,).
        confusion: P(label j is wrongly given | label i is wrongly missing), (C, C); 0 where the table does
            not show that i is taken for j.
    """

    weights: Array
    bias: Array
    missing: Array
    added: Array
    confusion: Array

    def judge(self, scores: npt.NDArray[np.floating], given: Flags) -> Verdict:
        """Judge rows by scores (V, N, C) that have not seen them, and their given labels (N, C)."""
        q = expit(np.einsum("cv,vnc->nc", self.weights, scores, dtype=np.float64) + self.bias)
        rightly_missing = (1 - q) * (1 - self.added)
        lost = q * self.missing / np.maximum(q * self.missing + rightly_missing, TINY)
        lost[given] = 0
        wrongly_given = (1 - q) * np.minimum(self.added + lost @ self.confusion, 1)
        kept = q * (1 - self.missing)
        right = kept / np.maximum(kept + wrongly_given, TINY)
        return Verdict(q, np.where(given, right, 1 - lost))


def fit_pooled_noise(scores: npt.NDArray[np.floating], given: Flags, counted: Array) -> PooledNoise:
    """Fit calibration and noise of all labels together, by maximum a posteriori.

    Args:
        scores: Out-of-sample scores of N rows in V views, (V, N, C); each on a scale that all labels share.
        given: Given labels, (N, C).
        counted: How much each row counts, (N,).
    """
    problem = _Problem(np.asarray(scores, np.float64), given, counted)
    theta = min((problem.minimised(*start) for start in _STARTS), key=lambda found: found[0])[1]
    weights, bias, missing, added = problem.parameters(theta)
    noise = PooledNoise(weights, bias, missing, added, np.zeros((len(bias),) * 2))
    q, p = noise.judge(scores, given)
    confusion = _confusion(np.where(given, 0, 1 - p), given, q * (1 - missing) + (1 - q) * added, counted)
    return PooledNoise(weights, bias, missing, added, confusion)


class _Problem:
    """The data of one likelihood. θ = means of (log a, b, logit m, logit r), then each label's own, off them.

    Each label's own are in units of their standard deviations around the means.
    """

    def __init__(self, scores: Array, given: Flags, counted: Array) -> None:
        self._scores, self._given, self._counted = scores, given, counted[:, None]
        self._views, size, self._labels = scores.shape
        total = max(float(counted.sum()), 1.0)
        self._often = np.clip(counted @ given / total, 0.5 / size, 1 - 0.5 / size)
        views = self._views
        self._scale = np.array([_OF_WEIGHT] * views + [_OF_BIAS, _OF_RATE, _OF_RATE])
        means, deviations = zip(*[_WEIGHT] * views, _BIAS, _RATE, _RATE, strict=True)
        self._mean, self._deviation = np.array(means), np.array(deviations)

    def minimised(self, log_weight: float, rate: float) -> tuple[float, Array]:
        """Objective and θ of a fit from one start."""
        theta = np.zeros((self._labels + 1, self._views + 3))
        theta[0] = [log_weight] * self._views + [0.0, rate, rate]
        options = {"maxiter": _STEPS, "ftol": _TOLERANCE}
        found = minimize(self._negative, theta.ravel(), jac=True, method="L-BFGS-B", options=options)
        return float(found.fun), found.x

    def parameters(self, theta: Array) -> tuple[Array, Array, Array, Array]:
        """A (C, V), b, m, and P(given | the label does not apply), (C,) each."""
        own = self._own(theta)
        views = self._views
        rates = expit(own[:, views + 1 :])
        return np.exp(own[:, :views]), own[:, views], rates[:, 0], rates[:, 1] * self._often

    def _own(self, theta: Array) -> Array:
        mean, *off = theta.reshape(self._labels + 1, -1)
        return mean + np.array(off) * self._scale

    def _negative(self, theta: Array) -> tuple[float, Array]:
        """Minus the log likelihood and priors, and its gradient."""
        weights, bias, missing, added = self.parameters(theta)
        q = expit(np.einsum("cv,vnc->nc", weights, self._scores) + bias)
        likely = q * (1 - missing) + (1 - q) * added
        likely = np.clip(np.where(self._given, likely, 1 - likely), _LEAST_LIKELY, 1.0)
        slopes = np.where(self._given, self._counted, -self._counted) / likely  # in P(given)
        by_logit = slopes * q * (1 - q) * (1 - missing - added)
        by_weight = np.einsum("nc,vnc->cv", by_logit, self._scores) * weights
        by_missing = -(slopes * q).sum(axis=0) * missing * (1 - missing)
        by_added = (slopes * (1 - q)).sum(axis=0) * added * (1 - added / self._often)
        own = np.column_stack([by_weight, by_logit.sum(axis=0), by_missing, by_added])
        mean, *rest = theta.reshape(self._labels + 1, -1)
        off, above = np.array(rest), (mean - self._mean) / self._deviation
        prior = 0.5 * float((off**2).sum() + above @ above)
        gradient = np.vstack([own.sum(axis=0) - above / self._deviation, own * self._scale - off])
        return prior - float((self._counted * np.log(likely)).sum()), -gradient.ravel()


def _confusion(lost: Array, given: Flags, expected: Array, counted: Array) -> Array:
    """How often label j is given beyond what is expected where label i is missing, (C, C).

    A label that is taken for another leaves two traces in a row: one is missing, and another is given.
    Scores that were fitted to such rows expect the other one a little in all rows of the first, so that by
    itself it looks merely rare. Of the pairs that count, chance shows one in twenty. Their share s makes
    P(j is given) = e + (1 − e) · s where e is expected and i is missing.

    Args:
        lost: P(the label is wrongly missing), (N, C).
        given: (N, C).
        expected: P(given | row) without confusions, (N, C).
        counted: How much each row counts, (N,).
    """
    labels = given.shape[1]
    shares, others = np.zeros((labels, labels)), ~np.eye(labels, dtype=bool)
    if labels > 1:
        from scipy.stats import false_discovery_control  # slow to load

        weighted = lost * counted[:, None]
        excess = weighted.T @ (given - expected)
        spread = np.sqrt((weighted**2).T @ (expected * (1 - expected)) + 0.5)
        by_chance = false_discovery_control(ndtr(-(excess / spread)[others]))
        often = np.clip(excess / (weighted.T @ (1 - expected) + 1), 0, 1)[others]
        shares[others] = np.where(by_chance < _FALSE_DISCOVERIES, often, 0)
    return shares
