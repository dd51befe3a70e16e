"""The running average of the weights that are trained: steadier than those of the last step."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import torch
from torch import Tensor, nn


class WeightAverage:
    """Exponential moving average of a model's trainable parameters, ā ← d·ā + (1 − d)·w after every step.

    The decay rises to its value with the steps done, d_t = min(d, (1 + t)/(10 + t)), so that the start is
    soon forgotten (Tarvainen & Valpola 2017, arXiv 1703.01780, average teachers alike).

    Args:
        model: The model; what requires a gradient now is averaged.
        decay: d in [0, 1); 0 follows the weights without delay.
    """

    def __init__(self, model: nn.Module, decay: float) -> None:
        self.decay = decay
        self.steps = 0
        self._weights = {name: p for name, p in model.named_parameters() if p.requires_grad}
        # at least in float32: what a step adds to an average is lost in bf16
        self._average = {
            name: p.detach().to(torch.promote_types(p.dtype, torch.float32), copy=True)
            for name, p in self._weights.items()
        }
        self._own: dict[str, Tensor] | None = None

    @torch.no_grad()
    def update(self) -> None:
        """Take in the weights as they are."""
        decay = min(self.decay, (1 + self.steps) / (10 + self.steps))
        self.steps += 1
        for name, weight in self._weights.items():
            average = self._average[name]
            average.lerp_(weight.to(average.dtype), 1 - decay)

    @torch.no_grad()
    def show(self) -> None:
        """Put the average into the model; its own weights are kept for ``hide``."""
        if self._own is None:
            self._own = {name: weight.clone() for name, weight in self._weights.items()}
            for name, weight in self._weights.items():
                weight.copy_(self._average[name])

    @torch.no_grad()
    def hide(self) -> None:
        """Give the model its own weights back, if the average is shown."""
        if self._own is not None:
            for name, weight in self._weights.items():
                weight.copy_(self._own[name])
            self._own = None

    @contextmanager
    def applied(self) -> Iterator[None]:
        """The model has the average weights inside, and its own again afterwards."""
        self.show()
        try:
            yield
        finally:
            self.hide()

    def state(self) -> dict[str, Tensor]:
        """What a checkpoint has to hold, on the CPU."""
        parts = {"average": self._average, "own": self._own or {}}
        return {"steps": torch.tensor(self.steps)} | {
            f"{part}/{name}": tensor.to("cpu", copy=True)
            for part, tensors in parts.items()
            for name, tensor in tensors.items()
        }

    def restore(self, state: Mapping[str, Tensor]) -> None:
        """Go on from what ``state`` returned, in a model that has the weights that it had then."""
        self.steps = int(state["steps"])
        for name, tensor in self._average.items():
            tensor.copy_(state[f"average/{name}"])
        own = {name: state[f"own/{name}"] for name in self._weights if f"own/{name}" in state}
        self._own = {name: tensor.to(self._weights[name].device) for name, tensor in own.items()} or None
