"""Verified rows: a few true classes, known for sure, make noise visible that follows from the text.

A wrong label that follows from the text looks right to a fit that has learnt from such labels. What a person
knows of some rows says otherwise. How much it may say against the given labels is not known beforehand. So
there are several fits (``joint_fits``): the fit that ignores verified rows, and joint fits in which they
count little or much. Each is asked for the verified rows that it has not seen, by cross-validation; by these
answers a logarithmic pool weighs the fits, and what a given label is worth beside them (Genest and Zidek
1986). A last probe is fitted to what the pool says of all rows. What is predicted without the given label is
a mean of it and of the fit that ignores verified rows, again by answers that neither has seen.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
from scipy.optimize import minimize
from scipy.special import softmax

from clear_peft.errors import InputError
from clear_peft.label_quality.calibration import single_threaded
from clear_peft.label_quality.joint_fits import (
    FEWEST,
    JointFit,
    Rows,
    counted_by_class,
    joint_fits,
    posterior,
)
from clear_peft.label_quality.noise_model import NoiseModel
from clear_peft.label_quality.ridge import one_hot
from clear_peft.label_quality.soft_ridge import Axes, Probe, SoftRidge
from clear_peft.label_quality.transition import prior_counts
from clear_peft.label_quality.types import Array, Labels

_FOLDS = 5
# rows × classes that the last probe is fitted to, that fits are made to, and those of each fold
_LAST_CELLS, _FIT_CELLS, _FOLD_CELLS = 1 << 21, 1 << 17, 1 << 14
_LAST_ROWS, _MOST_ROWS, _FEWEST_ROWS = 1 << 14, 1 << 13, 1500
# Gaussian priors: log weights of fits, and the weight of the given label
_WEIGHT_PRECISION, _LABEL_PRECISION = 2.0, 1.0
# share of reviewers' answers
_MISTAKEN = 0.05
# of the last probe, each as likely beforehand
_SHARES = np.linspace(0, 1, 21)
_LEAST = 1e-6
_SEED = 0


def check_verified(verified: npt.ArrayLike | None, size: int, num_classes: int) -> Labels | None:
    """True classes of verified rows and −1 elsewhere, (N,) int64; None where no row is verified.

    Raises:
        InputError: If it is not of that shape, or names a class that there is not.
    """
    if verified is None:
        return None
    values = np.asarray(verified)
    if values.shape != (size,):
        raise InputError(f"verified has shape {values.shape}: give one value for each of the {size} rows.")
    if not np.issubdtype(values.dtype, np.integer) or values.min() < -1 or values.max() >= num_classes:
        raise InputError(
            f"verified holds other values than whole numbers from -1 to {num_classes - 1}: give the true "
            "class of a verified row and -1 for any other."
        )
    return values.astype(np.int64) if (values >= 0).any() else None


class Pool(NamedTuple):
    """Fits and what they weigh.

    Attributes:
        fits: The first ignores the verified rows.
        weights: Of the fits, (M,), and of the given label itself, last.
        share: Of the last probe, in what is predicted without the given label; the rest is that of the first
            fit.
    """

    fits: tuple[JointFit, ...]
    weights: Array
    share: float

    def __call__(
        self,
        places: npt.NDArray[np.floating],
        labels: Labels,
        ignoring: Array,
        prior_scores: npt.NDArray[np.floating] | None,
    ) -> Array:
        """P(true class | row, given label) of rows that nothing was fitted to, (B, C)."""
        said = [
            posterior(
                ignoring if one.probe is None else one.probe(places, prior_scores), one.transition, labels
            )
            for one in self.fits
        ]
        return pooled(said, labels, self.weights)

    def predicted(self, ignoring: Array, last: Array) -> Array:
        """P(true class | row) by the fit that ignores verified rows and by the last probe, (B, C) each."""
        return _between(ignoring, last, self.share)


@dataclass(frozen=True, eq=False)
class VerifiedProbe:
    """The pool of fits, and the last probe; made by ``fit_verified``.

    Attributes:
        axes: Of the features.
        pool: What given labels are judged by.
        probe: The last probe.
    """

    axes: Axes
    pool: Pool
    probe: Probe

    def judge(
        self,
        features: npt.NDArray[np.floating],
        labels: Labels,
        ignoring: Array,
        prior_scores: npt.NDArray[np.floating] | None,
    ) -> tuple[Array, Array]:
        """Judge rows that nothing was fitted to.

        Args:
            features: (B, V, D).
            labels: Given labels, (B,).
            ignoring: P(true class | row) by the fit that ignores the verified rows, (B, C).
            prior_scores: (B, C), or None.

        Returns:
            P(true class | row), (B, C), and P(true class | row, given label), (B, C).
        """
        places = self.axes(features)
        beliefs = self.pool(places, labels, ignoring, prior_scores)
        return self.pool.predicted(ignoring, self.probe(places, prior_scores)), beliefs


class Verdict(NamedTuple):
    """What comes of verified rows.

    Attributes:
        probe: For rows that it was not fitted to.
        pred_probs: P(true class | row) of the others, each without its group, (N, C).
        posterior: P(true class | row, given label), (N, C); of a verified row, without its answer.
        noise: How given labels come from true ones.
    """

    probe: VerifiedProbe
    pred_probs: Array
    posterior: Array
    noise: NoiseModel


@single_threaded
def fit_verified(rows: Rows, axes: Axes) -> Verdict:
    """Make fits, pool them, and fit the last probe.

    Args:
        rows: With verified ones among them; fewer than five are too few to weigh fits by.
        axes: That the rows are placed in.
    """
    classes = rows.num_classes
    inside = chosen(rows.groups, rows.verified, _rows_of(_FIT_CELLS, classes, _MOST_ROWS))
    pool, beliefs = _pool(rows[inside])
    others = np.setdiff1d(np.arange(len(rows.labels)), inside)
    known, rest = np.empty((len(rows.labels), classes)), rows[others]
    known[inside] = beliefs
    known[others] = pool(rest.places, rest.labels, rest.ignoring, rest.prior_scores)
    targets = known.copy()
    targets[rows.answered] = one_hot(rows.verified[rows.answered], classes)
    fitted = SoftRidge(rows.places, rows.groups, rows.counted, rows.prior_scores)
    probe, pred_probs = fitted.probe(targets, fitted.best_penalty(targets))
    counts = prior_counts(classes) + counted_by_class(targets * rows.counted[:, None], rows.labels)
    noise = NoiseModel("class_conditional", counts / counts.sum(axis=1, keepdims=True))
    return Verdict(VerifiedProbe(axes, pool, probe), pool.predicted(rows.ignoring, pred_probs), known, noise)


def _pool(rows: Rows) -> tuple[Pool, Array]:
    """Make fits and weigh them.

    Returns:
        Their pool, and P(true class | row, given label) of the rows, (N, C); of a verified one without its
        answer.
    """
    formed, answered, classes = joint_fits(rows), rows.answered, rows.num_classes
    unseen = np.full((len(formed), len(answered), classes), 1 / classes)
    most = max(_FOLD_CELLS // classes, _FEWEST_ROWS, 2 * int(rows.asked.sum()))
    kept = chosen(rows.groups, rows.verified, most)
    heard = []
    for fold in _folds(rows):
        verified = rows.verified.copy()
        verified[answered[fold]] = -1
        some = replace(rows, verified=verified)[kept]
        asked = np.searchsorted(kept, answered[fold])
        said = [posterior(one.pred_probs, one.transition, some.labels) for one in joint_fits(some)]
        for place, one in enumerate(said):
            unseen[place, fold] = one[asked]
        if len(said) == len(formed):
            heard.append((fold, said))
    given = rows.labels[answered]
    weights = _pool_weights(unseen, given, rows.verified[answered])
    said = [posterior(one.pred_probs, one.transition, rows.labels) for one in formed]
    beliefs = pooled(said, rows.labels, weights)
    if len(formed) > 1:
        beliefs[answered] = pooled(list(unseen), given, weights)
    return Pool(tuple(formed), weights, _share(rows[kept], heard, unseen)), beliefs


def _share(
    rows: Rows, heard: Sequence[tuple[npt.NDArray[np.integer], Sequence[Array]]], unseen: Array
) -> float:
    """The share of the last probe beside the fit that ignores verified rows: its posterior mean.

    Before anything is known, all shares are as likely; where no answer can be left out, it is 0.

    Args:
        rows: All verified ones among them.
        heard: Answers that were left out, by their places, and what fits without them say of the rows.
        unseen: What these say of the answers, (M, K, C).
    """
    if not heard:
        return 0.0
    answered = rows.answered
    given, answers = rows.labels[answered], rows.verified[answered]
    right, ignoring = one_hot(answers, rows.num_classes), rows.ignoring[answered]
    fitted, last = SoftRidge(rows.places, rows.groups, rows.counted, rows.prior_scores), ignoring.copy()
    for fold, said in heard:
        others = np.setdiff1d(np.arange(len(answered)), fold)
        weights = _pool_weights(unseen[:, others], given[others], answers[others])
        targets = pooled(said, rows.labels, weights)
        targets[answered[others]] = right[others]
        _, pred_probs = fitted.probe(targets, fitted.best_penalty(targets))
        last[fold] = pred_probs[answered[fold]]
    logs = np.array([_log_likelihood(_between(ignoring, last, share), right) for share in _SHARES])
    return float(softmax(logs) @ _SHARES)


def _log_likelihood(probabilities: Array, right: Array) -> float:
    """Of answers (K, C), any of which may be another class by mistake."""
    low = _mistaken_for(right.shape[1])
    return float(np.log(low + (1 - _MISTAKEN - low) * (probabilities * right).sum(axis=1)).sum())


def _mistaken_for(num_classes: int) -> float:
    """The probability that an answer is a certain wrong class."""
    return _MISTAKEN / max(num_classes - 1, 1)


def _between(one: Array, other: Array, share: float) -> Array:
    """The logarithmic mean of probabilities (N, C), ``share`` of which is the other's."""
    logs = (1 - share) * np.log(np.maximum(one, _LEAST)) + share * np.log(np.maximum(other, _LEAST))
    return softmax(logs, axis=1)


