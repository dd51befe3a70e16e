"""What a training step minimises."""

from typing import Any

import numpy as np
import torch
from torch import Tensor

from clear_peft.losses import Loss, consistency
from clear_peft.trainer.config import CleaRConfig
from clear_peft.trainer.phases import Phase
from clear_peft.trainer.store import Rows


def class_weights(rows: Rows, num_labels: int, args: CleaRConfig) -> Tensor | None:
    """How much a row of each class counts, (C,) float32; None: all count alike.

    ``balanced`` is scikit-learn's: the number of rows over that of the classes that occur and of the class.
    """
    if args.class_weights == "none":
        return None
    counts = np.bincount(rows.labels, minlength=num_labels)
    weights = len(rows) / (np.count_nonzero(counts) * np.maximum(counts, 1))
    return torch.tensor(weights, dtype=torch.float32, device=args.device)


def per_example_loss(trainer: Any, hard_loss: Loss, logits: Tensor, labels: Tensor, ids: Tensor) -> Tensor:
    """The loss of each example of a batch, (B,) float32.

    Under the given label, as its class counts; once noise is found under the soft label, where
    ``soft_labels`` says so, and with λ times the cross entropy to what was predicted when the labels were
    estimated.

    Args:
        trainer: A ``CleaRTrainer``.
        hard_loss: Of examples under their given labels.
        logits: (B, C).
        labels: Given labels, (B,) int64.
        ids: Positions in the training set, (B,) int64.
    """
    robust, args, store = trainer.phase is Phase.ROBUST, trainer.args, trainer.store
    if robust and args.soft_labels:
        loss = trainer.task.soft_loss(logits, store.soft_labels(labels, ids))
        if store.loss_weights is not None:
            loss = loss * store.loss_weights[ids]
    else:
        loss = hard_loss(logits, labels, ids, epoch=trainer.state.epoch or 0.0)
        if trainer.class_weights is not None:
            loss = loss * trainer.class_weights[labels]
    if robust and args.consistency_weight:
        agreement = consistency(logits, store.predicted_logits(ids), args.consistency_temperature)
        loss = loss + args.consistency_weight * agreement
    return loss
