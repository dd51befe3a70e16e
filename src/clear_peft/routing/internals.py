"""What this room takes of peft and transformers that they do not document, or have renamed."""

from peft.tuners.tuners_utils import BaseTunerLayer
from peft.utils.other import ModulesToSaveWrapper
from transformers.modeling_layers import GradientCheckpointingLayer

__all__ = [
    "BIASES",
    "CACHES",
    "LIFTED",
    "NEVER_TAPPED",
    "BaseTunerLayer",
    "GradientCheckpointingLayer",
    "ModulesToSaveWrapper",
]

# What an attention calls its cache: until transformers 5.23, and since.
CACHES = {"past_key_values", "cache"}

# Classes, by their names.
# Modules that use one projection for the batch and for something that is not the batch (relative
# positions), and so have to be gated as a whole.
LIFTED = {"DisentangledSelfAttention"}
# Layers that never call their base layer (the last two warn of the hook), or call it with a tuned weight.
NEVER_TAPPED = {"ParamWrapper", "ModulesToSaveWrapper", "ShiraLayer", "SupertuningLayer"}
# Layers that add a vector to the output of their base layer (peft has them since 0.20).
BIASES = {"BeftLayer"}
