"""The losses since the last log, for a checkpoint in the middle of an epoch."""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor


class UnloggedLoss:
    """Carries the Trainer's sum of losses over, which it begins anew when it resumes.

    Args:
        trainer: The ``transformers.Trainer`` whose sum it is.
    """

    def __init__(self, trainer: Any) -> None:
        self._trainer = trainer
        self._restored: tuple[Tensor, int] | None = None

    def state(self) -> dict[str, Tensor]:
        """The sum, and the number of steps that it is of, on the CPU."""
        steps = self._trainer.state.global_step - self._trainer._globalstep_last_logged
        return {"sum": self._trainer._tr_loss.detach().to("cpu", copy=True), "steps": torch.tensor(steps)}

    def restore(self, state: Mapping[str, Tensor]) -> None:
        """Go on from what ``state`` returned, once ``resume`` is called."""
        self._restored = state["sum"].reshape(()), int(state["steps"])

    def resume(self) -> None:
        """Give the Trainer what was restored, if anything was; when training begins, and not earlier."""
        if self._restored is not None:
            total, steps = self._restored
            self._trainer._tr_loss += total.to(self._trainer._tr_loss)
            self._trainer._globalstep_last_logged -= steps
            self._restored = None
