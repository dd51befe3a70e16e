"""The dropout of what runs twice."""

from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from typing import Any

import torch
from torch import nn


@contextmanager
def replayed_randomness(module: nn.Module) -> Iterator[Any]:
    """Let a second run draw the dropout masks of the first, and leave the generators as after the first.

    Args:
        module: What runs twice: in evaluation, or compiled, nothing is to be done for it.

    Yields:
        A function: what runs in the context that it makes draws what was drawn here before.
    """
    if torch.compiler.is_compiling() or not module.training:
        yield nullcontext
        return
    device = next(module.parameters()).device
    accelerators = [] if device.type == "cpu" else [device]
    cpu = torch.get_rng_state()
    backend = getattr(torch, device.type)
    states = [backend.get_rng_state(d) for d in accelerators]

    @contextmanager
    def replay() -> Iterator[None]:
        with torch.random.fork_rng(accelerators, device_type=device.type):
            torch.set_rng_state(cpu)
            for d, state in zip(accelerators, states, strict=True):
                backend.set_rng_state(state, d)
            yield

    yield replay
