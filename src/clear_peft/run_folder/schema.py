"""The figures that a run has written, read back; what is not as a run writes it is left out.

Whoever shows them need not look again: every figure is there as what it should be, or not at all.
"""

import json
from collections.abc import Callable, Mapping, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

from clear_peft.errors import InputError

_Check = Callable[[Any], bool]

_LARGEST_FILE = 2**28
_LARGEST = 1e15
_MOST_BINS = 1000


def read_json(path: Path) -> Any:
    """Read a JSON file.

    Raises:
        InputError: If it cannot be read, is no JSON, or is beyond anything that a run writes.
    """
    try:
        size = path.stat().st_size
        if size > _LARGEST_FILE:
            raise ValueError(f"it has {size:,} bytes")
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise InputError(f"{path.name} is damaged and left out ({' '.join(reason.split())}).") from error


def plain_options(value: Any) -> Any:
    """Options, as YAML holds them, in types that JSON has too: of anything else, such as a date, its text.

    Raises:
        ValueError: If a number has more digits than Python writes out.
    """
    if isinstance(value, dict):
        return {str(key): plain_options(item) for key, item in value.items()}
    if isinstance(value, list):
        return [plain_options(item) for item in value]
    text = str(value)
    return value if value is None or isinstance(value, str | int | float) else text


def checked_epochs(value: Any) -> tuple[list[dict[str, Any]], list[str]]:
    """The records of epochs, oldest first, out of what a file holds.

    Returns:
        The records, and the names of what had to be left out.
    """
    if not isinstance(value, list):
        return [], ["all of it"]
    epochs: dict[int, dict[str, Any]] = {}
    dropped: list[str] = []
    for entry in value:
        if not (isinstance(entry, dict) and _count(entry.get("epoch"))):
            dropped.append("an epoch without a number")
            continue
        record, wrong = _fitting(entry, _EPOCH)
        epochs[record["epoch"]] = record
        dropped += [f"{name} of epoch {record['epoch']}" for name in wrong]
    return [epochs[number] for number in sorted(epochs)], dropped


def checked_metrics(value: Any) -> tuple[dict[str, Any], list[str]]:
    """The metrics, without their epochs, out of what a file holds.

    Returns:
        The metrics, and the names of what had to be left out.
    """
    return _fitting(value, _METRICS) if value and isinstance(value, dict) else ({}, ["all of it"])


def _fitting(values: Mapping[str, Any], checks: Mapping[str, _Check]) -> tuple[dict[str, Any], list[str]]:
    """The known values that are None or what they should be, and the names of those that are not."""
    there = {name: values[name] for name in checks if name in values}
    kept = {name: value for name, value in there.items() if value is None or checks[name](value)}
    return kept, [name for name in there if name not in kept]


def _number(value: Any) -> bool:
    # infinity and NaN are not below any number
    return isinstance(value, int | float) and not isinstance(value, bool) and abs(value) < _LARGEST


def _share(value: Any) -> bool:
    return _number(value) and 0 <= value <= 1


def _count(value: Any) -> bool:
    return isinstance(value, int) and _number(value) and value >= 0


def _positive(value: Any) -> bool:
    return _number(value) and value > 0


def _not_negative(value: Any) -> bool:
    return _number(value) and value >= 0


def _yes(value: Any) -> bool:
    return value is True


def _text(value: Any) -> bool:
    return isinstance(value, str)


def _all(check: _Check) -> _Check:
    return lambda values: isinstance(values, list) and bool(values) and all(map(check, values))


def _or_none(check: _Check) -> _Check:
    return lambda value: value is None or check(value)


def _one_of(*known: str) -> _Check:
    return lambda value: isinstance(value, str) and value in known


def _mapping(needed: Mapping[str, _Check], others: Mapping[str, _Check] | None = None) -> _Check:
    """A check for a mapping that must have some keys and may have others, None where a value is not known."""

    def check(value: Any) -> bool:
        return (
            isinstance(value, dict)
            and all(name in value and fits(value[name]) for name, fits in needed.items())
            and all(value.get(name) is None or fits(value[name]) for name, fits in (others or {}).items())
        )

    return check


def _pair(check: _Check) -> _Check:
    return lambda values: _all(check)(values) and len(values) == 2


def _rising(values: Sequence[float]) -> bool:
    return all(low < high for low, high in pairwise(values))


_ESTIMATE = _mapping({}, {"scale": _one_of("loss", "log_odds"), "contradicted": _share, "agreement": _share})
_MIXTURE = {"weights": _pair(_share), "variances": _pair(_positive)}
_GAUSSIAN = _mapping({**_MIXTURE, "family": _one_of("gaussian"), "means": _pair(_number)})
_BETA = _mapping(
    {**_MIXTURE, "family": _one_of("beta"), "means": _pair(_share), "low": _number, "high": _number}
)


def _parameters(value: Any) -> bool:
    """Whether an estimator says this of itself; of ``family`` and what goes with it, all or nothing."""
    return _ESTIMATE(value) and (
        "family" not in value or _GAUSSIAN(value) or (_BETA(value) and value["low"] < value["high"])
    )


def _histogram(value: Any) -> bool:
    known = {"parameters": _parameters, "doubted": _all(_not_negative)}
    if not _mapping({"edges": _all(_number)}, known)(value):
        return False
    edges, bins = value["edges"], len(value["edges"]) - 1
    parts = [value[part] for part in ("all", "right", "wrong") if part in value]
    counted = all(_all(_count)(part) and len(part) == bins for part in parts)
    counted = counted and len(value.get("doubted") or edges[1:]) == bins
    return bins <= _MOST_BINS and _rising(edges) and counted and any(map(any, parts))


def _measured(value: Any) -> bool:
    return _mapping({"accuracy": _share}, {"macro_f1": _share})(value)


def _rows(value: Any) -> bool:
    return isinstance(value, dict) and all(map(_or_none(_count), value.values()))


def _versions(value: Any) -> bool:
    return isinstance(value, dict) and all(_text(version) for version in value.values())


_EPOCH: dict[str, _Check] = {
    "epoch": _count,
    "train_loss": _number,
    "validation_loss": _number,
    **dict.fromkeys(
        (
            "validation_accuracy",
            "validation_macro_f1",
            "validation_believed_accuracy",
            "noise_rate",
            "clean_probability",
            "gate_rate",
            "detection_auc",
            "memorised",
            "test_accuracy",
            "test_macro_f1",
        ),
        _share,
    ),
    "losses": _histogram,
    "step_losses": _histogram,
    "starts_afresh": _yes,
    "gate_rates": _mapping({"blocks": _all(_share), "classes": _all(_or_none(_share))}),
}
_METRICS: dict[str, _Check] = {
    "test": _measured,
    "validation": _measured,
    "selected_epoch": _count,
    "noise_rate_estimate": _share,
    "rows": _rows,
    "detection": _mapping(
        {"roc_auc": _share, "average_precision": _share, "recall": _share, "wrong": _count, "found": _count},
        {"precision": _share},
    ),
    "memorised": _share,
    "train_seconds": _not_negative,
    "peak_memory_bytes": _count,
    "method": _text,
    "peft": _text,
    "seed": _count,
    "versions": _versions,
}
