"""What a record yields: figures for tables, comparisons between methods."""

import json
import math
from collections import Counter
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
import pandas as pd
from scipy.stats import t as student

from clear_peft.baselines import METHODS
from clear_peft.bench.grid import TRUE_LABELS

PLAIN = "plain"
CELL = ["data", "noise", "peft"]
SMALLEST_GAP = 0.01
_LAST = 5
_PEFT_OPTIONS = "peft_options"


def figures(records: Iterable[Mapping[str, Any]]) -> pd.DataFrame:
    """One row for each record.

    Args:
        records: Of one or more stores; one that occurs twice counts once.

    Returns:
        ``data``, ``noise``, ``peft``, ``method`` and ``seed`` of the cell; where a name stands for different
        settings, the rarer of them have what they differ in behind it; ``kind`` of the noise, all of it but
        its rate; what the method ``needs`` besides
        the data and one training; ``noise_rate`` as realised; accuracies on true test labels
        as fractions: ``selected`` (at the epoch that is best on the noisy validation rows), ``last``,
        ``last_5`` (mean of the last five epochs) and ``peak`` (best epoch on the test labels: an oracle);
        ``macro_f1`` at the selected epoch;
        ``memorised`` (share of the wrong labels that the model of the selected epoch repeats); ``roc_auc``,
        ``average_precision``, ``precision`` and ``recall`` of the wrong labels; ``estimated``, the noise rate
        by estimate; ``first_estimated``, ``last_estimated``, ``first_roc_auc`` and ``last_roc_auc`` of a run
        that judged its labels more than once; ``seconds`` and ``megabytes``; the ``machine``. NaN where a
        run says nothing.
    """
    records = each_once(records)
    cells = [record["cell"] for record in records]
    frame = pd.DataFrame(
        {
            "data": _names([(c["data"], _setting(c)) for c in cells]),
            "noise": _names([(c["noise"], c["noise_spec"]) for c in cells]),
            "peft": _names([(c["peft"], {_PEFT_OPTIONS: c["train"].get(_PEFT_OPTIONS)}) for c in cells]),
            "method": _names([(c["method"], c["method_settings"]) for c in cells]),
            "seed": [c["seed"] for c in cells],
            "kind": [_kind(c["noise"], c["noise_spec"]) for c in cells],
            "needs": [_needs(c["method_settings"]["method"]) for c in cells],
            "machine": [machine_of(record) for record in records],
        }
    )
    return frame.join(pd.DataFrame([_figures(record) for record in records]))


def machine_of(record: Mapping[str, Any]) -> str:
    """What a record was made on; processors of one name may differ in the arithmetic that pays."""
    made = record["environment"]
    if made["gpu"]:
        return f"{made['gpu']} with {made['processor']}"
    arithmetic = {True: ", bf16", False: ", float32"}.get(made.get("bf16"), "")  # older records lack it
    return f"{made['processor']} (threads a cell: {made['threads']}{arithmetic})"


