"""Folds for predictions by models that have not seen the row."""

import numpy as np


def stratified_folds(
    labels: np.ndarray, folds: int, seed: int, groups: np.ndarray | None = None
) -> np.ndarray:
    """The fold of each row, (N,) int64.

    Classes are spread over the folds as evenly as their numbers allow, rare ones too, and no two folds differ
    by more than a row. At most N folds are made. Groups stay whole, each as a row with its first label.

    Args:
        labels: Class ids, (N,).
        folds: Their number.
        seed: The same seed gives the same folds.
        groups: Group of each row, (N,), such as copies of a text. Default: every row is alone.
    """
    if groups is not None:
        _, first, unit = np.unique(groups, return_index=True, return_inverse=True)
        return stratified_folds(labels[first], folds, seed)[unit]
    by_class = np.lexsort((np.random.default_rng(seed).random(len(labels)), labels))
    fold = np.empty(len(labels), np.int64)
    fold[by_class] = np.arange(len(labels)) % folds
    return fold
