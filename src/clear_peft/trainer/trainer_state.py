"""Transformers' trainer_state.json, which a stranger may have written: is it as transformers writes it?"""

import json
import math
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

from clear_peft.errors import InputError

_LARGEST = 10**12


def check_trainer_state(path: Path, metric: str) -> None:
    """Refuse a trainer_state.json with values that training would stumble over.

    Args:
        path: The file; what is no JSON at all, or has other fields, is left to transformers.
        metric: Name in the log of what epochs are compared by; other metrics may be of any kind.

    Raises:
        InputError: If a value is not of the kind that transformers writes.
    """
    state = json.loads(path.read_text(encoding="utf-8"))
    fields: dict[str, Callable[[Any], bool]] = {
        **_FIELDS,
        "log_history": partial(_history, read=_READ | {metric}),
    }
    wrong = [name for name, fits in fields.items() if name in state and not fits(state[name])]
    if not wrong:
        best, steps = state.get("best_global_step"), {entry["step"] for entry in state["log_history"]}
        wrong = ["best_global_step"] if best is not None and best not in steps else []
    if wrong:
        raise InputError(
            f"{path} is damaged (its {wrong[0]} is not what transformers writes): delete {path.parent}, to "
            "resume from an earlier checkpoint or to begin anew."
        )


def _number(value: Any) -> bool:
    # a whole number of hundreds of digits is none for floats
    return isinstance(value, float) or (
        isinstance(value, int) and not isinstance(value, bool) and abs(value) < 2**63
    )


def _amount(value: Any) -> bool:
    return _number(value) and 0 <= value <= _LARGEST


def _interval(value: Any) -> bool:
    return _amount(value) and value > 0


def _count(value: Any) -> bool:
    return isinstance(value, int) and _amount(value)


def _metric(value: Any) -> bool:
    return _number(value) and not math.isnan(value)


def _or_none(fits: Callable[[Any], bool]) -> Callable[[Any], bool]:
    return lambda value: value is None or fits(value)


def _history(value: Any, read: set[str]) -> bool:
    return isinstance(value, list) and all(_entry(entry, read) for entry in value)


def _entry(value: Any, read: set[str]) -> bool:
    """Whether an entry of the log has its place, and numbers wherever one is read again."""
    return (
        isinstance(value, dict)
        and _amount(value.get("epoch"))
        and _count(value.get("step"))
        and all(_number(value[name]) for name in read & value.keys())
    )


_OWN = {"loss", "noise_rate", "clean_probability", "gate_rate", "detection_auc", "memorised"}
_EVALUATED = {"eval_loss", "eval_accuracy", "eval_macro_f1", "eval_believed_accuracy"}
# what trainers, progress and reports take out of the log again; somebody's own metrics may be anything
_READ = _OWN | _EVALUATED
_FIELDS: dict[str, Callable[[Any], bool]] = {
    "epoch": _amount,
    "global_step": _count,
    "logging_steps": _interval,
    "eval_steps": _interval,
    "save_steps": _interval,
    "train_batch_size": _or_none(_count),
    "num_input_tokens_seen": _count,
    "total_flos": _number,
    "best_metric": _or_none(_metric),
    "best_global_step": _or_none(_count),
    "best_model_checkpoint": _or_none(lambda value: isinstance(value, str)),
    "is_hyper_param_search": lambda value: value is False,
    "stateful_callbacks": lambda value: (
        isinstance(value, dict) and isinstance(value.get("TrainerControl"), dict)
    ),
}
