"""What is known of the labels at one moment of the training, and how a checkpoint keeps it."""

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save

from clear_peft.errors import InputError
from clear_peft.files import atomic_write
from clear_peft.label_quality import LabelQuality, MultilabelQuality
from clear_peft.trainer.columns import ROW_COLUMN

ESTIMATE_NAME = "clear_estimate.safetensors"
_DAMAGE = (AttributeError, OSError, RecursionError, SafetensorError, KeyError, TypeError, ValueError)

Quality = LabelQuality | MultilabelQuality


@dataclass(frozen=True, eq=False)
class Estimate:
    """Which labels of the training and the validation rows look right, as of one moment of the training.

    Attributes:
        epoch: Number of epochs that the model had been trained for.
        train: Of the N training rows, a ``Quality``.
        validation: Of the M validation rows, where there are any, else None.
        losses: Cross entropies under the given labels, (N,) float32, smoothed over epochs where
            ``loss_ema`` says so; of several labels a row, the means over them.
        noise_found: Whether training is to make use of it: ``noise_threshold`` was reached.
        parameters: What was fitted, JSON-able.
        validation_weights: Clean probabilities of the validation rows by the first estimate, (M,) float32,
            of several labels a row (M, C): how much each counts where epochs are compared.
    """

    epoch: int
    train: Any
    validation: Any
    losses: npt.NDArray[np.float32]
    noise_found: bool
    parameters: dict[str, Any]
    validation_weights: npt.NDArray[np.float32]

    def of_table(self, evaluation: Any) -> Any:
        """Of the training rows, and of the validation rows if the evaluation set is of the same table."""
        if self.validation is None or ROW_COLUMN not in evaluation.column_names:
            return self.train
        if np.isin(self.validation.rows, self.train.rows).any():  # of another table
            return self.train
        # both number their groups from 0, and rows were held out by whole groups
        groups = self.validation.groups + self.train.groups.max() + 1
        return type(self.train).concatenate([self.train, replace(self.validation, groups=groups)])

    def save(self, folder: str | os.PathLike[str]) -> None:
        """Write the estimate into a checkpoint, atomically."""
        rest: dict[str, Any] = {
            "epoch": self.epoch,
            "noise_found": self.noise_found,
            "parameters": self.parameters,
        }
        arrays = {"losses": self.losses, "validation_weights": self.validation_weights}
        for name in ("train", "validation"):
            quality = getattr(self, name)
            if quality is not None:
                own, rest[name] = quality.arrays()
                arrays |= {f"{name}/{key}": np.ascontiguousarray(value) for key, value in own.items()}
        atomic_write(Path(folder) / ESTIMATE_NAME, save(arrays, {"clear": json.dumps(rest)}))

    @classmethod
    def load(
        cls,
        folder: str | os.PathLike[str],
        size: int,
        num_classes: int,
        kind: type[Quality] = LabelQuality,
    ) -> "Estimate | None":
        """Read the estimate of a checkpoint; None where none had been made yet.

        Args:
            folder: A checkpoint.
            size: N that it must have.
            num_classes: C that it must have.
            kind: Of ``train`` and ``validation``. Default: of one label a row.

        Raises:
            InputError: If the file is damaged, or about other rows.
        """
        path = Path(folder) / ESTIMATE_NAME
        if not path.is_file():
            return None
        try:
            with safe_open(path, "np") as file:
                rest = json.loads(file.metadata()["clear"])
                arrays = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
            estimate = cls._of_arrays(arrays, rest, kind)
            fits = len(estimate.train) == len(estimate.losses) == size and estimate.losses.ndim == 1
            if not fits or estimate.train.num_classes != num_classes:
                raise ValueError(f"it is not about {size} rows and {num_classes} classes")
            unseen, weights = estimate.validation, estimate.validation_weights
            if unseen is not None and weights.shape != unseen.clean_probability.shape:
                raise ValueError("it does not hold a weight for each validation row")
            if not all(np.isfinite(a).all() for a in (estimate.losses, estimate.validation_weights)):
                raise ValueError("it holds what no pass finds")
            return estimate
        except _DAMAGE as error:
            raise InputError(f"{path} is damaged ({error}): resume from an earlier checkpoint.") from error

    @classmethod
    def _of_arrays(
        cls, arrays: Mapping[str, npt.NDArray[Any]], rest: Mapping[str, Any], kind: type[Quality]
    ) -> "Estimate":
        kinds = {"epoch": int, "noise_found": bool, "parameters": dict}
        if any(type(rest[name]) is not of for name, of in kinds.items()):
            raise ValueError("it does not say when it was made, or what was found")
        parts: dict[str, dict[str, npt.NDArray[Any]]] = {name: {} for name in ("train", "validation", "")}
        for name, array in arrays.items():
            part, _, own = name.rpartition("/")
            parts[part][own] = array
        if parts[""].keys() != {"losses", "validation_weights"} or bool(parts["validation"]) != (
            "validation" in rest
        ):
            raise ValueError("it holds other arrays than an estimate")
        unseen = parts["validation"]
        return cls(
            epoch=rest["epoch"],
            train=kind.from_arrays(parts["train"], rest["train"]),
            validation=kind.from_arrays(unseen, rest["validation"]) if unseen else None,
            losses=arrays["losses"],
            noise_found=rest["noise_found"],
            parameters=rest["parameters"],
            validation_weights=arrays["validation_weights"],
        )