def each_once(records: Iterable[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    """Records by cell, no noise and plain PEFT first, without those that occur again in a second store."""
    return sorted({record["key"]: record for record in records}.values(), key=_place)


def _place(record: Mapping[str, Any]) -> tuple[Any, ...]:
    cell = record["cell"]
    noise, method = cell["noise"], cell["method"]
    return cell["data"], noise != TRUE_LABELS, noise, cell["peft"], method != PLAIN, method, cell["seed"]


def curves(records: Iterable[Mapping[str, Any]]) -> pd.DataFrame:
    """One row for each record and epoch.

    Args:
        records: Of one or more stores; one that occurs twice counts once.

    Returns:
        ``data``, ``noise``, ``peft``, ``method`` and ``seed`` as :func:`figures` names them, ``epoch``,
        ``test_accuracy`` and ``memorised`` (NaN where a run says nothing).
    """
    records = each_once(records)
    names = figures(records)[[*CELL, "method", "seed"]].to_dict("records")
    return pd.DataFrame(
        [
            {
                **name,
                "epoch": epoch["epoch"],
                **{figure: _number(epoch.get(figure)) for figure in ("test_accuracy", "memorised")},
            }
            for name, record in zip(names, records, strict=True)
            for epoch in record["metrics"]["epochs"]
        ]
    )


def _setting(cell: Mapping[str, Any]) -> dict[str, Any]:
    """All that methods have in common, but for what differs between PEFT methods by its nature."""
    train = {name: value for name, value in cell["train"].items() if name != _PEFT_OPTIONS}
    return {"model": cell["model"], **cell["data_source"], **train}


def _kind(noise: str, spec: Mapping[str, Any]) -> str:
    others = {name: value for name, value in spec.items() if name not in ("kind", "rate")}
    return f"{spec.get('kind', noise)}{' ' + json.dumps(others, sort_keys=True) if others else ''}"


def _needs(method: str) -> str:
    return METHODS[method].needs if method in METHODS else ""


def _number(value: float | None) -> float:
    return math.nan if value is None else float(value)


def _names(described: list[tuple[str, Mapping[str, Any]]]) -> list[str]:
    """Names as they are; where one stands for different settings, the rarer ones with what they differ in."""
    known: dict[str, list[frozenset[str]]] = {}
    items = [frozenset(f"{key}={value}" for key, value in settings.items()) for _, settings in described]
    for (name, _), own in zip(described, items, strict=True):
        known.setdefault(name, []).append(own)
    # plain PEFT is found by its name, and most runs are to be compared with it
    usual = {name: Counter(sets).most_common(1)[0][0] for name, sets in known.items()}
    names = []
    for (name, _), own in zip(described, items, strict=True):
        keys = {item.partition("=")[0] for item in own}
        lacking = [item for item in sorted(usual[name] - own) if item.partition("=")[0] not in keys]
        different = [*sorted(own - usual[name]), *(f"without {item}" for item in lacking)]
        names.append(name if own == usual[name] else f"{name} ({', '.join(different)})")
    return names


def _figures(record: Mapping[str, Any]) -> dict[str, float]:
    metrics = record["metrics"]
    curve = [e["test_accuracy"] for e in metrics["epochs"] if e.get("test_accuracy") is not None]
    detection = metrics.get("detection") or {}
    judged = [e for e in metrics["epochs"] if e.get("noise_rate") is not None]
    again = len({e["noise_rate"] for e in judged}) > 1  # a verdict that stands is repeated
    ends = {"first": judged[0], "last": judged[-1]} if again else {"first": {}, "last": {}}
    values = {
        "noise_rate": record["noise"]["rate"],
        "selected": metrics["test"]["accuracy"],
        "macro_f1": metrics["test"].get("macro_f1"),
        "last": curve[-1] if curve else None,
        "last_5": float(np.mean(curve[-_LAST:])) if curve else None,
        "peak": max(curve, default=None),
        "memorised": metrics.get("memorised"),
        "estimated": metrics.get("noise_rate_estimate"),
        **{name: detection.get(name) for name in ("roc_auc", "average_precision", "precision", "recall")},
        **{f"{end}_estimated": epoch.get("noise_rate") for end, epoch in ends.items()},
        **{f"{end}_roc_auc": epoch.get("detection_auc") for end, epoch in ends.items()},
        "seconds": metrics.get("train_seconds"),
        "megabytes": (metrics.get("peak_memory_bytes") or math.nan) / 1e6,
    }
    return {name: _number(value) for name, value in values.items()}


def mean_and_margin(values: Iterable[float], level: float = 0.95) -> tuple[float, float]:
    """Mean and half the width of its confidence interval, by Student's t.

    Args:
        values: One for each seed; NaN where there is none.
        level: Confidence. Default 0.95.

    Returns:
        Mean and margin; NaN where there is no value, or for the margin only one.
    """
    known = np.array([v for v in values if not math.isnan(v)])
    if len(known) == 0:
        return math.nan, math.nan
    if len(known) == 1:
        return float(known[0]), math.nan
    margin = student.ppf((1 + level) / 2, len(known) - 1) * known.std(ddof=1) / math.sqrt(len(known))
    return float(known.mean()), float(margin)


def against_plain(runs: pd.DataFrame) -> pd.DataFrame:
    """The runs on noisy labels, beside plain PEFT on the same cell and seed.

    Args:
        runs: What :func:`figures` gives.

    Returns:
        The rows of noisy cells and seeds where plain PEFT was run, plain PEFT's own included, with
        ``difference`` (accuracy over plain's, at the selected epoch), ``relative_seconds`` (over plain's;
        NaN where that ran on another machine), ``gap`` (plain PEFT on the true labels less plain PEFT; NaN
        where the former was not run) and ``gap_recovered``, difference over gap (NaN where the gap is below
        0.01: there is next to nothing to recover).
    """
    plain = runs[runs["method"] == PLAIN]
    limit = plain.loc[plain["noise"] == TRUE_LABELS, ["data", "peft", "seed", "selected"]]
    base = plain[[*CELL, "seed", "selected", "seconds", "machine"]]
    merged = (
        runs[runs["noise"] != TRUE_LABELS]
        .merge(base, on=[*CELL, "seed"], suffixes=("", "_plain"))
        .merge(limit.rename(columns={"selected": "limit"}), on=["data", "peft", "seed"], how="left")
    )
    gap = merged["limit"] - merged["selected_plain"]
    difference = merged["selected"] - merged["selected_plain"]
    seconds = merged["seconds"] / merged["seconds_plain"]
    return merged.assign(
        difference=difference,
        relative_seconds=seconds.where(merged["machine"] == merged["machine_plain"]),
        gap=gap,
        gap_recovered=(difference / gap).where(gap >= SMALLEST_GAP),
    )
