"""A Trainer that saves and restores adapters of every kind that this package trains."""

from typing import Any

from peft import PeftModel
from torch import nn
from transformers import Trainer

from clear_peft.tuners import BottleneckModel
from clear_peft.tuners.loading import restore_adapter


class AdapterTrainer(Trainer):
    """Transformers' Trainer; a model without an adapter is left to it altogether."""

    @property
    def _has_adapter(self) -> bool:
        """Whether weights are loaded by us: peft's loading would also make all it loads trainable."""
        return isinstance(self.model, PeftModel | BottleneckModel)

    def _save(self, output_dir: str | None = None, state_dict: dict | None = None) -> None:
        if not isinstance(self.model, BottleneckModel):
            return super()._save(output_dir, state_dict)
        if self.args.should_save:
            folder = output_dir or self.args.output_dir
            self.model.save_pretrained(folder, state_dict=state_dict)
            if self.processing_class is not None:
                self.processing_class.save_pretrained(folder)
        return None

    def _load_from_checkpoint(self, resume_from_checkpoint: str, model: nn.Module | None = None) -> None:
        if self._has_adapter:
            restore_adapter(self.model, resume_from_checkpoint)
        else:
            super()._load_from_checkpoint(resume_from_checkpoint, model)

    def _load_best_model(self) -> None:
        if self._has_adapter:
            restore_adapter(self.model, self.state.best_model_checkpoint)
        else:
            super()._load_best_model()

    def _determine_best_metric(self, metrics: dict[str, float], trial: Any) -> bool:
        """Transformers' own, but of equal epochs the latest."""
        name = f"eval_{(self.args.metric_for_best_model or '').removeprefix('eval_')}"
        if self.state.best_metric is not None and metrics.get(name) == self.state.best_metric:
            self.state.best_global_step = self.state.global_step
            return True
        return super()._determine_best_metric(metrics, trial)
