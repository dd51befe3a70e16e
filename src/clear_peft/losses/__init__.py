"""Logits, labels and teachers in, per-example losses out."""

from clear_peft.losses.base import Loss
from clear_peft.losses.functional import (
    binary_cross_entropy,
    consistency,
    cross_entropy,
    generalized_cross_entropy,
    smoothed_cross_entropy,
    soft_cross_entropy,
    symmetric_cross_entropy,
)
from clear_peft.losses.registry import LOSSES, make_loss
from clear_peft.losses.stateless import BinaryCrossEntropy

__all__ = [
    "LOSSES",
    "BinaryCrossEntropy",
    "Loss",
    "binary_cross_entropy",
    "consistency",
    "cross_entropy",
    "generalized_cross_entropy",
    "make_loss",
    "smoothed_cross_entropy",
    "soft_cross_entropy",
    "symmetric_cross_entropy",
]
