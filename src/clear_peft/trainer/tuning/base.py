"""The moments at which a PEFT method may take part in training."""

import os
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor


class TunerTraining:
    """What training does for a PEFT method besides gradient descent: here, nothing.

    Args:
        trainer: A ``CleaRTrainer``; ``plan_of(trainer.model)`` has the settings.
    """

    def __init__(self, trainer: Any) -> None:
        self.trainer = trainer

    def grouped(self, optimizer: torch.optim.Optimizer) -> torch.optim.Optimizer:
        """The optimizer that has been made, in which parameters may get a learning rate of their own."""
        return optimizer

    def begin(self) -> None:
        """Training begins, with nothing learnt."""

    def begin_epoch(self) -> None:
        """The epoch before has been evaluated and saved; if training restarts, it is about to."""

    def begin_step(self) -> None:
        """An optimizer step begins."""

    def end_step(self) -> None:
        """The optimizer has taken a step."""

    def end_training(self) -> None:
        """The model has the weights that it is to keep."""

    def load(self, folder: str | os.PathLike[str]) -> None:
        """The weights of a checkpoint have been loaded, to go on from or to keep."""

    def state_dict(self) -> dict[str, Tensor]:
        """What training needs when it goes on from a checkpoint, on the CPU."""
        return {}

    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        """Go on from what ``state_dict`` returned.

        Raises:
            KeyError, RuntimeError, TypeError, ValueError: If it is something else.
        """
