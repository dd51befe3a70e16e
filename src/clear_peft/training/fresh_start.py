"""Beginning anew: what was learnt from wrong labels is forgotten."""

from typing import Any

import torch
from torch import nn


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
