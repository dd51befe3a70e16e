"""What a checkpoint holds besides transformers' own files, and what is wrong with one that cannot be read."""

import os
import pickle
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Protocol

import torch
from accelerate.utils import gather_object
from safetensors import SafetensorError
from safetensors import torch as safetensors_torch
from torch import Tensor
from transformers import TrainerState
from transformers.trainer import TRAINER_STATE_NAME
from transformers.trainer_utils import get_last_checkpoint

from clear_peft.errors import InputError
from clear_peft.files import atomic_write
from clear_peft.trainer.estimate import Estimate
from clear_peft.trainer.hf_state import check_trainer_state
from clear_peft.trainer.shards import accessible
from clear_peft.tuners.loading import has_adapter, restore_adapter

# what reading a damaged or planted file raises; torch unpickles nothing but tensors and numbers
_DAMAGE = (
    pickle.UnpicklingError,
    EOFError,
    OSError,
    ValueError,
    KeyError,
    TypeError,
    AttributeError,
    RuntimeError,
    SafetensorError,
)
# by what a checkpoint holds
_KEPT = {
    "FSDP's FULL_STATE_DICT": "pytorch_model_fsdp.bin",
    "FSDP's SHARDED_STATE_DICT": "pytorch_model_fsdp_0",
    "DeepSpeed's shards": "latest",
}
_WHOLE = "whole weights"


class TrainingIsOverError(Exception):
    """A run that is resumed had ended for want of gain when it was interrupted."""


class Stateful(Protocol):
    """Something with tensors that training needs when it goes on from a checkpoint."""

    def state_dict(self) -> dict[str, Tensor]:
        """Those tensors, on the CPU."""
        ...

    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        """Go on from what ``state_dict`` returned.

        Raises:
            KeyError, RuntimeError, TypeError, ValueError: If it is something else.
        """
        ...


def save(trainer: Any, folder: str | os.PathLike[str]) -> None:
    """Write what a ``CleaRTrainer`` knows besides its model, atomically; every process writes its own file.

    The estimate is the same on all processes, and the first one writes it.
    """
    Path(folder).mkdir(parents=True, exist_ok=True)
    tensors = {
        f"{name}/{n}": t for name, part in trainer.stateful().items() for n, t in part.state_dict().items()
    }
    atomic_write(_path(folder, trainer.args.process_index), safetensors_torch.save(tensors))
    if trainer.store.estimate is not None and trainer.args.should_save:
        trainer.store.estimate.save(folder)


def load(trainer: Any, folder: str | os.PathLike[str]) -> None:
    """Give a ``CleaRTrainer`` back what ``save`` wrote, but for the estimate, which goes with the model.

    Raises:
        InputError: If the file is missing or damaged, or as many processes as now did not write it, unless
            at the end of an epoch, when what they know is the same.
    """
    rank, path = trainer.args.process_index, _path(folder, trainer.args.process_index)
    fewer, more = rank > 0 and not path.is_file(), _path(folder, trainer.args.world_size).is_file()
    # of all processes: each may have a disk of its own
    found = gather_object([(fewer, more)])
    fewer, more = (any(each) for each in zip(*found, strict=True))
    if fewer or more:
        if not _epoch_of(folder).is_integer():
            raise InputError(
                f"{folder} was saved by {'fewer' if fewer else 'more'} processes, within an epoch: resume "
                "with as many as began the run, or from the end of an epoch."
            )
        path = _path(folder, 0)
    try:
        tensors = safetensors_torch.load(path.read_bytes())
    except (OSError, SafetensorError) as error:
        raise InputError(f"Cannot read {path} ({error}): resume from another checkpoint.") from error
    for name, part in trainer.stateful().items():
        prefix = f"{name}/"
        try:
            own = {n.removeprefix(prefix): t for n, t in tensors.items() if n.startswith(prefix)}
            part.load_state_dict(own)
        except (KeyError, RuntimeError, TypeError, ValueError) as error:
            raise InputError(f"{path} is damaged ({error}): resume from another checkpoint.") from error


def load_model(trainer: Any, folder: str, theirs: Callable[[], None]) -> None:
    """Load the model of a checkpoint, and the estimate that goes with it.

    Args:
        trainer: A ``CleaRTrainer``.
        folder: The checkpoint.
        theirs: How transformers loads sharded models, and those without an adapter; peft's own loading of
            adapters would make all that it loads trainable.
    """
    if has_adapter(trainer.model) and not trainer.is_fsdp_enabled:
        with accessible(trainer.model):
            restore_adapter(trainer.model, folder)
    else:
        theirs()
    trainer.tuning.load(folder)
    rows, task = len(trainer.store.rows), trainer.task
    trainer.store.set_estimate(Estimate.load(folder, rows, task.num_labels, task.quality))


