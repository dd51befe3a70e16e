"""The figures that a run has written, read back; what is not as a run writes it is left out.

Whoever shows them need not look again: every figure is there as what it should be, or not at all.
"""

import json
from itertools import pairwise
from pathlib import Path
from typing import Annotated, Any, Literal, Self, TypeVar

from pydantic import (
    BaseModel,
    ConfigDict,
    Discriminator,
    Field,
    Tag,
    ValidationError,
    field_validator,
    model_validator,
)

from clear_peft.errors import InputError

_LARGEST_FILE = 2**28
_LARGEST = 10**15
_MOST_BINS = 1000

_Number = Annotated[float, Field(gt=-_LARGEST, lt=_LARGEST)]
_Share = Annotated[float, Field(ge=0, le=1)]
_Count = Annotated[int, Field(ge=0, lt=_LARGEST)]
_Positive = Annotated[float, Field(gt=0, lt=_LARGEST)]
_NotNegative = Annotated[float, Field(ge=0, lt=_LARGEST)]
_Item = TypeVar("_Item")
_Two = Annotated[list[_Item], Field(min_length=2, max_length=2)]
_Some = Annotated[list[_Item], Field(min_length=1)]


class _Figures(BaseModel):
    """Figures by name: each is as a run writes it, others are not looked at."""

    model_config = ConfigDict(strict=True, allow_inf_nan=False)


class _Estimate(_Figures):
    scale: Literal["loss", "log_odds"] | None = None
    contradicted: _Share | None = None
    agreement: _Share | None = None


class _Gaussian(_Estimate):
    weights: _Two[_Share]
    means: _Two[_Number]
    variances: _Two[_Positive]


def _family(parameters: Any) -> str | None:
    """Which mixture was fitted, if any: of a mixture and what goes with it there is all or nothing."""
    match parameters:
        case {"family": "gaussian"}:
            return "gaussian"
        case {"family": _}:
            return None
        case dict():
            return "none"
    return None


class _Histogram(_Figures):
    edges: Annotated[list[_Number], Field(min_length=2, max_length=_MOST_BINS + 1)]
    all: _Some[_Count] = []
    right: _Some[_Count] = []
    wrong: _Some[_Count] = []
    doubted: _Some[_NotNegative] | None = None
    parameters: (
        Annotated[
            Annotated[_Estimate, Tag("none")] | Annotated[_Gaussian, Tag("gaussian")],
            Discriminator(_family),
        ]
        | None
    ) = None

    @model_validator(mode="after")
    def _can_be_drawn(self) -> Self:
        rising = all(low < high for low, high in pairwise(self.edges))
        parts = [part for part in (self.all, self.right, self.wrong, self.doubted) if part]
        whole = all(len(part) == len(self.edges) - 1 for part in parts)
        if not (rising and whole and any(self.all + self.right + self.wrong)):
            raise ValueError("its edges do not rise, or it has not a figure for each bin, or it is empty")
        return self


class _GateRates(_Figures):
    blocks: _Some[_Share]
    classes: _Some[_Share | None]


class _Measured(_Figures):
    accuracy: _Share
    macro_f1: _Share | None = None


class _Detection(_Figures):
    roc_auc: _Share
    average_precision: _Share
    recall: _Share
    wrong: _Count
    found: _Count
    precision: _Share | None = None


class _Epoch(_Figures):
    epoch: _Count
    train_loss: _Number | None = None
    validation_loss: _Number | None = None
    validation_accuracy: _Share | None = None
    validation_macro_f1: _Share | None = None
    validation_weighted_accuracy: _Share | None = None
    validation_weighted_macro_f1: _Share | None = None
    noise_rate: _Share | None = None
    clean_probability: _Share | None = None
    gate_rate: _Share | None = None
    detection_auc: _Share | None = None
    memorised: _Share | None = None
    test_accuracy: _Share | None = None
    test_macro_f1: _Share | None = None
    losses: _Histogram | None = None
    step_losses: _Histogram | None = None
    restarts: bool | None = None
    gate_rates: _GateRates | None = None

    @field_validator("restarts")
    @classmethod
    def _is_said_only_where_true(cls, value: bool | None) -> bool | None:
        if value is False:
            raise ValueError("no run says so")
        return value


class _Metrics(_Figures):
    test: _Measured | None = None
    validation: _Measured | None = None
    rows_per_step: _Count | None = None
    selected_epoch: _Count | None = None
    noise_rate_estimate: _Share | None = None
    rows: dict[str, _Count | None] | None = None
    sources: dict[str, _Share] | None = None
    cut_texts: dict[str, _Count | None] | None = None
    detection: _Detection | None = None
    memorised: _Share | None = None
    train_seconds: _NotNegative | None = None
    peak_memory_bytes: _Count | None = None
    method: str | None = None
    peft: str | None = None
    seed: _Count | None = None
    versions: dict[str, str] | None = None


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
        record, wrong = _fitting(entry, _Epoch) if isinstance(entry, dict) else ({}, [])
        if "epoch" not in record:
            dropped.append("an epoch without a number")
            continue
        epochs[record["epoch"]] = record
        dropped += [f"{name} of epoch {record['epoch']}" for name in wrong]
    return [epochs[number] for number in sorted(epochs)], dropped


def checked_metrics(value: Any) -> tuple[dict[str, Any], list[str]]:
    """The metrics, without their epochs, out of what a file holds.

    Returns:
        The metrics, and the names of what had to be left out.
    """
    return _fitting(value, _Metrics) if value and isinstance(value, dict) else ({}, ["all of it"])


def _fitting(values: Any, kind: type[_Figures]) -> tuple[dict[str, Any], list[str]]:
    """The known figures as they stand in the file, and the names of those that no run writes."""
    try:
        kind.model_validate(values)
    except ValidationError as error:
        wrong = {fault["loc"][0] for fault in error.errors(include_url=False, include_input=False)}
    else:
        wrong = set()
    there = [name for name in kind.model_fields if name in values]
    return {name: values[name] for name in there if name not in wrong}, [n for n in there if n in wrong]
