"""Labels in, corrupted labels out: reproducible label noise whose realised amount is always reported."""

from clear_peft.noise.class_conditional import class_map, pair_flip, symmetric, transition
from clear_peft.noise.corruption import Corruption
from clear_peft.noise.instance_dependent import instance_dependent
from clear_peft.noise.spec import KINDS, NoiseSpec, corrupt

__all__ = [
    "KINDS",
    "Corruption",
    "NoiseSpec",
    "class_map",
    "corrupt",
    "instance_dependent",
    "pair_flip",
    "symmetric",
    "transition",
]