def save_bottleneck(trainer: Any, folder: str | None) -> None:
    """Write a bottleneck adapter, which transformers cannot, and its tokenizer."""
    tokenizer = trainer.processing_class or trainer.data_collator.tokenizer
    for part in (trainer.model, tokenizer):
        if part is not None and trainer.args.should_save:
            part.save_pretrained(folder or trainer.args.output_dir)


def _epoch_of(folder: str | os.PathLike[str]) -> float:
    return TrainerState.load_from_json(str(Path(folder, TRAINER_STATE_NAME))).epoch or 0.0


def _path(folder: str | os.PathLike[str], rank: int) -> Path:
    return Path(folder) / (f"clear_state_{rank}.safetensors" if rank else "clear_state.safetensors")


class Reading:
    """A checkpoint that training goes on from, as long as it is being read.

    Args:
        folder: The checkpoint; None: training begins.

    Attributes:
        in_progress: Whether it is still being read.
        beside: Where its sisters are.
    """

    def __init__(self, folder: str | None) -> None:
        self.in_progress = folder is not None
        self.beside = [] if folder is None else [Path(folder).parent]

    def done(self) -> None:
        """All of it has been read."""
        self.in_progress = False


@contextmanager
def readable(resume_from_checkpoint: str | bool | None, trainer: Any) -> Iterator[Reading]:
    """Inside, until it is read, what fails is the fault of the checkpoint, and is said in a sentence.

    Args:
        resume_from_checkpoint: As for ``transformers.Trainer.train``.
        trainer: A ``CleaRTrainer``.
    """
    args, last = trainer.args, resume_from_checkpoint is True
    folder = get_last_checkpoint(args.output_dir) if last else str(resume_from_checkpoint or "") or None
    reading = Reading(folder)
    try:
        if folder is not None:
            check_trainer_state(Path(folder) / TRAINER_STATE_NAME, args.metric_name)
            _check_kept(trainer, folder)
        yield reading
    except (InputError, torch.OutOfMemoryError):
        raise
    except _DAMAGE as error:
        if not reading.in_progress:
            raise
        refused = isinstance(error, pickle.UnpicklingError)  # torch tells how to run it anyway
        reason = "no plain tensors" if refused else str(error).strip().partition("\n")[0][:200]
        raise InputError(
            f"{folder} holds a damaged checkpoint ({reason}): delete it, to resume from an earlier one or to "
            "begin anew."
        ) from error


def _check_kept(trainer: Any, folder: str) -> None:
    """Refuse a checkpoint of another way to keep the weights, which would look like a damaged one.

    Raises:
        InputError: If it is of FSDP or DeepSpeed, and this training is not, or the other way round.
    """
    begun = next((way for way, name in _KEPT.items() if Path(folder, name).exists()), _WHOLE)
    now = "DeepSpeed's shards" if trainer.is_deepspeed_enabled else _WHOLE
    if trainer.is_fsdp_enabled:
        now = f"FSDP's {trainer.accelerator.state.fsdp_plugin.state_dict_type.name}"
    if begun != now:
        raise InputError(f"{folder} holds {begun}, and this training keeps {now}: resume it as it was begun.")


def check_steps(state: TrainerState, steps_per_epoch: int) -> None:
    """Refuse a checkpoint whose epochs had other steps, for which training would take its step for another.

    Raises:
        InputError: If it is of the end of an epoch, and its steps are not those of as many epochs.
    """
    epoch = state.epoch or 0.0
    if epoch.is_integer() and epoch * steps_per_epoch != state.global_step:
        raise InputError(
            f"The checkpoint has {state.global_step / max(epoch, 1):g} steps an epoch, and this training "
            f"{steps_per_epoch}: let the product of batch size, gradient_accumulation_steps and processes be "
            "what it was."
        )


def find_best(state: TrainerState, folders: Sequence[str | os.PathLike[str]]) -> None:
    """Find the checkpoint of the best step in the first of some folders that has it.

    By its name: the folder may have been moved since, or come from a stranger.
    """
    step = state.best_global_step
    near = [Path(folder) / f"checkpoint-{step}" for folder in folders]
    state.best_model_checkpoint = next((str(p) for p in near if step is not None and p.is_dir()), None)


@contextmanager
def writable(folder: str | os.PathLike[str]) -> Iterator[None]:
    """Inside, torch's and safetensors' ways to report a full disk become an ``OSError``."""
    try:
        yield
    except (RuntimeError, SafetensorError) as error:
        reason = str(error).strip().partition("\n")[0]
        raise OSError(f"Cannot write a checkpoint into {folder}: {reason}") from error
