"""A table in, a run folder out; and from a run folder predictions and scores."""

from importlib import import_module
from typing import Any

from clear_peft.runs.config import RunConfig

__all__ = ["RunConfig", "evaluate", "load_run", "predict", "train"]

# torch and transformers are imported only by what trains or predicts; no module here may have the name of
# a function, as importing it would put the module in the function's place
_HOMES = {
    "evaluate": "clear_peft.runs.inference",
    "load_run": "clear_peft.runs.inference",
    "predict": "clear_peft.runs.inference",
    "train": "clear_peft.runs.training",
}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(_HOMES[name]), name)
