"""A sequence-classification model and the name of a PEFT method in, a PEFT model out."""

from importlib import import_module
from typing import Any

from clear_peft.tuners.catalogue import PAPER_SETTINGS, PaperSettings, available_methods

__all__ = [
    "PAPER_SETTINGS",
    "BottleneckConfig",
    "BottleneckModel",
    "PaperSettings",
    "available_methods",
    "build",
    "load_adapter",
]

# Importing peft takes seconds: these are resolved when they are first used.
_HOMES = {
    "BottleneckConfig": "clear_peft.tuners.bottleneck",
    "BottleneckModel": "clear_peft.tuners.bottleneck",
    "build": "clear_peft.tuners.presets",
    "load_adapter": "clear_peft.tuners.loading",
}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(_HOMES[name]), name)
