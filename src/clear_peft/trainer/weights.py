"""The weights that are trained: where they begin, and their average, which is steadier than the last step."""

from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from clear_peft.trainer.checkpoint import Stateful
from clear_peft.trainer.config import CleaRConfig
from clear_peft.trainer.head import LinearProbeInit
from clear_peft.trainer.shards import accessible, fill, gathered, take_over, whole


class EMA:
    """Exponential moving average of a model's trainable parameters, ā ← d·ā + (1 − d)·w after every step.

    The decay rises to its value with the steps done, d_t = min(d, (1 + t)/(10 + t)), so that the start is
    soon forgotten (Tarvainen & Valpola 2017, arXiv 1703.01780, average teachers alike).
    ``torch.optim.swa_utils.AveragedModel`` would copy the frozen base model too.

    Args:
        model: The model; what requires a gradient now is averaged.
        decay: d in [0, 1); 0 follows the weights without delay.
    """

    def __init__(self, model: nn.Module, decay: float) -> None:
        self.decay = decay
        self.steps = 0
        self._model = model
        self._begin()

    def _begin(self) -> None:
        """Begin with the weights as they are; again, where the model has been sharded since."""
        with accessible(self._model):
            self._weights = {name: p for name, p in self._model.named_parameters() if p.requires_grad}
            # at least in float32: what a step adds to an average is lost in bf16
            self._average = {
                name: p.detach().to(torch.promote_types(p.dtype, torch.float32), copy=True)
                for name, p in self._weights.items()
            }
        self._own: dict[str, Tensor] = {}  # the model's, while it has the average

    @torch.no_grad()
    def update(self) -> None:
        """Take in the weights as they are."""
        decay = min(self.decay, (1 + self.steps) / (10 + self.steps))
        self.steps += 1
        with gathered(self._weights.values()):
            for name, weight in self._weights.items():
                average = self._average[name]
                average.lerp_(weight.to(average.dtype), 1 - decay)

    def copy_to_model(self) -> None:
        """Give the model the average, for good."""
        self._give(self._average)

    @contextmanager
    def applied(self) -> Iterator[None]:
        """The model has the average inside, and its own weights again afterwards; may be nested."""
        if self._own:
            yield
            return
        with accessible(self._model):
            self._own = {name: weight.detach().clone() for name, weight in self._weights.items()}
        self.copy_to_model()
        try:
            yield
        finally:
            own, self._own = self._own, {}
            self._give(own)

    @torch.no_grad()
    def _give(self, values: Mapping[str, Tensor]) -> None:
        with accessible(self._model):
            for name, value in values.items():
                self._weights[name].copy_(value)

    def state_dict(self) -> dict[str, Tensor]:
        """The average, and the model's own weights while it has the average, on the CPU."""
        parts = {"average": self._average, "own": self._own}
        return {"steps": torch.tensor(self.steps)} | {
            f"{part}/{name}": whole(tensor).to("cpu", copy=True)
            for part, tensors in parts.items()
            for name, tensor in tensors.items()
        }

    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        """Go on from what ``state_dict`` returned; the model gets its own weights where these are in it."""
        self._begin()
        self.steps = int(state["steps"])
        with accessible(self._model):
            for name, average in self._average.items():
                fill(average, state[f"average/{name}"])
                if f"own/{name}" in state:
                    fill(self._weights[name], state[f"own/{name}"])


class InitialWeights:
    """The trainable weights with which training began, to begin again with them.

    Args:
        model: The model before its first step; what requires a gradient now is remembered.
    """

    def __init__(self, model: nn.Module) -> None:
        with accessible(model):
            trained = {name: p.detach() for name, p in model.named_parameters() if p.requires_grad}
            self._initial = {name: whole(weight).clone() for name, weight in trained.items()}

    def copy_to_model(self, model: nn.Module) -> None:
        """Give them to the model."""
        with accessible(model):
            for name, parameter in model.named_parameters():
                if name in self._initial:
                    fill(parameter, self._initial[name])

    def state_dict(self) -> dict[str, Tensor]:
        """The weights, on the CPU: whoever resumes may have begun from others."""
        return {name: weight.cpu() for name, weight in self._initial.items()}

    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        """Go on from what ``state_dict`` returned.

        Raises:
            ValueError: If it is of other weights.
        """
        if {n: w.shape for n, w in state.items()} != {n: w.shape for n, w in self._initial.items()}:
            raise ValueError("it holds the initial weights of another model")
        self._initial = {name: state[name].to(weight) for name, weight in self._initial.items()}


class Weights:
    """The adapter and the head of a model, from where they begin to what is saved.

    Args:
        model: The model.
        args: For ``clean_routing``, ``restart`` and ``ema_epochs``.

    Attributes:
        head: What initialises the head of the model, if anything does.
    """

    def __init__(self, model: nn.Module, args: CleaRConfig) -> None:
        self._model, self._args = model, args
        self._decay = 0.0  # until the number of steps is known
        self.head: LinearProbeInit | None = None
        self._ema, self._initial = self._new_ema(), self._new_initial()

    def set_steps(self, per_epoch: int) -> None:
        """An epoch has so many optimizer steps: the average looks back over ``ema_epochs`` of them."""
        self._decay = max(0.0, 1 - 1 / max(self._args.ema_epochs * per_epoch, 1))
        if self._ema is not None:
            self._ema.decay = self._decay

    def remember(self) -> None:
        """Training is about to begin, with the weights that the model has now."""
        self._initial = self._new_initial()

    def begin(self, optimizer: Any, clean_probability: npt.NDArray[np.floating] | None = None) -> None:
        """Begin with the initial adapter, no momentum, and a head that is a linear probe of the labels.

        Args:
            optimizer: Of the training.
            clean_probability: How much the label of each row counts in that probe, (N,). Default: all alike.
        """
        if self._initial is not None:
            self._initial.copy_to_model(self._model)
            optimizer.state.clear()
        if self.head is not None:
            self.head.begin(self._model, clean_probability)
        take_over(optimizer)
        self._ema = self._new_ema()

    def step(self) -> None:
        """The optimizer has taken a step."""
        if self._ema is not None:
            self._ema.update()

    def averaged(self, wanted: bool = True) -> AbstractContextManager[None]:
        """Inside, the model has the average of its weights, if that is wanted and there is one."""
        return self._ema.applied() if wanted and self._ema is not None else nullcontext()

    def keep_average(self) -> None:
        """The model has the average for good, if there is one."""
        if self._ema is not None:
            self._ema.copy_to_model()

    def stateful(self) -> dict[str, Stateful]:
        """What has tensors that training needs when it goes on from a checkpoint."""
        parts: dict[str, Stateful | None] = {"ema": self._ema, "initial": self._initial}
        return {name: part for name, part in parts.items() if part is not None}

    def _new_ema(self) -> EMA | None:
        wanted = self._args.clean_routing and self._args.ema_epochs > 0
        return EMA(self._model, self._decay) if wanted else None

    def _new_initial(self) -> InitialWeights | None:
        again = (self._args.clean_routing and self._args.restart) or self._args.auto_find_batch_size
        return InitialWeights(self._model) if again else None
