"""Which classes are taken for each other."""

import numpy as np
import pandas as pd

from clear_peft.label_quality import TopProbs

_CHUNK = 8192


def estimated_joint(
    clean_probability: np.ndarray,
    given: np.ndarray,
    predicted: np.ndarray,
    probabilities: TopProbs | None,
    classes: int,
) -> np.ndarray:
    """Estimate how often a row of true class i is labelled j.

    A row counts with p for its given label. The rest, 1 − p, goes to the other classes as the model's
    probabilities have them; where it gives them none, or there are no probabilities, to the predicted
    class, and where that is the given one, to all others alike.

    Args:
        clean_probability: p, (N,) in [0, 1].
        given: Given labels, (N,) class ids.
        predicted: Predicted labels, (N,) class ids.
        probabilities: The model's, of N rows, or None.
        classes: Their number, C ≥ 2.

    Returns:
        (C, C) float64, sum 1: true class by given class.
    """
    by_given = np.zeros((classes, classes))
    for start in range(0, len(given), _CHUNK):
        part = slice(start, start + _CHUNK)
        label, guess = given[part], predicted[part]
        row = np.arange(len(label))
        true = np.zeros((len(label), classes))
        if probabilities is not None:
            true += probabilities[part].dense()
        true[row, label] = 0
        silent = true.sum(axis=1) == 0
        elsewhere = guess != label
        true[row[silent & elsewhere], guess[silent & elsewhere]] = 1
        true[silent & ~elsewhere] = 1
        true[row, label] = 0
        p = clean_probability[part]
        true *= ((1 - p) / true.sum(axis=1))[:, None]
        true[row, label] = p
        np.add.at(by_given, label, true)
    return by_given.T / len(given)


def confused_pairs(joint: np.ndarray, labels: list[str], rows: int, limit: int = 10) -> pd.DataFrame:
    """The pairs of classes that are most often taken for each other.

    Args:
        joint: ``Audit.joint``, (C, C).
        labels: ``Audit.labels``.
        rows: Number of rows, N.
        limit: Pairs at most. Default 10.

    Returns:
        ``true``, ``given`` (names), ``share`` (of all rows) and ``rows`` (their estimated number, not a
        whole one), most frequent first; only pairs with half a row or more.
    """
    pairs = np.where(np.eye(len(joint), dtype=bool), 0, joint)
    order = np.argsort(-pairs, axis=None, kind="stable")[:limit]
    true, given = np.unravel_index(order, pairs.shape)
    names = np.array(labels, dtype=object)
    share = pairs[true, given]
    frame = pd.DataFrame({"true": names[true], "given": names[given], "share": share, "rows": share * rows})
    return frame[frame["rows"] >= 0.5]
