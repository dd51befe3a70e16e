"""``label_quality.safetensors``: the ``LabelQuality`` of a run, as audit and report read it."""

import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save

from clear_peft.errors import InputError
from clear_peft.files import atomic_write
from clear_peft.label_quality import LabelQuality

_DAMAGE = (OSError, SafetensorError, AttributeError, KeyError, TypeError, ValueError, RecursionError)


def save_label_quality(path: Path, quality: LabelQuality, names: Sequence[str], *, noise_found: bool) -> None:
    """Write it, atomically.

    Args:
        path: The file.
        quality: Of all rows of the training table.
        names: Names of the classes.
        noise_found: Whether training made use of it.
    """
    arrays, rest = quality.arrays()
    about = {**rest, "labels": list(names), "noise_found": noise_found}
    contiguous = {name: np.ascontiguousarray(array) for name, array in arrays.items()}
    atomic_write(path, save(contiguous, {"clear": json.dumps(about)}))


def load_label_quality(path: Path, names: Sequence[str]) -> tuple[LabelQuality, bool]:
    """Read it back, and whether training made use of it.

    Args:
        path: The file, which may come from a stranger.
        names: Names of the classes.

    Raises:
        InputError: If it is damaged, of other classes, or its rows are not in the order of a table.
    """
    mend = "give the run folder as train has written it"
    try:
        with safe_open(path, "np") as file:
            about = json.loads(file.metadata()["clear"])
            arrays = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        quality, labels = LabelQuality.from_arrays(arrays, about), about["labels"]
        noise_found = about["noise_found"]
        if type(noise_found) is not bool:
            raise ValueError("it does not say whether noise was found")
    except _DAMAGE as error:
        raise InputError(f"{path} is damaged ({' '.join(str(error).split())}): {mend}.") from error
    in_order = bool((np.diff(quality.rows, prepend=-1) > 0).all())
    if labels != list(names) or quality.pred_probs.num_classes != len(names) or not in_order:
        raise InputError(f"{path} is about other rows or labels than the run: {mend}.")
    return quality, noise_found
