"""Which epoch's model is the best one, and whether a better one is still to be waited for."""

import math
from collections.abc import Callable
from typing import Any

import numpy as np

BELIEVED_ACCURACY = "believed_accuracy"


def believed_accuracy(logits: np.ndarray, labels: np.ndarray, belief: np.ndarray | None) -> float:
    """Accuracy under the given labels, each counted as far as it is believed.

    Args:
        logits: (M, C).
        labels: Given labels, (M,).
        belief: Their clean probabilities, (M,); None as long as nothing is known. Then, and where no row at
            all is believed, all count alike.
    """
    hits = logits.argmax(axis=1) == labels
    return float(np.average(hits, weights=belief if belief is not None and belief.any() else None))


def within_standard_error(accuracy: float, best: float, rows: float) -> bool:
    """Whether an accuracy is no further below the best than that one's standard error on so many rows."""
    return accuracy >= best - math.sqrt(max(0.0, best * (1 - best)) / max(1.0, rows))


def evaluations_without_gain(
    history: list[dict[str, Any]], name: str, greater_is_better: bool, selectable: Callable[[float], bool]
) -> int:
    """How many evaluations there have been since the best one; 0 if there has been none.

    Told from the history, which a resumed run has too: transformers' own callback counts from nought.

    Args:
        history: The Trainer's log.
        name: Of the figure that counts, as it is logged.
        greater_is_better: Whether it is to be large.
        selectable: Tells whether the model after an epoch may be the best one.
    """
    found = [entry for entry in history if name in entry and selectable(entry["epoch"])]
    values = [entry[name] if greater_is_better else -entry[name] for entry in found]
    return len(values) - 1 - values.index(max(values)) if values else 0
