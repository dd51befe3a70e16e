"""What this room takes of peft and transformers that they do not document, or have renamed."""

import inspect
from typing import Any

from peft.mapping import PEFT_TYPE_TO_CONFIG_MAPPING, PEFT_TYPE_TO_TUNER_MAPPING
from peft.tuners.tuners_utils import BaseTunerLayer
from peft.utils import TRANSFORMERS_MODELS_TO_IA3_TARGET_MODULES_MAPPING as IA3_TARGETS
from peft.utils import TRANSFORMERS_MODELS_TO_LORA_TARGET_MODULES_MAPPING as LORA_TARGETS
from peft.utils.other import ModulesToSaveWrapper
from transformers.modeling_layers import GradientCheckpointingLayer
from transformers.modeling_utils import PreTrainedModel
from transformers.pytorch_utils import Conv1D

__all__ = [
    "CACHES",
    "IA3_TARGETS",
    "LORA_TARGETS",
    "PEFT_TYPE_TO_CONFIG_MAPPING",
    "PEFT_TYPE_TO_TUNER_MAPPING",
    "BaseTunerLayer",
    "Conv1D",
    "GradientCheckpointingLayer",
    "ModulesToSaveWrapper",
    "cache_name",
    "enable_checkpointing",
    "is_checkpointing",
]


# what a model and its attentions call their cache: until transformers 5.23, and since
CACHES = ("past_key_values", "cache")


def cache_name(model: PreTrainedModel) -> str | None:
    """What a model calls its cache of keys and values: ``cache`` since transformers 5.24; None: has none."""
    parameters = inspect.signature(model.base_model.forward).parameters
    return next((name for name in CACHES if name in parameters), None)


def is_checkpointing(model: PreTrainedModel) -> bool:
    """Whether activation checkpointing, gradient checkpointing before transformers 5.23, is on."""
    new, old = "is_activation_checkpointing", "is_gradient_checkpointing"
    return bool(getattr(model, new if hasattr(model, new) else old))


def enable_checkpointing(model: Any, options: dict[str, Any] | None, **kwargs: Any) -> None:
    """Switch activation checkpointing on, with what ``torch.utils.checkpoint`` is to be given."""
    known = hasattr(model, "activation_checkpointing_enable")  # since transformers 5.23
    enable = model.activation_checkpointing_enable if known else model.gradient_checkpointing_enable
    enable(options, **kwargs)
