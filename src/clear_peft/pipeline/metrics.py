"""Accuracy, F1, average precision, figures of each class, the detection of wrong labels, and memory."""

import sys
from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd
import torch
from sklearn.metrics import (
    average_precision_score,
    confusion_matrix,
    precision_recall_fscore_support,
    roc_auc_score,
)

from clear_peft.hardware import choose_device
from clear_peft.trainer.multilabel import label_set_metrics
from clear_peft.trainer.spans import SpanScheme, span_counts, word_figures
from clear_peft.trainer.tasks import macro_f1


def accuracy_and_f1(predicted: np.ndarray, labels: np.ndarray) -> dict[str, float]:
    """Share of right predictions, and F1 averaged over the classes that occur."""
    return {
        "accuracy": float((predicted == labels).mean()),
        "macro_f1": macro_f1(predicted, labels),
    }


def measures(logits: np.ndarray, labels: np.ndarray) -> dict[str, float]:
    """What labels say of logits.

    Args:
        logits: (N, C).
        labels: Class ids, (N,), or which of several labels each row has, (N, C).

    Returns:
        ``accuracy_and_f1``; of several labels a row ``clear_peft.trainer.multilabel.label_set_metrics``.
    """
    if labels.ndim == 2:
        return label_set_metrics(logits, labels)
    return accuracy_and_f1(logits.argmax(axis=1), labels)


def word_evaluation(
    predicted: np.ndarray, labels: np.ndarray, first: np.ndarray, names: Sequence[str]
) -> dict[str, Any]:
    """Everything that right labels say of predictions of words.

    Args:
        predicted: Tags of W words, (W,) ids.
        labels: The right ones, (W,).
        first: Whether a word is the first of its sentence, (W,).
        names: Names of the C tags.

    Returns:
        ``accuracy`` of the words, and ``span_f1``, ``span_precision`` and ``span_recall`` of all spans (0
        where they are not defined); ``sentences`` and ``words``, numbers; and ``classes``, for each type of
        span its ``label``, ``precision``, ``recall``, ``f1`` and ``support``, the number of right spans.
    """
    scheme = SpanScheme.of(names)
    right, said, true = span_counts(scheme, predicted, labels, first)
    of_types = [_of_spans(*map(int, counts)) for counts in zip(right, said, true, strict=True)]
    of_all = _of_spans(int(right.sum()), int(said.sum()), int(true.sum()))
    return {
        **word_figures(predicted, labels, first, scheme),
        "span_precision": of_all["precision"],
        "span_recall": of_all["recall"],
        "sentences": int(first.sum()),
        "words": len(labels),
        "classes": [{"label": name, **figures} for name, figures in zip(scheme.types, of_types, strict=True)],
    }


def _of_spans(right: int, said: int, true: int) -> dict[str, Any]:
    precision, recall = right / max(said, 1), right / max(true, 1)
    f1 = 2 * right / (said + true) if right else 0.0
    return {"precision": precision, "recall": recall, "f1": f1, "support": true}


def evaluation(predicted: np.ndarray, labels: np.ndarray, names: Sequence[str]) -> dict[str, Any]:
    """Everything that right labels say of predictions.

    Args:
        predicted: Class ids, (N,).
        labels: The right ones, (N,).
        names: Names of the C classes.

    Returns:
        ``accuracy`` and ``macro_f1``; ``examples``, N; ``classes``, for each its ``label``, ``precision``,
        ``recall``, ``f1`` (0 where they are not defined) and ``support``, how many rows have it; and
        ``confusion_matrix``, C lists of C counts: rows by right label, columns by predicted one.
    """
    ids = np.arange(len(names))
    of_classes = precision_recall_fscore_support(labels, predicted, labels=ids, zero_division=0)
    return {
        **accuracy_and_f1(predicted, labels),
        "examples": len(labels),
        "classes": [
            {
                "label": name,
                "precision": float(precision),
                "recall": float(recall),
                "f1": float(f1),
                "support": int(support),
            }
            for name, precision, recall, f1, support in zip(names, *of_classes, strict=True)
        ],
        "confusion_matrix": confusion_matrix(labels, predicted, labels=ids).tolist(),
    }


