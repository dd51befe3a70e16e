"""What the page's charts show: curves, histograms with the fitted mixture, routed shares, confusion."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from clear_peft.audit import Audit, confused_pairs
from clear_peft.report.mixtures import densities

_FIGURES = (
    "train_loss",
    "validation_loss",
    "validation_accuracy",
    "validation_macro_f1",
    "validation_weighted_accuracy",
    "validation_weighted_macro_f1",
    "test_accuracy",
    "test_macro_f1",
    "memorised",
    "noise_rate",
    "gate_rate",
    "detection_auc",
)
_CURVE_POINTS = 161
# more cells than these squared are neither readable nor quick to draw
_HEAT_MAP_CLASSES = 100
_PAIRS = 15


def epoch_charts(epochs: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Figures, histogram and routed shares of every epoch.

    Returns:
        A record per epoch: ``epoch``; ``figures`` (those that are there); ``histogram`` (``edges``,
        ``counts`` by part, ``scale``, and the curves of what is right and wrong by estimate) or
        None; ``gates`` (``blocks``, ``classes``) or None.
    """
    return [
        {
            "epoch": epoch["epoch"],
            "figures": {name: epoch[name] for name in _FIGURES if epoch.get(name) is not None},
            "histogram": _histogram(epoch),
            "gates": epoch.get("gate_rates"),
        }
        for epoch in epochs
    ]


def confusion(audit: Audit) -> dict[str, Any]:
    """The estimated confusion between classes.

    Returns:
        ``classes`` (positions in the labels; the most confused ones where there are too many to draw),
        ``given`` (their part of the transition matrix in rounded shares, rows are true classes), ``rows``
        (the same as estimated numbers of rows) and ``pairs``: the most confused ``[true, given, share,
        rows]``, most rows first.
    """
    counts = audit.joint * len(audit.issues)
    transition = audit.transition
    classes = np.arange(len(counts))
    if len(classes) > _HEAT_MAP_CLASSES:
        involved = counts.sum(axis=0) + counts.sum(axis=1) - 2 * np.diag(counts)
        classes = np.sort(np.argsort(-involved, kind="stable")[:_HEAT_MAP_CLASSES])
    places = [str(label) for label in range(len(counts))]
    worst = confused_pairs(audit.joint, places, len(audit.issues), limit=_PAIRS)
    pairs = [(int(true), int(given)) for true, given in zip(worst["true"], worst["given"], strict=True)]
    return {
        "classes": classes.tolist(),
        "given": transition[np.ix_(classes, classes)].round(4),
        "rows": counts[np.ix_(classes, classes)].round(1),
        "pairs": [
            [true, given, round(float(transition[true, given]), 4), round(float(counts[true, given]), 1)]
            for true, given in pairs
        ],
    }


def _histogram(epoch: Mapping[str, Any]) -> dict[str, Any] | None:
    losses = epoch.get("losses") or epoch.get("step_losses")
    if not losses:
        return None
    edges = np.array(losses["edges"], dtype=float)
    counts = {part: losses[part] for part in ("all", "right", "wrong") if part in losses}
    parameters = losses.get("parameters") or {}
    of_steps = not epoch.get("losses")
    histogram: dict[str, Any] = {
        "edges": edges.round(3),
        "counts": counts,
        "scale": "log_odds" if of_steps else parameters.get("scale", "loss"),
        "of_steps": of_steps,
        "contradicted": parameters.get("contradicted"),
    }
    doubted = losses.get("doubted")
    if doubted is not None:
        found, upper = sum(np.array(part) for part in counts.values()), np.array(doubted)
        middles = (edges[:-1] + edges[1:]) / 2
        histogram["curves"] = {
            "x": middles.round(4),
            "lower": (found - upper).round(3),
            "upper": upper.round(3),
        }
    elif "family" in parameters:
        places = np.linspace(edges[0], edges[-1], _CURVE_POINTS)
        rows = sum(sum(part) for part in counts.values())
        lower, upper = densities(parameters, places) * rows * (edges[1] - edges[0])
        histogram["curves"] = {"x": places.round(4), "lower": lower.round(3), "upper": upper.round(3)}
    return histogram