def rows_to_learn(num_classes: int) -> int:
    """How many rows the last probe is fitted to, at the most."""
    return _rows_of(_LAST_CELLS, num_classes, _LAST_ROWS)


def _rows_of(cells: int, num_classes: int, most: int) -> int:
    return max(min(cells // num_classes, most), 4 * num_classes)


def chosen(groups: Labels | None, verified: Labels, most: int) -> npt.NDArray[np.integer]:
    """Rows of random whole groups, some ``most`` of them, ascending; first those with verified rows."""
    size = len(verified)
    if size <= most:
        return np.arange(size)
    codes = np.arange(size) if groups is None else np.unique(groups, return_inverse=True)[1]
    counts = np.bincount(codes)
    first = np.bincount(codes, verified >= 0) > 0
    drawn = np.random.default_rng(_SEED).permutation(len(counts))
    drawn = drawn[np.argsort(~first[drawn], kind="stable")]
    taken = np.zeros(len(counts), bool)
    taken[drawn[: max(1, int(np.searchsorted(np.cumsum(counts[drawn]), most, side="right")))]] = True
    return np.flatnonzero(taken[codes])


def pooled(said: Sequence[Array], labels: Labels, weights: Array) -> Array:
    """The logarithmic pool of fits (N, C), softmax(Σ w_m log q_m + w · one-hot label)."""
    logits = sum(
        w * np.log(np.maximum(one, _LEAST)) for w, one in zip(weights[:-1], said, strict=True)
    ) + weights[-1] * one_hot(labels, said[0].shape[1])
    return softmax(logits, axis=1)


def _folds(rows: Rows) -> Iterator[npt.NDArray[np.integer]]:
    """Positions among the verified rows that are left out together: whole groups, answers spread evenly."""
    answered = rows.answered
    if len(answered) <= FEWEST:
        return
    groups = np.arange(len(answered)) if rows.groups is None else rows.groups[answered]
    _, unit = np.unique(groups, return_inverse=True)
    # the same folds in whatever order the rows stand
    norms = np.bincount(unit, (rows.places[answered].astype(np.float64) ** 2).sum(axis=1))
    classes = np.full(len(norms), rows.num_classes)
    np.minimum.at(classes, unit, rows.verified[answered])
    fold = np.empty(len(norms), np.int64)
    fold[np.lexsort((norms, classes))] = np.arange(len(norms)) % _FOLDS
    for each in range(min(_FOLDS, len(norms))):
        yield np.flatnonzero(fold[unit] == each)


def _pool_weights(unseen: Array, labels: Labels, answers: Labels) -> Array:
    """Weights of fits (M, K, C) and of the given label that make the answers likeliest, (M + 1,).

    An answer may be any other class by mistake, so that no single one decides.

    Before anything is known, ignoring the verified rows is as good as all other fits together, and the
    weights sum to 1.
    """
    fits, _, classes = unseen.shape
    mean = np.full(fits, 0.5 / max(fits - 1, 1))
    mean[0] = 0.5 if fits > 1 else 1.0
    if fits == 1:
        return np.append(mean, 0.0)
    logs, given, right = (
        np.log(np.maximum(unseen, _LEAST)),
        one_hot(labels, classes),
        one_hot(answers, classes),
    )
    low = _mistaken_for(classes)
    precision = np.append(np.full(fits, _WEIGHT_PRECISION), _LABEL_PRECISION)

    def negative(theta: Array) -> tuple[float, Array]:
        weights = mean * np.exp(theta[:-1])
        probabilities = softmax(np.tensordot(weights, logs, 1) + theta[-1] * given, axis=1)
        told = (probabilities * right).sum(axis=1)
        likelihoods = low + (1 - _MISTAKEN - low) * told
        # of the log likelihoods in the logits
        slopes = ((1 - _MISTAKEN - low) * told / likelihoods)[:, None] * (right - probabilities)
        gradient = np.append(weights * np.tensordot(logs, slopes, 2), (slopes * given).sum())
        prior = 0.5 * float(precision @ theta**2)
        return prior - float(np.log(likelihoods).sum()), precision * theta - gradient

    theta = minimize(negative, np.zeros(fits + 1), jac=True, method="L-BFGS-B").x
    return np.append(mean * np.exp(theta[:-1]), theta[-1])
