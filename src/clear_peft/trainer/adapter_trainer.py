"""A Trainer that saves and restores adapters of every kind that this package trains."""

import pickle
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from peft import PeftModel
from safetensors import SafetensorError
from torch import nn
from transformers import Trainer
from transformers.trainer import TRAINER_STATE_NAME

from clear_peft.errors import InputError
from clear_peft.trainer.trainer_state import check_trainer_state
from clear_peft.tuners import BottleneckModel
from clear_peft.tuners.loading import restore_adapter

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


class AdapterTrainer(Trainer):
    """Transformers' Trainer; a model without an adapter is left to it altogether."""

    @property
    def _has_adapter(self) -> bool:
        """Whether weights are loaded by us: peft's loading would also make all it loads trainable."""
        return isinstance(self.model, PeftModel | BottleneckModel)

    @property
    def _metric(self) -> str:
        """Name in the log of what epochs are compared by."""
        return f"eval_{(self.args.metric_for_best_model or '').removeprefix('eval_')}"

    def _save(self, output_dir: str | None = None, state_dict: dict | None = None) -> None:
        if not isinstance(self.model, BottleneckModel):
            return super()._save(output_dir, state_dict)
        if self.args.should_save:
            folder = output_dir or self.args.output_dir
            self.model.save_pretrained(folder, state_dict=state_dict)
            tokenizer = self.processing_class or getattr(self.data_collator, "tokenizer", None)
            if tokenizer is not None:
                tokenizer.save_pretrained(folder)
        return None

    def _load_from_checkpoint(self, resume_from_checkpoint: str, model: nn.Module | None = None) -> None:
        if self._has_adapter:
            restore_adapter(self.model, resume_from_checkpoint)
        else:
            with _readable(resume_from_checkpoint):
                super()._load_from_checkpoint(resume_from_checkpoint, model)

    def _init_training_state(self, *args: Any) -> tuple[int, int]:
        checkpoint = args[3]
        with _readable(self.args.output_dir):
            if checkpoint is not None:
                check_trainer_state(Path(checkpoint) / TRAINER_STATE_NAME, self._metric)
            done = super()._init_training_state(*args)
        best = self.state.best_model_checkpoint
        if best is not None:  # by its name: the folder may have been moved, or come from a stranger
            folders = self.args.output_dir, Path(checkpoint).parent
            near = [Path(folder) / Path(best).name for folder in folders]
            self.state.best_model_checkpoint = next((str(path) for path in near if path.is_dir()), None)
        return done

    def _load_optimizer_and_scheduler(self, checkpoint: str | None) -> None:
        with _readable(checkpoint):
            super()._load_optimizer_and_scheduler(checkpoint)

    def _load_scaler(self, checkpoint: str | None) -> None:
        with _readable(checkpoint):
            super()._load_scaler(checkpoint)

    def _load_rng_state(self, checkpoint: str | None) -> None:
        with _readable(checkpoint):
            super()._load_rng_state(checkpoint)

    def _save_checkpoint(self, model: nn.Module, trial: Any) -> None:
        try:
            super()._save_checkpoint(model, trial)
        except (RuntimeError, SafetensorError) as error:  # how torch and safetensors report a full disk
            reason = str(error).strip().partition("\n")[0]
            raise OSError(f"Cannot write a checkpoint into {self.args.output_dir}: {reason}") from error

    def _load_best_model(self) -> None:
        if self._has_adapter:
            restore_adapter(self.model, self.state.best_model_checkpoint)
        else:
            super()._load_best_model()

    def _determine_best_metric(self, metrics: dict[str, float], trial: Any) -> bool:
        """Transformers' own, but of equal epochs the latest."""
        if self.state.best_metric is not None and metrics.get(self._metric) == self.state.best_metric:
            self.state.best_global_step = self.state.global_step
            return True
        return super()._determine_best_metric(metrics, trial)


@contextmanager
def _readable(checkpoint: str | None) -> Iterator[None]:
    try:
        yield
    except InputError:
        raise
    except _DAMAGE as error:
        refused = isinstance(error, pickle.UnpicklingError)  # torch tells how to run it anyway
        reason = "no plain tensors" if refused else str(error).strip().partition("\n")[0][:200]
        raise InputError(
            f"{checkpoint} holds a damaged checkpoint ({reason}): delete it, to resume from an earlier one "
            "or to begin anew."
        ) from error
