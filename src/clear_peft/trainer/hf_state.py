"""Transformers' trainer_state.json, which a stranger may have written: is it as transformers writes it?"""

import json
import math
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    TypeAdapter,
    ValidationError,
    ValidationInfo,
    field_validator,
)

from clear_peft.errors import InputError
from clear_peft.trainer.config import MEASURED

_LARGEST = 10**12
_Amount = Annotated[float, Field(ge=0, le=_LARGEST)]
_Interval = Annotated[float, Field(gt=0, le=_LARGEST)]
_Count = Annotated[int, Field(ge=0, le=_LARGEST)]
_Metric = Annotated[float, Field(ge=-math.inf)]  # NaN is not
_OWN = {"epoch_loss", "noise_rate", "clean_probability", "gate_rate", "detection_auc", "memorised"}
_EVALUATED = {f"eval_{name}" for name in MEASURED}
# what trainers, progress and reports take out of the log again; somebody's own metrics may be anything
_READ = _OWN | _EVALUATED
_STRICT = ConfigDict(strict=True)
_NUMBERS = TypeAdapter(dict[str, float], config=_STRICT)


class _Place(BaseModel):
    """Where in the training an entry of the log was made."""

    model_config = _STRICT
    epoch: _Amount
    step: _Count


class _Callbacks(BaseModel):
    model_config = _STRICT
    TrainerControl: dict[str, Any]


class _State(BaseModel):
    """The fields that training reads again, each as transformers writes it where it is there."""

    model_config = _STRICT
    epoch: _Amount = 0.0
    global_step: _Count = 0
    logging_steps: _Interval = 1.0
    eval_steps: _Interval = 1.0
    save_steps: _Interval = 1.0
    train_batch_size: _Count | None = None
    num_input_tokens_seen: _Count = 0
    total_flos: float = 0.0
    best_metric: _Metric | None = None
    best_model_checkpoint: str | None = None
    is_hyper_param_search: Literal[False] = False
    stateful_callbacks: _Callbacks = _Callbacks(TrainerControl={})
    log_history: list[dict[str, Any]]
    best_global_step: _Count | None = None

    @field_validator("log_history")
    @classmethod
    def _can_be_read(cls, log: list[dict[str, Any]], info: ValidationInfo) -> list[dict[str, Any]]:
        read: set[str] = info.context or set()
        for entry in log:
            _Place.model_validate(entry)
            _NUMBERS.validate_python({name: entry[name] for name in read & entry.keys()})
        return log

    @field_validator("best_global_step")
    @classmethod
    def _is_in_the_log(cls, best: int | None, info: ValidationInfo) -> int | None:
        if best is not None and all(best != entry["step"] for entry in info.data.get("log_history", ())):
            raise ValueError("there is no such step")
        return best


def check_trainer_state(path: Path, metric: str) -> None:
    """Refuse a trainer_state.json with values that training would stumble over.

    Args:
        path: The file; what is no JSON at all, or has other fields, is left to transformers.
        metric: Name in the log of what epochs are compared by; other metrics may be of any kind.

    Raises:
        InputError: If a value is not of the kind that transformers writes.
    """
    try:
        _State.model_validate(json.loads(path.read_text(encoding="utf-8")), context=_READ | {metric})
    except ValidationError as error:
        wrong = error.errors(include_url=False, include_input=False)[0]["loc"][0]
        raise InputError(
            f"{path} is damaged (its {wrong} is not what transformers writes): delete {path.parent}, to "
            "resume from an earlier checkpoint or to begin anew."
        ) from error
