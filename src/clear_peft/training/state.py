"""What is known of every training example after a scoring pass; saved beside the Trainer's own state."""

import json
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from safetensors import SafetensorError, safe_open
from safetensors import torch as safetensors_torch
from safetensors.numpy import save

from clear_peft.errors import InputError
from clear_peft.files import atomic_write
from clear_peft.objectives import Objective

STATE_NAME = "clear_state.safetensors"
OBJECTIVE_NAME = "objective_state.safetensors"


@dataclass(frozen=True, eq=False)
class CleanlinessState:
    """The outcome of one scoring pass over N training examples and C classes.

    Attributes:
        epoch: Number of epochs that the model had been trained for.
        losses: ℓ, (N,) float32, smoothed over epochs.
        clean_probability: p, (N,) float32 in [0, 1].
        teacher: t, (N, C) float16, the logits of the pass.
        components: 1 or 2: whether the losses show wrong labels at all.
        parameters: What the estimator fitted, JSON-able.
    """

    epoch: int
    losses: npt.NDArray[np.float32]
    clean_probability: npt.NDArray[np.float32]
    teacher: npt.NDArray[np.float16]
    components: int
    parameters: dict[str, Any]

    @property
    def noise_rate(self) -> float:
        """The estimated share of wrong labels, mean(1 − p)."""
        return float(1 - self.clean_probability.mean(dtype=np.float64))

    def save(self, folder: str | os.PathLike[str]) -> None:
        """Write the state into a folder, atomically."""
        arrays = {"losses": self.losses, "clean_probability": self.clean_probability, "teacher": self.teacher}
        rest = {"epoch": self.epoch, "components": self.components, "parameters": self.parameters}
        atomic_write(Path(folder) / STATE_NAME, save(arrays, {"clear": json.dumps(rest)}))

    @classmethod
    def load(cls, folder: str | os.PathLike[str]) -> "CleanlinessState | None":
        """Read the state of a folder; None where no scoring pass had been made yet.

        Raises:
            InputError: If the file is damaged.
        """
        path = Path(folder) / STATE_NAME
        if not path.is_file():
            return None
        try:
            with safe_open(path, "np") as file:
                rest = json.loads(file.metadata()["clear"])
                arrays = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
            return cls(**arrays, **rest)
        except (SafetensorError, KeyError, TypeError, ValueError) as error:
            raise InputError(f"{path} is damaged ({error}): resume from an earlier checkpoint.") from error


def save_objective(objective: Objective, folder: str | os.PathLike[str]) -> None:
    """Write what an objective remembers of the examples into a folder, atomically; nothing if it does not."""
    memory = objective.state()
    if memory:
        atomic_write(Path(folder) / OBJECTIVE_NAME, safetensors_torch.save(memory))


def restore_objective(objective: Objective, folder: str | os.PathLike[str]) -> None:
    """Give an objective back what ``save_objective`` wrote, if anything.

    Raises:
        InputError: If the file is damaged or another objective's.
    """
    path = Path(folder) / OBJECTIVE_NAME
    if not path.is_file():
        return
    try:
        memory = safetensors_torch.load(path.read_bytes())
    except SafetensorError as error:
        raise InputError(f"{path} is damaged ({error}): resume from an earlier checkpoint.") from error
    objective.restore(memory)
