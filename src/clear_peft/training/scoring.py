"""The scoring pass: every training example once, without gradient, in evaluation mode."""

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader

from clear_peft.objectives import cross_entropy
from clear_peft.training.indexing import ID_COLUMN


@torch.no_grad()
def score(
    model: nn.Module,
    dataset: Any,
    collate: Callable,
    labels: np.ndarray,
    num_classes: int,
    *,
    batch_size: int,
    lengths: np.ndarray | None,
    prepare: Callable[[dict[str, Any]], dict[str, Any]],
    rank: int = 0,
    world_size: int = 1,
    reduce: Callable[[Tensor], Tensor] = lambda tensor: tensor,
) -> tuple[np.ndarray, np.ndarray]:
    """Losses under the given labels and logits, in the order of the dataset.

    Draws no random number, so that training with the pass and without are the same training. Each rank
    scores its share of the batches and writes it to its places; the sum over ranks is the whole.

    Args:
        model: The model; its mode is restored afterwards.
        dataset: Map-style, items with ``clear_example_id``.
        collate: Collator that keeps the ids.
        labels: Given labels, (N,) int64.
        num_classes: C.
        batch_size: Examples per forward.
        lengths: Token counts (N,), to batch examples of like length; None keeps the order.
        prepare: Moves a batch to the device.
        rank: This process.
        world_size: Number of processes.
        reduce: Sums a tensor over processes.

    Returns:
        Losses (N,) float32 and logits (N, C) float32; both NaN nowhere.
    """
    order = np.arange(len(labels)) if lengths is None else np.argsort(lengths, kind="stable")
    batches = [order[i : i + batch_size].tolist() for i in range(0, len(order), batch_size)][rank::world_size]
    # a generator of its own: a loader takes its seed from the global one otherwise
    loader = DataLoader(dataset, batch_sampler=batches, collate_fn=collate, generator=torch.Generator())
    logits = torch.zeros(len(labels), num_classes)
    was_training = model.training
    model.eval()
    try:
        for ids, batch in _without_labels(loader, prepare):
            logits[ids] = model(**batch).logits.float().cpu()
    finally:
        model.train(was_training)
    logits = reduce(logits)
    losses = cross_entropy(logits, torch.from_numpy(labels))
    return losses.numpy(), logits.numpy()


def _without_labels(
    loader: DataLoader, prepare: Callable[[dict[str, Any]], dict[str, Any]]
) -> Iterator[tuple[Tensor, dict[str, Any]]]:
    for batch in loader:
        inputs = {k: v for k, v in batch.items() if k not in (ID_COLUMN, "labels")}
        yield batch[ID_COLUMN], prepare(inputs)
