"""Logits, labels and teachers in, per-example losses out."""

from clear_peft.losses.base import Objective
from clear_peft.losses.functional import (
    consistency,
    cross_entropy,
    generalized_cross_entropy,
    smoothed_cross_entropy,
    soft_cross_entropy,
    symmetric_cross_entropy,
)
from clear_peft.losses.registry import OBJECTIVES, make_objective

__all__ = [
    "OBJECTIVES",
    "Objective",
    "consistency",
    "cross_entropy",
    "generalized_cross_entropy",
    "make_objective",
    "smoothed_cross_entropy",
    "soft_cross_entropy",
    "symmetric_cross_entropy",
]
