"""Stopping at what is not finite, without a device that waits for us at every step."""

from collections.abc import Sequence

import torch
from torch import Tensor

from clear_peft.errors import InputError

_ROWS = 5
# steps between two looks at an accelerator, which has to finish its work for each
_STEPS = 50


class NotFiniteError(InputError):
    """A step of the training was not finite.

    Args:
        what: What was not, as a sentence begins: ``The loss``.
        step: Its number, counted from 1.
        rows: Some of its examples, by their positions in the training set.
    """

    def __init__(self, what: str, step: int, rows: Sequence[int]) -> None:
        super().__init__(
            f"{what} is not finite at step {step} (training rows {', '.join(map(str, rows))}, …): lower the "
            "learning rate, or train in bf16 or float32 instead of fp16."
        )
        self._what, self._step, self._rows = what, step, rows

    def of_rows(self, numbers: Sequence[int]) -> "NotFiniteError":
        """The same, but each row by the number that its table has for it, (N,)."""
        return NotFiniteError(self._what, self._step, [numbers[row] for row in self._rows])


class FiniteWatch:
    """Notes, where the steps run, the first one that is not finite; looks now and then, and stops training.

    On the CPU every step is looked at at once. On an accelerator a ruined step is found up to 50 steps later,
    and always before anything is judged, evaluated or saved: ``look`` belongs there.

    Args:
        what: What is watched, as a sentence begins: ``The loss``.
        device: Where the steps run.
    """

    def __init__(self, what: str, device: torch.device) -> None:
        self._what = what
        self._steps_unseen = 0
        self._patience = 1 if device.type == "cpu" else _STEPS
        self._step = torch.zeros((), dtype=torch.int64, device=device)  # 0: all has been finite
        self._rows = torch.full((_ROWS,), -1, device=device)

    @torch.no_grad()
    def see(self, finite: Tensor, ids: Tensor, step: int) -> None:
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
            self.look()

    def look(self) -> None:
        """Stop if a step was not finite.

        Raises:
            NotFiniteError: Naming the step and up to five of its training rows.
        """
        self._steps_unseen = 0
        step = int(self._step)
        if step:
            raise NotFiniteError(self._what, step, [row for row in self._rows.tolist() if row >= 0])
