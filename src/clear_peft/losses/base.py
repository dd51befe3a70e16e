"""What a loss is, and what the losses share."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from typing import ClassVar, Protocol

import torch
from torch import Tensor

from clear_peft.errors import InputError


class Loss(Protocol):
    """What a batch costs: logits and given labels in, per-example losses out; may remember examples."""

    def __call__(self, logits: Tensor, labels: Tensor, ids: Tensor, *, epoch: float) -> Tensor:
        """Losses of a batch; what is remembered of its examples is brought up to date.

        The memory changes only where the logits require a gradient: evaluation leaves it as it is.

        Args:
            logits: f, (B, C), any float dtype.
            labels: y, (B,) int64 in [0, C), the given labels.
            ids: (B,) int64 in [0, N), positions in the training set.
            epoch: Epochs done so far, 0.0 at the start; 1.5 is the middle of the second.

        Returns:
            (B,) float32, differentiable in the logits.

        Raises:
            InputError: If the shapes do not fit.
        """
        ...

    def merge(self, together: Callable[[Tensor], Tensor]) -> None:
        """Remember what all processes have seen; see ``BaseLoss.merge``."""
        ...

    def state_dict(self) -> dict[str, Tensor]:
        """What a checkpoint has to hold: copies on the CPU, ``{}`` if there is nothing to remember."""
        ...

    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        """Go on from what ``state_dict`` returned.

        Raises:
            InputError: If it was written by another loss or for another training set.
        """
        ...


class BaseLoss(ABC):
    """Checked input and a memory of tensors, which live where the logits are from the first use on.

    Where several processes train, each remembers what it has seen until ``merge`` brings them together.

    Attributes:
        name: Its name in the registry.
        num_examples: N, the size of the training set.
        num_classes: C.

    Raises:
        InputError: If a size or an option is out of its range.
    """

    name: ClassVar[str]

    def __init__(self, num_examples: int, num_classes: int) -> None:
        for what, value in (("num_examples", num_examples), ("num_classes", num_classes)):
            if value < 1:
                raise InputError(f"{what} is {value}: give a positive integer.")
        self.num_examples = num_examples
        self.num_classes = num_classes
        self._memory: dict[str, Tensor] = {}

    def __call__(self, logits: Tensor, labels: Tensor, ids: Tensor, *, epoch: float) -> Tensor:
        """Losses of a batch, (B,) float32; see ``Loss``."""
        each = self.label_shape
        fits = labels.shape == (*ids.shape, *each) and ids.shape == logits.shape[:1]
        if logits.shape[1:] != (self.num_classes,) or not fits:
            of_labels = f"(B, {each[0]})" if each else "(B,)"
            raise InputError(
                f"logits have shape {tuple(logits.shape)}, labels {tuple(labels.shape)}, ids "
                f"{tuple(ids.shape)}: give (B, {self.num_classes}), {of_labels} and (B,)."
            )
        self._memory = {name: tensor.to(logits.device) for name, tensor in self._memory.items()}
        # one cast for all terms of a loss: their gradients add up before they are rounded
        return self._losses(logits.float(), labels, ids, epoch)

    @property
    def label_shape(self) -> tuple[int, ...]:
        """Shape of the labels of one example."""
        return ()

    @abstractmethod
    def _losses(self, logits: Tensor, labels: Tensor, ids: Tensor, epoch: float) -> Tensor:
        """Losses of a batch whose shapes fit and whose logits are float32."""

    def merge(self, together: Callable[[Tensor], Tensor]) -> None:
        """Remember what all processes have seen.

        Args:
            together: Makes of a tensor with a row for each example, (N, …), the one of all processes.
        """
        self._memory = {name: together(tensor) for name, tensor in self._memory.items()}

    def state_dict(self) -> dict[str, Tensor]:
        """Copies of the memory on the CPU."""
        return {name: tensor.to("cpu", copy=True) for name, tensor in self._memory.items()}

    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        """Go on from what ``state_dict`` returned; see ``Loss``."""
        own = self.state_dict()
        if _shapes(state) != _shapes(own):
            raise self._foreign(state)
        self._memory = {name: state[name].to(own[name].dtype, copy=True) for name in self._memory}

    def _foreign(self, state: Mapping[str, Tensor]) -> InputError:
        return InputError(
            f"A state with {_shapes(state)} does not fit loss {self.name!r} for {self.num_examples} "
            f"examples and {self.num_classes} classes: resume with the loss and training set that "
            "wrote it."
        )


def moving_average(old: Tensor, new: Tensor, momentum: float) -> Tensor:
    """momentum·old + (1 − momentum)·new."""
    return torch.lerp(new, old, momentum)


def _shapes(state: Mapping[str, Tensor]) -> dict[str, tuple[int, ...]]:
    return {name: tuple(tensor.shape) for name, tensor in state.items()}
