"""Folds for predictions by models that have not seen the row."""

import numpy as np


def stratified_folds(labels: np.ndarray, folds: int, seed: int) -> np.ndarray:
    """The fold of each row, (N,) int64.

    Classes are spread over the folds as evenly as their numbers allow, rare ones too, and no two folds differ
    by more than a row. At most N folds are made.

    Args:
        labels: Class ids, (N,).
        folds: Their number.
        seed: The same seed gives the same folds.
    """
    by_class = np.lexsort((np.random.default_rng(seed).random(len(labels)), labels))
    fold = np.empty(len(labels), np.int64)
    fold[by_class] = np.arange(len(labels)) % folds
    return fold
