"""The scoring pass: every example once, without gradient, in evaluation mode."""

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader

from clear_peft.training.indexing import ID_COLUMN


@torch.no_grad()
def predict_logits(
    model: nn.Module,
    dataset: Any,
    collate: Callable,
    num_classes: int,
    *,
    batch_size: int,
    lengths: np.ndarray | None,
    prepare: Callable[[dict[str, Any]], dict[str, Any]],
    rank: int = 0,
    world_size: int = 1,
) -> Tensor:
    """Logits of a dataset, in its order.

    Draws no random number, so that training with scoring passes and without are the same training. Each
    rank fills the places of its share of the batches and leaves zeros elsewhere: the sum over ranks is the
    whole, whatever their number.

    Args:
        model: The model; its mode is restored afterwards.
        dataset: Map-style, N items with ``clear_example_id`` (see ``with_ids``).
        collate: Collator that keeps the ids.
        num_classes: C.
        batch_size: Examples per forward.
        lengths: Token counts (N,), to batch examples of like length; None keeps the order.
        prepare: Moves a batch to the device.
        rank: This process. Default 0.
        world_size: Number of processes. Default 1.

    Returns:
        (N, C) float32 on the CPU.
    """
    size = len(dataset)
    order = np.arange(size) if lengths is None else np.argsort(lengths, kind="stable")
    batches = [order[i : i + batch_size].tolist() for i in range(0, size, batch_size)][rank::world_size]
    # a generator of its own: a loader takes its seed from the global one otherwise
    loader = DataLoader(dataset, batch_sampler=batches, collate_fn=collate, generator=torch.Generator())
    logits = torch.zeros(size, num_classes)
    was_training = model.training
    model.eval()
    try:
        for batch in loader:
            inputs = prepare({k: v for k, v in batch.items() if k not in (ID_COLUMN, "labels")})
            logits[batch[ID_COLUMN]] = model(**inputs).logits.float().cpu()
    finally:
        model.train(was_training)
    return logits
