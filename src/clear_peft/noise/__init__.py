"""Labels in, corrupted labels out: reproducible label noise whose realised amount is always reported."""

from clear_peft.noise.class_conditional import pair_flip, symmetric, transition
from clear_peft.noise.corruption import Corruption

__all__ = ["Corruption", "pair_flip", "symmetric", "transition"]
