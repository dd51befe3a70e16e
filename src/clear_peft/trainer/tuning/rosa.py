"""RoSA: the moment at which its sparse half gets a support, by the gradients of rows that are believed."""

import warnings
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from clear_peft.errors import ClearWarning
from clear_peft.trainer.phases import Phase
from clear_peft.trainer.tuning.base import TunerTraining
from clear_peft.tuners.plans import RosaPlan, plan_of
from clear_peft.tuners.rosa import accumulate, base_weights, set_supports, sparse_values

# tells its draw from others with the same seed
_DRAW = 1


class RosaTraining(TunerTraining):
    """Trains the low-rank half alone, chooses the support, and then trains both halves.

    The moment is the end of the warm-up: of a training that restarts it is the authors' advice (warm up, make
    the mask, begin again with both halves), otherwise training goes on. Without a warm-up in the schedule
    (``clean_routing=False``) it is after ``mask_steps`` optimizer steps. The gradients of the whole frozen
    weights are taken in a pass of their own over batches of training rows, sampled without replacement in
    proportion to their clean probability, under the given labels, with all gates open and without dropout.
    The authors' code collects them during training steps, when no label is doubted.

    Args:
        trainer: A ``CleaRTrainer``.
    """

    def __init__(self, trainer: Any) -> None:
        super().__init__(trainer)
        plan = plan_of(trainer.model)
        assert isinstance(plan, RosaPlan)
        self._plan = plan
        self._has_support = False
        self._hooks: list[Any] = []
        self._hold_back()

    def _hold_back(self) -> None:
        """Let the sparse half learn nothing until it has a support."""
        for hook in self._hooks:
            hook.remove()
        values = [] if self._has_support else sparse_values(self.trainer.model)
        # a gradient of zero, not none: DDP waits for it
        self._hooks = [value.register_hook(torch.zeros_like) for value in values]

    def grouped(self, optimizer: torch.optim.Optimizer) -> torch.optim.Optimizer:
        """Give the sparse halves their own learning rate."""
        sparse = {id(value) for value in sparse_values(self.trainer.model)}
        for group in list(optimizer.param_groups):
            own = [p for p in group["params"] if id(p) in sparse]
            if 0 < len(own) < len(group["params"]):  # not again, of an optimizer that is used on
                group["params"] = [p for p in group["params"] if id(p) not in sparse]
                lr = group["lr"] * self._plan.sparse_learning_rate
                optimizer.add_param_group({**group, "params": own, "lr": lr})
        return optimizer

    def begin(self) -> None:
        """No support yet."""
        self._has_support = False
        self._hold_back()

    def begin_epoch(self) -> None:
        """The end of the warm-up is the moment."""
        if self.trainer.phase not in (Phase.PLAIN, Phase.WARM_UP) and not self._has_support:
            with self.trainer.weights.averaged():
                self._choose_support()

    def begin_step(self) -> None:
        """In plain training, the moment is at a step."""
        steps = self.trainer.state.global_step
        if self.trainer.phase is Phase.PLAIN and not self._has_support and steps >= self._plan.mask_steps:
            self._choose_support()

    def _choose_support(self) -> None:
        trainer = self.trainer
        set_supports(trainer.model, self._scores())
        for value in sparse_values(trainer.model):
            trainer.optimizer.state.pop(value, None)  # its steps so far were none
        self._has_support = True
        self._hold_back()

    def _scores(self) -> list[Tensor]:
        """Scores of the entries of each adapted weight, (out, in), summed over all processes."""
        trainer, plan = self.trainer, self._plan
        weights = base_weights(trainer.model)
        scores = [torch.zeros_like(weight, dtype=torch.float32) for weight in weights]
        batches = trainer.passes.drawn(plan.mask_gradients, (_DRAW,))
        with trainer.passes.looking(weights):
            for losses in batches:
                accumulate(scores, torch.autograd.grad(losses.mean(), weights), plan.mask_score)
        if trainer.args.world_size > 1:
            scores = trainer.accelerator.reduce(scores, "sum")
        return scores

    def end_training(self) -> None:
        """Say so if the moment has never come."""
        if not self._has_support:
            warnings.warn(
                f"Training was over after {self.trainer.state.global_step} steps, before RoSA's sparse half "
                "had a support, so only its low-rank half has learnt: give fewer mask_steps, a shorter "
                "warm-up, or more epochs.",
                ClearWarning,
                stacklevel=2,
            )

    def state_dict(self) -> dict[str, Tensor]:
        """Whether the support has been chosen; the adapter's own file has it."""
        return {"has_support": torch.tensor(self._has_support)}

    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        """Go on from what ``state_dict`` returned."""
        self._has_support = bool(state["has_support"])
        self._hold_back()
