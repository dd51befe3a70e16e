"""Scores that fall out of the training steps, in place of a pass over all rows."""

import math
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import cross_entropy

from clear_peft.label_quality import moved_to
from clear_peft.trainer.teacher import Teacher


class StepScores:
    """Keeps what each example's last step made of it, and when that was: 8 bytes an example, and the teacher.

    A step costs a few copies on the device; nothing waits for it. Where several processes train, each knows
    its own examples until an epoch is over; one that two of them have seen counts once, as the later saw it.

    Args:
        size: N.
        num_labels: C.
        device: Where the steps run.
    """

    def __init__(self, size: int, num_labels: int, device: torch.device) -> None:
        self._losses = torch.full((size,), torch.nan, device=device)
        self._times = torch.full((size,), -1.0, device=device)  # -1: no step on it yet
        self._teacher = Teacher.unknown(size, num_labels, device)

    @torch.no_grad()
    def step(self, logits: Tensor, labels: Tensor, ids: Tensor, epoch: float) -> None:
        """A training step has given these examples, (B,), these logits, (B, C), so many epochs on."""
        self._losses[ids] = cross_entropy(logits.float(), labels, reduction="none")
        self._times[ids] = epoch
        self._teacher.put(ids, logits)

    def end_epoch(self, epoch: float, accelerator: Any) -> None:
        """Move the losses of the epoch's steps to its end (see ``clear_peft.label_quality.moved_to``).

        An example without a step in it keeps what it had.

        Args:
            epoch: Number of epochs that are over.
            accelerator: Accelerate's, which knows of other processes.
        """
        if accelerator.num_processes > 1:
            self._gather(accelerator)
        times = self._times.cpu().numpy()
        seen = times >= max(0, math.ceil(epoch) - 1)
        losses = self._losses.cpu().numpy().copy()
        losses[seen] = moved_to(losses[seen], times[seen], epoch)
        self._losses.copy_(torch.from_numpy(losses))

    def _gather(self, accelerator: Any) -> None:
        self._times, owner = accelerator.gather(self._times[None]).max(dim=0)
        own = owner == accelerator.process_index

        def shared(tensor: Tensor) -> Tensor:
            mask = own if tensor.ndim == 1 else own[:, None]
            return accelerator.reduce(torch.where(mask, tensor, torch.zeros_like(tensor)), "sum")

        classes = self._teacher.classes
        if classes is not None:  # not every back end adds up 16-bit integers
            classes = shared(classes.int()).to(classes.dtype)
        self._losses = shared(self._losses)
        self._teacher = Teacher(shared(self._teacher.values), self._teacher.num_classes, classes)

    @property
    def complete(self) -> bool:
        """Whether every example has had a step."""
        return bool((self._times >= 0).all())

    @property
    def losses(self) -> np.ndarray:
        """Cross entropies under the given labels, (N,) float32."""
        return self._losses.cpu().numpy().copy()

    @property
    def logits(self) -> Tensor:
        """Predictions, (N, C) float32 on the CPU."""
        return self._teacher.logits().cpu()

    def state(self) -> dict[str, Tensor]:
        """What a checkpoint has to hold, on the CPU: not every example has a step in every epoch."""
        own = {"losses": self._losses, "times": self._times, **self._teacher.tensors()}
        return {name: tensor.cpu() for name, tensor in own.items()}

    def restore(self, state: Mapping[str, Tensor]) -> None:
        """Go on from what ``state`` returned.

        Raises:
            KeyError: If it lacks something.
            ValueError: If it is about other examples.
        """
        rest = {name: tensor for name, tensor in state.items() if name not in ("losses", "times")}
        size, classes = len(self._losses), self._teacher.num_classes
        self._teacher = Teacher.restored(rest, size, classes).to(self._losses.device)
        self._losses.copy_(state["losses"])
        self._times.copy_(state["times"])
