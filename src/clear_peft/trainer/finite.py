"""Stopping at what is not finite, without a device that waits for us at every step."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from clear_peft.errors import RunFailedError

_ROWS = 5
# steps between two looks at an accelerator, which has to finish its work for each
_STEPS = 50


class NotFiniteError(RunFailedError):
    """A step of the training was not finite.

    Args:
        what: What was not, as a sentence begins: ``The loss``.
        step: Its number, counted from 1.
        rows: Some of its rows, by their positions in the table.
    """

    def __init__(self, what: str, step: int, rows: Sequence[int]) -> None:
        super().__init__(
            f"{what} is not finite at step {step} (training rows {', '.join(map(str, rows))}, …): lower the "
            "learning rate, or train in bf16 or float32 instead of fp16."
        )


class NonFiniteGuard:
    """Notes, where the steps run, the first one that is not finite; checks now and then, and stops training.

    On the CPU every step is looked at at once. On an accelerator a ruined step is found up to 50 steps later,
    and always before anything is judged, evaluated or saved: ``check`` belongs there.

    Args:
        what: What is guarded, as a sentence begins: ``The loss``.
        device: Where the steps run.
        row: Position of each training row in its table, (N,): rows are named by it.
    """

    def __init__(self, what: str, device: torch.device, row: npt.NDArray[np.integer]) -> None:
        self._what = what
        self._row = row
        self._steps_unseen = 0
        self._patience = 1 if device.type == "cpu" else _STEPS
        self._step = torch.zeros((), dtype=torch.int64, device=device)  # 0: all has been finite
        self._rows = torch.full((_ROWS,), -1, device=device)

    @torch.no_grad()
    def update(self, finite: Tensor, ids: Tensor, step: int) -> None:
        """A step, counted from 1, has been taken.

        Args:
            finite: Of each of its examples, (B,) bool.
            ids: The examples, (B,) int64.
            step: Its number.

        Raises:
            NotFiniteError: If this step, or one that has not been looked at yet, is not finite.
        """
        ruined = ~finite
        worst = ruined.float().argsort(descending=True, stable=True)[:_ROWS]
        rows = self._rows.new_full((_ROWS,), -1)
        rows[: len(worst)] = torch.where(ruined[worst], ids[worst], -1)
        first = ruined.any() & (self._step == 0)
        self._rows = torch.where(first, rows, self._rows)
        self._step = torch.where(first, step, self._step)
        self._steps_unseen += 1
        if self._steps_unseen >= self._patience:
            self.check()

    def check(self) -> None:
        """Stop if a step was not finite.

        Raises:
            NotFiniteError: Naming the step and up to five of its training rows.
        """
        self._steps_unseen = 0
        step = int(self._step)
        if step:
            raise NotFiniteError(
                self._what, step, self._row[[i for i in self._rows.tolist() if i >= 0]].tolist()
            )


class StepGuard:
    """Watches the losses and the gradient of each optimizer step.

    Args:
        device: Where the steps run.
        row: As for ``NonFiniteGuard``.
    """

    def __init__(self, device: torch.device, row: npt.NDArray[np.integer]) -> None:
        self._losses = NonFiniteGuard("The loss", device, row)
        self._gradient = NonFiniteGuard("The gradient", device, row)
        self._ids: list[Tensor] = []  # of the micro-batches of this step

    def begin_step(self) -> None:
        """The micro-batches of a step begin: an epoch's last step may have fewer than the one before."""
        self._ids.clear()

    def losses(self, losses: Tensor, ids: Tensor, step: int) -> None:
        """A micro-batch of a step, counted from 1, has these losses, (B,), of these rows, (B,)."""
        self._ids.append(ids)
        self._losses.update(losses.isfinite(), ids, step)

    def gradient(self, norm: Any, step: int) -> None:
        """The gradient of the step, which is about to be taken, has this norm."""
        ids = torch.cat(self._ids)
        finite = torch.as_tensor(norm, device=ids.device).isfinite().expand(len(ids))
        self._gradient.update(finite, ids, step)

    def check(self) -> None:
        """Stop if a step was not finite: what it made is nothing to estimate by, to evaluate or to save."""
        self._losses.check()
        self._gradient.check()
