"""Silence for what peft says of its own doing, or of layers that this room has chosen."""

import warnings
from collections.abc import Iterator
from contextlib import contextmanager

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
