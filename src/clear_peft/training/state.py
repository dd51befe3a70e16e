"""What is known of every training example after a scoring pass; saved beside the Trainer's own state."""

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass, replace
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
from clear_peft.training.teacher import Teacher

STATE_NAME = "clear_state.safetensors"
MEMORY_NAME = "clear_memory.safetensors"
_ARRAYS = ("losses", "clean_probability", "validation_probability")
_DAMAGE = (AttributeError, OSError, RecursionError, SafetensorError, KeyError, TypeError, ValueError)


@dataclass(frozen=True, eq=False)
class CleanlinessState:
    """The outcome of one scoring pass over N training examples and C classes.

    Attributes:
        epoch: Number of epochs that the model had been trained for.
        losses: ℓ, (N,) float32, smoothed over epochs.
        clean_probability: p, (N,) float32 in [0, 1].
        teacher: t, what the pass predicted for every example, on the CPU.
        validation_probability: p of the validation rows, (M,) float32; empty where there are none.
        components: 2, or 1 where no label is doubted.
        parameters: What the estimator fitted, JSON-able.
    """

    epoch: int
    losses: npt.NDArray[np.float32]
    clean_probability: npt.NDArray[np.float32]
    teacher: Teacher
    validation_probability: npt.NDArray[np.float32]
    components: int
    parameters: dict[str, Any]

    @property
    def noise_rate(self) -> float:
        """The estimated share of wrong labels, mean(1 − p)."""
        return float(1 - self.clean_probability.mean(dtype=np.float64))

    def believing_all(self) -> "CleanlinessState":
        """The same pass, with no label doubted."""
        return replace(
            self,
            clean_probability=np.ones_like(self.clean_probability),
            validation_probability=np.ones_like(self.validation_probability),
            components=1,
        )

    def _check(self) -> None:
        rows = (len(self.teacher),)
        kinds = (
            (self.losses, rows, np.float32),
            (self.clean_probability, rows, np.float32),
            (self.validation_probability, self.validation_probability.shape[:1], np.float32),
        )
        fits = all(a.shape == wanted and a.dtype == kind for a, wanted, kind in kinds)
        if not (fits and isinstance(self.epoch, int) and self.components in (1, 2)):
            raise ValueError(f"it is not the state of {rows[0]} examples")
        finite = all(np.isfinite(a).all() for a, _, _ in kinds) and self.teacher.values.isfinite().all()
        if not (isinstance(self.parameters, dict) and finite):
            raise ValueError("it holds what no scoring pass finds")

    def save(self, folder: str | os.PathLike[str]) -> None:
        """Write the state into a folder, atomically."""
        arrays = {name: torch.from_numpy(getattr(self, name)) for name in _ARRAYS}
        rest = {"epoch": self.epoch, "components": self.components, "parameters": self.parameters}
        known = safetensors_torch.save({**arrays, **self.teacher.tensors()}, {"clear": json.dumps(rest)})
        atomic_write(Path(folder) / STATE_NAME, known)

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
            state = cls(**arrays, teacher=Teacher.restored(tensors, *shape), **rest)
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


def save_memory(parts: Mapping[str, Remembers], folder: str | os.PathLike[str]) -> None:
    """Write the tensors of all parts into a folder, atomically."""
    tensors = {f"{part}/{n}": tensor for part, owner in parts.items() for n, tensor in owner.state().items()}
    atomic_write(Path(folder) / MEMORY_NAME, safetensors_torch.save(tensors))


def load_memory(parts: Mapping[str, Remembers], folder: str | os.PathLike[str]) -> None:
    """Give all parts back what ``save_memory`` wrote.

    Raises:
        InputError: If the file is missing or damaged.
    """
    path = Path(folder) / MEMORY_NAME
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
