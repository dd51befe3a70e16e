"""What this room takes of peft and transformers that they do not document, or have renamed."""

from typing import Any

from peft.tuners.lora import LoraLayer
from peft.tuners.tuners_utils import BaseTunerLayer
from peft.utils.other import ModulesToSaveWrapper
from torch import nn
from transformers.modeling_layers import GradientCheckpointingLayer

__all__ = [
    "CACHES",
    "LIFTED",
    "NEVER_TAPPED",
    "BaseTunerLayer",
    "GradientCheckpointingLayer",
    "ModulesToSaveWrapper",
    "adds_bias",
    "terms",
]

# What an attention calls its cache: until transformers 5.23, and since.
CACHES = {"past_key_values", "cache"}

# Classes, by their names.
# Modules that use one projection for the batch and for something that is not the batch (relative
# positions), and so have to be gated as a whole.
LIFTED = {"DisentangledSelfAttention"}
# Layers that never call their base layer (the last two warn of the hook), or call it with a tuned weight.
NEVER_TAPPED = {"ParamWrapper", "ModulesToSaveWrapper", "ShiraLayer", "SupertuningLayer"}
# Layers whose output is that of the base layer, plus B(A(x)) or what a variant of LoRA adds.
_LORA = {"Linear", "Linear4bit", "Linear8bitLt"}


def terms(layer: Any) -> list[nn.Module] | None:
    """The modules of a tuner layer without which it adds nothing: where they return zeros, so does its sum.

    Of LoRA it is A, whose output is the smallest; or B, if it has a bias. Of DoRA and of bottleneck adapters
    it is what computes the whole sum.

    Returns:
        A module for each adapter, or None: other layers do not add to the output of their base layer, or
        not only so.
    """
    if hasattr(layer, "bottleneck_up"):
        return list(layer.bottleneck_up.values())
    if not isinstance(layer, LoraLayer) or type(layer).__name__ not in _LORA:
        return None
    found: list[nn.Module] = []
    for name, first in layer.lora_A.items():
        variant = layer.lora_variant.get(name)
        if variant is None:
            found.append(first if layer.lora_B[name].bias is None else layer.lora_B[name])
        elif type(variant).__name__ == "DoraLinearVariant":
            found.append(layer.lora_magnitude_vector[name])
        else:
            return None
    return found


def adds_bias(layer: nn.Module) -> bool:
    """Whether a layer adds a vector to the output of its base layer (BEFT, which peft has since 0.20)."""
    return any(kind.__name__ == "BeftLayer" for kind in type(layer).__mro__)
