"""What is known of every training example after a scoring pass; saved beside the Trainer's own state."""

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt
import torch
from safetensors import SafetensorError, safe_open
from safetensors import torch as safetensors_torch
from torch import Tensor

from clear_peft.errors import InputError
from clear_peft.files import atomic_write
from clear_peft.trainer.teacher import Teacher

STATE_NAME = "clear_state.safetensors"
_ARRAYS = ("losses", "clean_probability", "validation_losses", "validation_probability")
_VALIDATION = "validation_"
_TRANSITION = "transition"
JUDGED_BY = ("probe", "final_model")
_DAMAGE = (AttributeError, OSError, RecursionError, SafetensorError, KeyError, TypeError, ValueError)


@dataclass(frozen=True, eq=False)
class CleanlinessState:
    """The outcome of one scoring pass over N training examples and C classes.

    Attributes:
        epoch: Number of epochs that the model had been trained for.
        losses: ℓ, (N,) float32, smoothed over epochs.
        clean_probability: p, (N,) float32 in [0, 1].
        teacher: t, what the pass predicted for every example, on the CPU.
        validation_losses: ℓ of the validation rows, (M,) float32; empty where there are none.
        validation_probability: Their p, (M,) float32.
        validation_teacher: What the pass predicted for them.
        judge: Whose predictions these are: ``probe`` or ``final_model``.
        components: 2, or 1 where training is to doubt no label, whatever its p.
        parameters: What was fitted, JSON-able.
        transition: T, P(given label | true class), (C, C) float32, of the noise model that p comes from
            (``clear_peft.label_quality.NoiseModel``); None where there is none.
    """

    epoch: int
    losses: npt.NDArray[np.float32]
    clean_probability: npt.NDArray[np.float32]
    teacher: Teacher
    validation_losses: npt.NDArray[np.float32]
    validation_probability: npt.NDArray[np.float32]
    validation_teacher: Teacher
    judge: str
    components: int
    parameters: dict[str, Any]
    transition: Tensor | None = None

    @property
    def noise_rate(self) -> float:
        """The estimated share of wrong labels, mean(1 − p)."""
        return float(1 - self.clean_probability.mean(dtype=np.float64))

    def _check(self) -> None:
        rows, others = (len(self.teacher),), (len(self.validation_teacher),)
        kinds: list[tuple[Tensor, tuple[int, ...]]] = [
            (torch.from_numpy(getattr(self, name)), others if name.startswith(_VALIDATION) else rows)
            for name in _ARRAYS
        ]
        if self.transition is not None:
            kinds.append((self.transition, (self.teacher.num_classes,) * 2))
        fits = all(a.shape == wanted and a.dtype == torch.float32 for a, wanted in kinds)
        told = isinstance(self.epoch, int) and self.components in (1, 2) and self.judge in JUDGED_BY
        if not (fits and told):
            raise ValueError(f"it is not the state of {rows[0]} examples")
        numbers = [a for a, _ in kinds] + [self.teacher.values, self.validation_teacher.values]
        if not (isinstance(self.parameters, dict) and all(a.isfinite().all() for a in numbers)):
            raise ValueError("it holds what no scoring pass finds")

    def save(self, folder: str | os.PathLike[str]) -> None:
        """Write the state into a folder, atomically."""
        arrays = {name: torch.from_numpy(getattr(self, name)) for name in _ARRAYS}
        rest = {name: getattr(self, name) for name in ("epoch", "judge", "components", "parameters")}
        arrays |= self.teacher.tensors()
        arrays |= {_VALIDATION + name: t for name, t in self.validation_teacher.tensors().items()}
        if self.transition is not None:
            arrays[_TRANSITION] = self.transition
        atomic_write(Path(folder) / STATE_NAME, safetensors_torch.save(arrays, {"clear": json.dumps(rest)}))

    @classmethod
    def load(cls, folder: str | os.PathLike[str], shape: tuple[int, int]) -> "CleanlinessState | None":
        """Read the state of a folder; None where no scoring pass had been made yet.

        Args:
            folder: A checkpoint.
            shape: N and C that it must have.

        Raises:
            InputError: If the file is damaged, or about other examples.
        """
        path = Path(folder) / STATE_NAME
        if not path.is_file():
            return None
        try:
            with safe_open(path, "pt") as file:
                rest = json.loads(file.metadata()["clear"])
                tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
            arrays = {name: tensors.pop(name).numpy() for name in _ARRAYS}
            transition = tensors.pop(_TRANSITION, None)
            others = [name for name in tensors if name.startswith(_VALIDATION)]
            validation = {name.removeprefix(_VALIDATION): tensors.pop(name) for name in others}
            state = cls(
                **arrays,
                teacher=Teacher.restored(tensors, *shape),
                validation_teacher=Teacher.restored(validation, len(arrays["validation_losses"]), shape[1]),
                transition=transition,
                **rest,
            )
            state._check()
            return state
        except _DAMAGE as error:
            raise InputError(f"{path} is damaged ({error}): resume from an earlier checkpoint.") from error


class Remembers(Protocol):
    """Something that has tensors to be carried from a checkpoint to the training that goes on from it."""

    def state(self) -> dict[str, Tensor]:
        """Those tensors, on the CPU."""
        ...

    def restore(self, state: Mapping[str, Tensor]) -> None:
        """Go on from what ``state`` returned."""
        ...


def save_memory(parts: Mapping[str, Remembers], folder: str | os.PathLike[str], rank: int) -> None:
    """Write the tensors of all parts into a folder, atomically; every process writes its own."""
    tensors = {f"{part}/{n}": tensor for part, owner in parts.items() for n, tensor in owner.state().items()}
    atomic_write(_memory(folder, rank), safetensors_torch.save(tensors))


def load_memory(
    parts: Mapping[str, Remembers], folder: str | os.PathLike[str], rank: int, world_size: int
) -> None:
    """Give all parts back what ``save_memory`` wrote.

    Raises:
        InputError: If the file is missing or damaged, or as many processes as now did not write it.
    """
    path = _memory(folder, rank)
    fewer, more = rank > 0 and not path.is_file(), _memory(folder, world_size).is_file()
    if fewer or more:
        others = "fewer" if fewer else "more"
        raise InputError(f"{folder} was saved by {others} processes: resume with as many as began the run.")
    try:
        tensors = safetensors_torch.load(path.read_bytes())
    except (OSError, SafetensorError) as error:
        raise InputError(f"Cannot read {path} ({error}): resume from another checkpoint.") from error
    for part, owner in parts.items():
        prefix = f"{part}/"
        try:
            owner.restore({n.removeprefix(prefix): t for n, t in tensors.items() if n.startswith(prefix)})
        except (KeyError, RuntimeError, TypeError, ValueError) as error:
            raise InputError(f"{path} is damaged ({error}): resume from another checkpoint.") from error


def _memory(folder: str | os.PathLike[str], rank: int) -> Path:
    return Path(folder) / (f"clear_memory_{rank}.safetensors" if rank else "clear_memory.safetensors")
