"""A tiny model, a tiny training set of token ids, and a trainer for them."""

import copy
from dataclasses import dataclass
from typing import Any

import numpy as np
import peft
import torch
from datasets import Dataset

from clear_peft.label_quality import MixtureEstimate
from clear_peft.trainer import CleaRConfig, CleaRTrainer
from clear_peft.trainer.columns import ID_COLUMN
from tiny_models import tiny

# peft says so of GPT-2, whatever its configuration
CONV1D = "ignore:fan_in_fan_out is set to False:UserWarning"


def rows(size: int = 22, seed: int = 0, length: int = 6) -> Dataset:
    """Three classes, each with a token of its own among random ones."""
    generator = np.random.default_rng(seed)
    labels = np.arange(size) % 3
    ids = generator.integers(10, 90, (size, length))
    ids[:, 1] = 3 + labels
    return Dataset.from_dict(
        {"input_ids": ids.tolist(), "attention_mask": np.ones_like(ids).tolist(), "labels": labels}
    )


def model(architecture: str = "bert") -> Any:
    base, _ = tiny(architecture)
    torch.manual_seed(0)
    config = peft.LoraConfig(
        task_type="SEQ_CLS",
        target_modules="all-linear",
        r=4,
        lora_dropout=0.1,
        init_lora_weights="gaussian",
    )
    return peft.get_peft_model(base, config)


def model_without_dropout() -> Any:
    made = model()
    for module in made.modules():
        if isinstance(module, torch.nn.Dropout):
            module.p = 0.0
    return made


@dataclass
class Constant:
    """An estimator that believes every label alike, and remembers what it was given."""

    probability: float
    seen: list[np.ndarray] | None = None

    def estimate(self, losses, labels=None):
        self.seen = [*(self.seen or []), losses]
        p = np.full(len(losses), self.probability, np.float32)
        return MixtureEstimate(p, 2, {})


def trainer(
    tmp_path,
    *,
    start=None,
    train_dataset=None,
    by=None,
    callbacks=None,
    eval_dataset=None,
    compute_metrics=None,
    **settings,
):
    defaults = {
        "output_dir": str(tmp_path),
        "num_train_epochs": 3,
        "per_device_train_batch_size": 4,
        "gradient_accumulation_steps": 2,
        "learning_rate": 1e-2,
        "use_cpu": True,
        "save_strategy": "no",
        "report_to": "none",
        "disable_tqdm": True,
        "dataloader_pin_memory": False,
        "warm_up_epochs": 1,
        "restart": False,
        "probe_init": False,
        "ema_epochs": 0.0,
        "reestimate_every_epoch": True,
        "label_estimator": "losses",
    }
    return CleaRTrainer(
        model=copy.deepcopy(start) if start is not None else model(),
        args=CleaRConfig(**{**defaults, **settings}),
        train_dataset=rows() if train_dataset is None else train_dataset,
        eval_dataset=eval_dataset,
        mixture=by,
        callbacks=callbacks,
        compute_metrics=compute_metrics,
    )


def trained(tmp_path, **settings):
    made = trainer(tmp_path, **settings)
    made.train()
    return made


def sampled(made):
    """The rows of the next epoch, in their order."""
    return [int(i) for batch in made.get_train_dataloader() for i in batch[ID_COLUMN]]


def weights(made):
    return {n: p.detach().clone() for n, p in made.model.named_parameters() if p.requires_grad}


def is_lora(name):
    return "lora_" in name
