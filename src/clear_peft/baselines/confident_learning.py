"""Confident learning: models that have not seen a row say whether its label can be right."""

from collections.abc import Callable
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

import numpy as np
from safetensors import SafetensorError
from safetensors.numpy import load_file, save
from scipy.special import softmax

from clear_peft.errors import InputError
from clear_peft.files import atomic_write
from clear_peft.label_quality import stratified_folds
from clear_peft.surroundings import pip_install


@dataclass(frozen=True, eq=False)
class Findings:
    """What confident learning has found of N training rows.

    Attributes:
        logits: By the model that has not seen the row, (N, C) float32.
        kept: Rows to train on, ascending int64: those without an issue, and of a class that would lose all
            its rows the one of best quality.
    """

    logits: np.ndarray
    kept: np.ndarray


def check_installed() -> None:
    """Refuse to begin without cleanlab.

    Raises:
        InputError: If it is not installed.
    """
    if find_spec("cleanlab") is None:
        raise InputError(f"The method 'cleanlab' needs its package: {pip_install('cleanlab')}.")


def out_of_sample_logits(
    labels: np.ndarray,
    classes: int,
    folds: int,
    seed: int,
    train_and_predict: Callable[[np.ndarray, np.ndarray], np.ndarray],
    file: Path,
    say: Callable[[str], None],
    groups: np.ndarray | None = None,
) -> np.ndarray:
    """Logits of every row by a model that was trained on the other folds, (N, C) float32.

    Args:
        labels: Given labels, (N,).
        classes: C.
        folds: Number of folds.
        seed: Of the split.
        train_and_predict: Rows to train on and rows to predict in, logits of the latter out.
        file: Written when all is done; read instead, where an interrupted run has left it.
        say: Told of every fold, a sentence each.
        groups: Group of each row, (N,): one stays in one fold. Default: every row is alone.

    Raises:
        InputError: If the file is damaged, or of another training set.
    """
    if file.is_file():
        return _read(file, len(labels), classes)
    fold = stratified_folds(labels, folds, seed, groups)
    parts: dict[int, np.ndarray] = {}
    for held in np.unique(fold).tolist():
        say(f"Fold {held + 1} of {fold.max() + 1}")
        parts[held] = train_and_predict(np.flatnonzero(fold != held), np.flatnonzero(fold == held))
    logits = np.empty((len(labels), parts[0].shape[1]), np.float32)
    for held, part in parts.items():
        logits[fold == held] = part
    atomic_write(file, save({"logits": logits}))
    return logits


def _read(file: Path, rows: int, classes: int) -> np.ndarray:
    try:
        logits = load_file(file)["logits"]
    except (OSError, SafetensorError, KeyError) as error:
        raise InputError(f"{file} is damaged ({error}): delete it, and the folds run again.") from error
    wanted = rows, classes
    if logits.shape != wanted or logits.dtype != np.float32 or not np.isfinite(logits).all():
        raise InputError(
            f"{file} does not hold float32 logits of {rows} rows and {classes} classes: delete it, "
            "and the folds run again."
        )
    return logits


def find_issues(labels: np.ndarray, logits: np.ndarray) -> Findings:
    """Find the labels that confident learning holds to be wrong (Northcutt et al. 2021, arXiv 1911.00068).

    Args:
        labels: Given labels, (N,) int64.
        logits: Out-of-sample logits, (N, C).
    """
    from cleanlab.filter import find_label_issues  # five seconds, and an extra
    from cleanlab.rank import get_label_quality_scores

    probabilities = softmax(logits.astype(np.float64), axis=1)
    quality = get_label_quality_scores(labels, probabilities)
    is_issue = find_label_issues(labels, probabilities, return_indices_ranked_by=None, n_jobs=1)
    return Findings(logits, kept_rows(labels, is_issue, quality))


def kept_rows(labels: np.ndarray, is_issue: np.ndarray, quality: np.ndarray) -> np.ndarray:
    """Rows without an issue, and the best one of each class that would lose all, ascending int64.

    Args:
        labels: Given labels, (N,).
        is_issue: Whether a label is held to be wrong, (N,) bool.
        quality: Label quality, (N,).
    """
    kept = ~is_issue
    for label in np.setdiff1d(labels, labels[kept]):
        rows = np.flatnonzero(labels == label)
        kept[rows[quality[rows].argmax()]] = True
    return np.flatnonzero(kept)
