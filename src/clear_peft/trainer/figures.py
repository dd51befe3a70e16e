"""What an epoch is described by, for logs and plots; nothing in training reads it."""

from typing import Any

import numpy as np
from sklearn.metrics import roc_auc_score

from clear_peft.label_quality import log_odds
from clear_peft.trainer.state import CleanlinessState

_BINS = 40


def wrong_labels(given: np.ndarray, clean: np.ndarray | None) -> np.ndarray | None:
    """Which labels are wrong, (N,) bool; None where that is not known, or not worth a figure."""
    if clean is None:
        return None
    wrong = given != clean
    return wrong if wrong.any() and not wrong.all() else None


def estimate_figures(state: CleanlinessState, wrong: np.ndarray | None) -> dict[str, float]:
    """The estimated noise rate and, where the truth is known, how well the losses tell wrong labels."""
    figures = {"noise_rate": state.noise_rate, "clean_probability": 1 - state.noise_rate}
    if wrong is not None:
        figures["detection_auc"] = float(roc_auc_score(wrong, state.losses))
    return figures


def loss_histogram(state: CleanlinessState, wrong: np.ndarray | None) -> dict[str, Any]:
    """Counts of a pass's losses, on the scale of the estimator, with what it fitted.

    Returns:
        What ``loss_bins`` gives, and ``parameters`` of the estimator; where no mixture was fitted to the
        losses, ``doubted`` (40 numbers): how many labels of each bin are wrong by estimate, the sum of 1 − p.
    """
    scale = state.parameters.get("scale", "loss")
    bins = loss_bins(state.losses, wrong, scale)
    if "family" not in state.parameters and (state.clean_probability < 1).any():
        doubts = np.histogram(
            _scaled(state.losses, scale), bins["edges"], weights=1 - state.clean_probability
        )
        bins["doubted"] = doubts[0].tolist()
    return {**bins, "parameters": state.parameters}


def loss_bins(losses: np.ndarray, wrong: np.ndarray | None, scale: str) -> dict[str, Any]:
    """Counts of losses in 40 bins of equal width.

    Args:
        losses: Finite, (N,).
        wrong: Which labels are wrong, (N,) bool, if it is known.
        scale: ``loss`` or ``log_odds``.

    Returns:
        ``edges`` (41 numbers) on that scale; counts (40 each) ``right`` and ``wrong``, or ``all`` where the
        truth is not known.
    """
    values = _scaled(losses, scale)
    edges = np.linspace(values.min(), values.max() + 1e-6, _BINS + 1)
    parts = {"all": values} if wrong is None else {"right": values[~wrong], "wrong": values[wrong]}
    return {
        "edges": edges.tolist(),
        **{name: np.histogram(part, edges)[0].tolist() for name, part in parts.items()},
    }


def _scaled(losses: np.ndarray, scale: str) -> np.ndarray:
    return log_odds(losses) if scale == "log_odds" else losses