def label_set_evaluation(logits: np.ndarray, labels: np.ndarray, names: Sequence[str]) -> dict[str, Any]:
    """Everything that right labels say of logits, where rows have several labels or none.

    A label is predicted where its probability is above one half.

    Args:
        logits: Log odds, (N, C).
        labels: Which labels each row has, (N, C) bool.
        names: Names of the C labels.

    Returns:
        ``micro_f1``, ``macro_f1`` and ``mean_average_precision``, of which the last two leave out labels that
        no row has; ``exact_match``, the share of the rows whose labels are all predicted, and no others;
        ``examples``, N; and ``classes``, for each label its ``label``, ``precision``, ``recall``, ``f1`` (0
        where they are not defined), ``average_precision`` (None where no row has it) and ``support``.
    """
    predicted = logits > 0
    return {
        **label_set_metrics(logits, labels),
        "exact_match": float((predicted == labels).all(axis=1).mean()),
        "examples": len(labels),
        "classes": [{"label": name, **_of_label(logits[:, i], labels[:, i])} for i, name in enumerate(names)],
    }


def _of_label(logits: np.ndarray, labels: np.ndarray) -> dict[str, Any]:
    """Figures of one of several labels: its log odds, (N,), and which rows have it, (N,) bool."""
    of_label = precision_recall_fscore_support(labels, logits > 0, labels=[True], zero_division=0)
    precision, recall, f1, support = (float(figure[0]) for figure in of_label)
    return {
        "precision": precision,
        "recall": recall,
        "f1": f1,
        "average_precision": float(average_precision_score(labels, logits)) if support else None,
        "support": int(support),
    }


def detection(issues: pd.DataFrame, wrong: np.ndarray) -> dict[str, Any] | None:
    """How well a list of label issues finds the labels that are wrong.

    Args:
        issues: The list, with ``row``, ``label_quality``, ``clean_probability`` and ``is_label_issue``.
        wrong: Whether the label of a row is wrong, (N,) bool, by row.

    Returns:
        ``roc_auc`` and ``average_precision`` of the ranking, ``precision`` and ``recall`` of the flagged
        rows, ``wrong`` and ``found`` (counts); None where no label, or every label, is wrong.
    """
    truth = wrong[issues["row"].to_numpy()]
    if truth.all() or not truth.any():
        return None
    suspicion = -np.arange(len(issues))
    flagged = issues["is_label_issue"].to_numpy()
    found = int((flagged & truth).sum())
    return {
        "roc_auc": float(roc_auc_score(truth, suspicion)),
        "average_precision": float(average_precision_score(truth, suspicion)),
        "precision": found / int(flagged.sum()) if flagged.any() else None,
        "recall": found / int(truth.sum()),
        "wrong": int(truth.sum()),
        "found": found,
    }


def memorised(issues: pd.DataFrame, wrong: np.ndarray) -> float | None:
    """Share of the wrong labels that the model predicts, of the rows in a list of label issues.

    Args:
        issues: The list, with ``row``, ``given_label`` and ``predicted_label``.
        wrong: Whether the label of a row is wrong, (N,) bool, by row.
    """
    repeated = (issues["given_label"] == issues["predicted_label"])[wrong[issues["row"].to_numpy()]]
    return float(repeated.mean()) if len(repeated) else None


def peak_memory(device: str = "auto") -> int:
    """Most bytes in use so far: of the GPU where the device is one of CUDA, else of the process."""
    if choose_device(device) == "cuda":
        return torch.cuda.max_memory_allocated()
    if sys.platform == "win32":
        import psutil

        return psutil.Process().memory_info().peak_wset
    import resource

    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit
