"""Logits, labels and teachers in, per-example losses out."""

from clear_peft.objectives.losses import consistency, cross_entropy, soft_cross_entropy

__all__ = ["consistency", "cross_entropy", "soft_cross_entropy"]
