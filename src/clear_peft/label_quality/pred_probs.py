"""The quality of labels by anybody's out-of-sample predictions."""

import numpy as np
import numpy.typing as npt

from clear_peft.errors import InputError
from clear_peft.label_quality.calibration import calibrate
from clear_peft.label_quality.groups import as_groups, copy_weights
from clear_peft.label_quality.interval import noise_rate_interval, rate_error
from clear_peft.label_quality.probe import Labels, class_support, judged, rate_of, rows_to_fit, sampled
from clear_peft.label_quality.quality import LabelQuality, TopProbs

_CHUNK_CELLS = 1 << 22
# a classifier that counts neighbours or trees says 0 of what it has not seen
_SMALLEST = 1e-4
_SUM_TOLERANCE = 1e-2


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
    views, counted = [_scores(probabilities[some])], weights[some] * (support[given[some]] > 1)
    fit = calibrate(views, given[some], counted)
    rate = rate_of(fit, views, given[some], counted)
    p, own, tops = np.empty(size, np.float32), np.empty(size, np.float32), []
    step = max(_CHUNK_CELLS // classes, 1)
    for start in range(0, size, step):
        part = slice(start, start + step)
        true, p[part] = judged(fit, [_scores(probabilities[part])], given[part], support - 1, rate)
        own[part] = true[np.arange(len(true)), given[part]]
        tops.append(TopProbs.of(true))
    inside = None if together is None else together[some]
    error = rate_error(fit, views, given[some], counted, inside)
    interval = noise_rate_interval(float(1 - p.mean(dtype=np.float64)), error)
    every = np.arange(size) if together is None else together
    return LabelQuality(given, TopProbs.concatenate(tops), own, p, fit.noise, interval, every)


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
    numbers = np.issubdtype(probabilities.dtype, np.number)
    if (
        not numbers
        or not (probabilities >= 0).all()
        or not np.allclose(probabilities.sum(axis=1, dtype=np.float64), 1, atol=_SUM_TOLERANCE)
    ):
        raise InputError("pred_probs are no probabilities: give rows of numbers from 0 to 1 that sum to 1.")
    return probabilities, given.astype(np.int64)


def _scores(probabilities: npt.NDArray[np.floating]) -> npt.NDArray[np.float64]:
    return np.log(np.maximum(probabilities.astype(np.float64), _SMALLEST))
