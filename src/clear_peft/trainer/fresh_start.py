"""Beginning anew: what was learnt from wrong labels is forgotten."""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn


class FreshStart:
    """Remembers where training began.

    Args:
        model: The model before its first step; what requires a gradient now is remembered.
    """

    def __init__(self, model: nn.Module) -> None:
        self._initial = {n: p.detach().clone() for n, p in model.named_parameters() if p.requires_grad}

    @torch.no_grad()
    def begin_anew(self, model: nn.Module, optimizer: Any) -> None:
        """Give the model its initial weights, with no momentum."""
        for name, parameter in model.named_parameters():
            if name in self._initial:
                parameter.copy_(self._initial[name])
        optimizer.state.clear()

    def state(self) -> dict[str, Tensor]:
        """The initial weights, on the CPU: whoever resumes may have begun from others."""
        return {name: weight.cpu() for name, weight in self._initial.items()}

    def restore(self, state: Mapping[str, Tensor]) -> None:
        """Go on from what ``state`` returned.

        Raises:
            ValueError: If it is of other weights.
        """
        if {n: w.shape for n, w in state.items()} != {n: w.shape for n, w in self._initial.items()}:
            raise ValueError("it holds the initial weights of another model")
        self._initial = {name: state[name].to(weight) for name, weight in self._initial.items()}
