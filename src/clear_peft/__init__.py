"""Parameter-efficient fine-tuning of Hugging Face models on labels that cannot be trusted."""

from importlib import import_module
from importlib.metadata import version
from typing import Any

__version__ = version("clear-peft")
__all__ = ["CleaRConfig", "CleaRTrainer", "InputError", "__version__"]

# Importing transformers takes seconds: names are resolved when they are first used.
_HOMES = {
    "CleaRConfig": "clear_peft.training",
    "CleaRTrainer": "clear_peft.training",
    "InputError": "clear_peft.errors",
}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(_HOMES[name]), name)
