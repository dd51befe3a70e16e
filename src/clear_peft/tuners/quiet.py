"""Silence for what peft says of its own doing or of this room's, and a sentence for what it raises."""

import warnings
from collections.abc import Iterator
from contextlib import contextmanager

from torch import nn

from clear_peft.errors import InputError
from clear_peft.tuners.anatomy import projection_names

_MESSAGES = (
    "`is_gradient_checkpointing` is deprecated",  # peft 0.21 on transformers 5.23
    "Unsupported layer type",  # LN tuning says so of every norm, also of nn.LayerNorm
    "Detected that the base layer has no bias term",
)


@contextmanager
def quiet() -> Iterator[None]:
    """Ignore warnings that no reader could act on, while peft builds or loads a model."""
    with warnings.catch_warnings():
        for message in _MESSAGES:
            warnings.filterwarnings("ignore", message=message)
        yield


@contextmanager
def explained(model: nn.Module, method: str) -> Iterator[None]:
    """Turn what peft raises over a configuration into a sentence."""
    try:
        yield
    except InputError:
        raise
    except (ValueError, TypeError, KeyError, NotImplementedError, AttributeError, RuntimeError) as error:
        raise InputError(
            f"peft cannot put {method} on {type(model).__name__} ({error}): mend options or target_modules; "
            f"the layers in its blocks are {', '.join(projection_names(model))}."
        ) from error
