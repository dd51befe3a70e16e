"""A second opinion on labels: a linear probe on frozen features, asked about rows that it has not seen."""

import warnings
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LogisticRegression

from clear_peft.cleanliness.estimate import CleanlinessEstimator
from clear_peft.cleanliness.folds import stratified_folds

Array = npt.NDArray[np.float64]

_FOLDS = 5
# of features whose squared norm is 1 on average: few classes or many rows bear less shrinkage
_INVERSE_PENALTIES = (1.0, 10.0)
# more rows add little to a linear probe, and its cost grows with them
_MOST_ROWS = 20_000
_SMALLEST = 1e-12
# a row that is surely wrong still counts a little: a class may have no other
_LEAST_WEIGHT = 1e-3


@dataclass(frozen=True, eq=False)
class Opinion:
    """What a probe says of N rows that it was fitted to in parts, and of M others.

    Attributes:
        out_of_fold: Class probabilities of each row by a probe that has not seen it, (N, C) float64.
        held_out: Class probabilities of the other rows, (M, C) float64.
    """

    out_of_fold: Array
    held_out: Array


def second_opinion(
    features: npt.NDArray[np.floating],
    labels: npt.NDArray[np.integer],
    held_out: npt.NDArray[np.floating],
    num_classes: int,
    estimator: CleanlinessEstimator,
    *,
    seed: int = 0,
) -> Opinion:
    """Let multinomial logistic regressions on frozen features judge the labels, each of the rows left out.

    Twice: the second time each row counts by the clean probability that the first one gives it, so that the
    wrong labels that the first one found teach the second one nothing. Each time the strength of the penalty
    is the one under which the given labels that were left out are likeliest.

    Args:
        features: What a pretrained model makes of the rows, (N, D), on any scale.
        labels: Given labels, (N,) in [0, C).
        held_out: Features of rows that are no part of any fit, (M, D).
        num_classes: C.
        estimator: What turns losses into clean probabilities.
        seed: Of the folds. Default 0.
    """
    center = features.mean(axis=0, dtype=np.float64)
    scale = np.sqrt(((features - center) ** 2).sum(axis=1).mean()) or 1.0
    fold = stratified_folds(labels, _FOLDS, seed)
    rows, others = (features - center) / scale, (held_out - center) / scale
    first = _best(rows, labels, others, num_classes, fold, np.ones(len(labels)))
    losses = losses_of(first.out_of_fold, labels).astype(np.float32)
    belief = estimator.estimate(losses, labels).clean_probability.astype(np.float64)
    return _best(rows, labels, others, num_classes, fold, np.maximum(belief, _LEAST_WEIGHT))


def losses_of(probabilities: Array, labels: npt.NDArray[np.integer]) -> Array:
    """Cross entropies under labels, (N,), from class probabilities, (N, C)."""
    return -np.log(np.maximum(probabilities[np.arange(len(labels)), labels], _SMALLEST))


def share_of_random_labels(probabilities: Array, labels: npt.NDArray[np.integer]) -> float:
    """How many labels look as if drawn at random: in the lower half of what the predictions rank.

    Of C classes, ⌊C/2⌋ lie there: a label drawn at random does so with that share, a right one hardly
    ever, whether or not the predictions are calibrated. For predictions that have not seen the labels.
    Blind to flips between classes that are alike.

    Args:
        probabilities: (N, C).
        labels: (N,).

    Returns:
        The estimated share, in [0, 1].
    """
    classes = probabilities.shape[1]
    lower = classes // 2
    if lower == 0:
        return 0.0
    own = probabilities[np.arange(len(labels)), labels]
    better = (probabilities > own[:, None]).sum(axis=1)
    return min(1.0, float((better >= classes - lower).mean()) * classes / lower)


def _best(
    rows: Array,
    labels: npt.NDArray[np.integer],
    others: Array,
    num_classes: int,
    fold: npt.NDArray[np.integer],
    weights: Array,
) -> Opinion:
    opinions = [_fitted(rows, labels, others, num_classes, fold, weights, c) for c in _INVERSE_PENALTIES]
    return min(opinions, key=lambda o: float(np.average(losses_of(o.out_of_fold, labels), weights=weights)))


def _fitted(
    rows: Array,
    labels: npt.NDArray[np.integer],
    others: Array,
    num_classes: int,
    fold: npt.NDArray[np.integer],
    weights: Array,
    inverse_penalty: float,
) -> Opinion:
    out_of_fold = np.zeros((len(rows), num_classes))
    held_out = np.zeros((len(others), num_classes))
    folds = np.unique(fold)
    for left_out in folds:
        inside = fold == left_out
        fitted = np.flatnonzero(~inside)
        fitted = fitted[:: -(-len(fitted) // _MOST_ROWS)] if len(fitted) else np.flatnonzero(inside)
        classes = np.unique(labels[fitted])
        if len(classes) == 1:
            out_of_fold[inside, classes] = 1.0
            held_out[:, classes] += 1 / len(folds)
            continue
        probe = LogisticRegression(C=inverse_penalty, max_iter=200)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ConvergenceWarning)  # a probe that is nearly there will do
            probe.fit(rows[fitted], labels[fitted], sample_weight=weights[fitted])
        out_of_fold[np.ix_(inside, probe.classes_)] = probe.predict_proba(rows[inside])
        if len(others):
            held_out[:, probe.classes_] += probe.predict_proba(others) / len(folds)
    return Opinion(out_of_fold, held_out)
