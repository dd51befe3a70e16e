"""The quality of labels by anybody's out-of-sample predictions."""

from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from clear_peft.errors import InputError
from clear_peft.label_quality.calibration import Fit, calibrate
from clear_peft.label_quality.groups import as_groups, copy_weights
from clear_peft.label_quality.interval import noise_rate_interval, rate_error, widened
from clear_peft.label_quality.probe import class_support, judged, rate_of, rows_to_fit, sampled
from clear_peft.label_quality.quality import LabelQuality, TopProbs
from clear_peft.label_quality.types import Array, Labels

_CHUNK_CELLS = 1 << 22
# a classifier that counts neighbours or trees says 0 of what it has not seen
_SMALLEST = 1e-4
_SUM_TOLERANCE = 1e-2
# a quantile of each class's probabilities, how near it rows lie on it, and what share of rows has to
_FLOOR, _NEAR, _ON_FLOOR = 0.02, 1.25, 0.25
# of a row that is above the least of every class; those of one prediction for all are nowhere
_LEAST_ABOVE = 1e-6
# nats
_BETTER = 3.0
# mean confidence beyond the share of labels that are predicted
_TOO_SURE = 0.1


def label_quality_from_pred_probs(
    pred_probs: npt.ArrayLike, labels: npt.ArrayLike, *, groups: npt.ArrayLike | None = None
) -> LabelQuality:
    """Judge labels by predictions of models that have not seen them.

    A classifier fitted to doubtful labels predicts doubtful labels, flips too. So its log probabilities are
    scores as a probe's are: what they say of *true* classes is fitted together with the noise
    (``clear_peft.label_quality.calibration``).

    Args:
        pred_probs: Out-of-sample class probabilities, as ``cross_val_predict(…, method="predict_proba")``
            gives them, (N, C).
        labels: Given labels, (N,) whole numbers in [0, C).
        groups: Of each row, (N,): copies of one text, or what else the folds have kept together; rows of a
            group count together as one. Default: every row is alone.

    Raises:
        InputError: If shapes differ, a row is no probability distribution or a label is out of range.
    """
    probabilities, given = checked(pred_probs, labels)
    size, classes = probabilities.shape
    together = None if groups is None else as_groups(groups, size)
    weights = np.ones(size) if together is None else copy_weights(together)
    support = class_support(given, together, classes)
    some = sampled(together, size, rows_to_fit(classes), np.random.default_rng(0))
    counted = weights[some] * (support[given[some]] > 1)
    scale, views, fit = _fitted(probabilities[some], given[some], counted)
    rate = rate_of(fit, views, given[some], counted)
    p, own, tops = np.empty(size, np.float32), np.empty(size, np.float32), []
    step = max(_CHUNK_CELLS // classes, 1)
    for start in range(0, size, step):
        part = slice(start, start + step)
        true, p[part] = judged(fit, scale(probabilities[part]), given[part], support - 1, rate)
        own[part] = true[np.arange(len(true)), given[part]]
        tops.append(TopProbs.of(true))
    inside = None if together is None else together[some]
    error = rate_error(fit, views, given[some], counted, inside)
    interval = noise_rate_interval(float(1 - p.mean(dtype=np.float64)), error)
    interval = widened(interval, fit, views, given[some], counted)
    every = np.arange(size) if together is None else together
    merged = TopProbs.concatenate(tops)
    return LabelQuality(given, merged, own, p, fit.noise, interval, every, "out_of_sample")


def checked(pred_probs: npt.ArrayLike, labels: npt.ArrayLike) -> tuple[npt.NDArray[np.floating], Labels]:
    """Predictions (N, C) and class ids (N,) int64, if they are such.

    Raises:
        InputError: If not.
    """
    probabilities, given = np.asarray(pred_probs), np.asarray(labels)
    if probabilities.ndim != 2 or given.shape != probabilities.shape[:1] or not len(given):
        raise InputError(
            f"labels have shape {given.shape} and pred_probs {probabilities.shape}: give (N,) and (N, C)."
        )
    classes = probabilities.shape[1]
    given = given.astype(np.int64) if given.dtype == bool else given
    if not np.issubdtype(given.dtype, np.integer) or given.min() < 0 or given.max() >= classes:
        raise InputError(f"labels are not all whole numbers from 0 to {classes - 1}: give class ids.")
    if not np.issubdtype(probabilities.dtype, np.number):
        raise InputError(f"pred_probs hold {probabilities.dtype} values: give numbers.")
    sums = probabilities.sum(axis=1, dtype=np.float64)
    good = (probabilities >= 0).all(axis=1) & (np.abs(sums - 1) <= _SUM_TOLERANCE)
    if not good.all():
        row = int(np.flatnonzero(~good)[0])
        raise InputError(
            f"pred_probs are no probabilities in {(~good).sum()} rows (row {row}, counted from 0, sums to "
            f"{sums[row]:.3g}): give rows of numbers from 0 to 1 that sum to 1."
        )
    return probabilities, given.astype(np.int64)


class _Scale(NamedTuple):
    """How probabilities become scores: less a floor, (C,), as logarithms and perhaps as they are too."""

    floor: Array
    linear: bool

    def __call__(self, probabilities: npt.NDArray[np.floating]) -> list[Array]:
        above = (probabilities.astype(np.float64) - self.floor) / (1 - self.floor.sum())
        above = np.maximum(above, _SMALLEST)
        return [np.log(above), above] if self.linear else [np.log(above)]


def _fitted(
    probabilities: npt.NDArray[np.floating], labels: Labels, counted: Array
) -> tuple[_Scale, list[Array], Fit]:
    """Fit calibration and noise model on the scale on which probabilities explain the labels.

    The scores are logarithms, and the probabilities themselves too where that explains labels better: those
    of k nearest neighbours are 0 for classes without a neighbour. Over-confident probabilities are nearly 0
    or 1, and only their logarithms distinguish rows.

    Where many rows share a minimum probability of a class, that minimum is subtracted. A calibrated model of
    symmetric noise gives every class at least its share of the noise, and would otherwise explain the labels
    without any noise. Rows of classes that merely overlap do not share a minimum.
    """
    none = np.zeros(probabilities.shape[1])

    def fitted(scale: _Scale) -> tuple[_Scale, list[Array], Fit]:
        views = scale(probabilities)
        return scale, views, calibrate(views, labels, counted)

    def worth(found: tuple[_Scale, list[Array], Fit]) -> float:
        return found[2].objective - found[2].cost

    best = fitted(_Scale(none, linear=False))
    too_sure = probabilities.max(axis=1).mean() - (probabilities.argmax(axis=1) == labels).mean()
    if too_sure < _TOO_SURE:
        linear = fitted(_Scale(none, linear=True))
        if worth(linear) > worth(best) + _BETTER:
            best = linear
    floor = np.quantile(probabilities, _FLOOR, axis=0)
    on_floor = floor.min() >= _SMALLEST and (probabilities <= _NEAR * floor).mean() >= _ON_FLOOR
    if on_floor and 1 - floor.sum() > _LEAST_ABOVE:
        above = fitted(_Scale(floor, best[0].linear))
        if worth(above) > worth(best) - _BETTER:
            best = above
    return best
