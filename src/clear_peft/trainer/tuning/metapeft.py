"""MetaPEFT: outer steps, which learn a scale for each adapted module on fresh rows that are believed."""

import os
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import softplus

from clear_peft.trainer.phases import Phase
from clear_peft.trainer.tuning.base import TunerTraining
from clear_peft.tuners.metapeft import Scales
from clear_peft.tuners.plans import MetaPlan, plan_of

_ADAM = ("step", "exp_avg", "exp_avg_sq")
# tells its draws from others with the same seed
_DRAW = 2
# softplus of it is 1
_START = 0.5413248546129181


class MetaTraining(TunerTraining):
    """After every few optimizer steps on the adapter: a first-order Adam step on the scales softplus(raw).

    The loss of an outer step is the cross entropy of a batch of training rows under their given labels, which
    are sampled in proportion to clean probability: wrong labels do not teach γ. Held-out rows are not used.
    All gates are open and there is no dropout. There are no outer steps in the warm-up, and a restart sets γ
    back to 1. An outer step costs about as much as an inner one: with the default share of 0.2, training
    takes a fifth longer. The paper does not say how many inner steps there are between outer ones.

    Args:
        trainer: A ``CleaRTrainer``.
    """

    def __init__(self, trainer: Any) -> None:
        super().__init__(trainer)
        plan = plan_of(trainer.model)
        assert isinstance(plan, MetaPlan)
        self._plan, self._scales = plan, Scales(trainer.model)
        self.begin()

    def begin(self) -> None:
        """Every scale is 1."""
        self._raw = torch.full((len(self._scales.names),), _START, dtype=torch.float64, requires_grad=True)
        self._adam = torch.optim.Adam([self._raw], lr=self._plan.outer_learning_rate)
        self._scales.set([1.0] * len(self._raw))

    def begin_epoch(self) -> None:
        """What the scales have learnt from labels that are doubted now is forgotten with the rest."""
        trainer = self.trainer
        if trainer.restarts and trainer.state.epoch == trainer.schedule.warm_up_epochs:
            self.begin()

    def end_step(self) -> None:
        """An outer step, if it is time."""
        steps = self.trainer.state.global_step + 1
        if self.trainer.phase is not Phase.WARM_UP and steps % self._plan.inner_steps == 0:
            self._outer_step(steps)

    def _outer_step(self, steps: int) -> None:
        trainer = self.trainer
        drawn = trainer.passes.drawn(trainer.args.world_size, (_DRAW, steps))
        gradient = torch.zeros_like(self._raw)
        with trainer.passes.looking():
            self._scales.hold(softplus(self._raw).to(trainer.args.device))
            for losses in drawn:
                gradient += torch.autograd.grad(losses.mean(), self._raw)[0]
        if trainer.args.world_size > 1:
            gradient = trainer.accelerator.reduce(gradient.to(trainer.args.device), "mean").cpu()
        self._raw.grad = gradient
        self._adam.step()
        self._set()

    def _set(self) -> None:
        self._scales.set(softplus(self._raw).tolist())

    def end_training(self) -> None:
        """The scales become part of the adapter."""
        self._scales.fold()

    def load(self, folder: str | os.PathLike[str]) -> None:
        """The scales of a checkpoint."""
        self._scales.load(folder)

    def state_dict(self) -> dict[str, Tensor]:
        """The scales before softplus, and Adam's state of them."""
        return {"raw": self._raw.detach().clone(), **self._adam.state.get(self._raw, {})}

    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        """Go on from what ``state_dict`` returned."""
        self.begin()
        with torch.no_grad():
            self._raw.copy_(state["raw"])
        if "step" in state:
            self._adam.state[self._raw] = {name: state[name].clone() for name in _ADAM}
        self._set()
