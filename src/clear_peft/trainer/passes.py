"""Passes over a dataset: every example once, without gradient, in evaluation mode."""

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader

from clear_peft.cpu import faster
from clear_peft.data.token_rows import ranges
from clear_peft.data.word_tokens import NO_LABEL
from clear_peft.routing import Router
from clear_peft.trainer.columns import ID_COLUMN


def predict_logits(
    model: nn.Module,
    dataset: Any,
    collate: Callable,
    *,
    router: Router | None = None,
    step: int = 0,
    **options: Any,
) -> Tensor:
    """Logits of a dataset, in its order.

    Args:
        model: The model; its mode is restored afterwards.
        dataset: Map-style, N items with ``clear_example_id`` (see ``with_ids``).
        collate: Collator that keeps the ids.
        router: Whose gates are drawn with probability γ. Default: all PEFT modules are on.
        step: Of the draw.
        **options: As for ``pass_over``.

    Returns:
        (N, C) float32 on the CPU; with ``sizes``, of each word.
    """

    def read(inputs: dict[str, Any], ids: Tensor) -> Tensor:
        if router is None:
            return model(**inputs).logits
        ids = ids.to(next(iter(inputs.values())).device)
        # other gates than those of a training step with this number
        with router.route(torch.ones_like(ids, dtype=torch.float32), example_ids=~ids, step=step):
            return model(**inputs).logits

    return pass_over(read, model, dataset, collate, **options)


def hidden_features(
    model: nn.Module,
    dataset: Any,
    collate: Callable,
    *,
    sizes: np.ndarray | None = None,
    **options: Any,
) -> Tensor | None:
    """What a model makes of each example below its head: means of the hidden states of its tokens.

    Of words, the hidden states of the tokens that have their labels, which the head reads.

    Args:
        model: The model; its mode is restored afterwards.
        dataset: Map-style, N items with ``clear_example_id`` (see ``with_ids``).
        collate: Collator that keeps the ids.
        sizes: As for ``pass_over``.
        **options: As for ``pass_over``.

    Returns:
        (N, V, D) float32 on the CPU, with ``sizes`` of each word, of an encoder-decoder by its encoder: of
        the layer in the middle, the last but one and the last, as far as these are different; None where a
        model gives out no hidden states of shape (B, T, D).
    """

    def embed(inputs: dict[str, Any], _: Tensor) -> Tensor:
        first = next(iter(inputs.values()))
        outputs = model(**inputs, output_hidden_states=True)
        states = outputs.get("hidden_states") or outputs.get("encoder_hidden_states") or ()
        if not states or any(state.dim() != 3 for state in states):
            return torch.zeros(*first.shape[: 1 if sizes is None else 2], 0, 0)
        layers = [states[i] for i in probed_layers(len(states))]
        if sizes is not None:
            return torch.stack(layers, dim=2)
        mask = inputs.get("attention_mask")
        return torch.stack([mean_of_tokens(layer, mask) for layer in layers], dim=1)

    features = pass_over(embed, model, dataset, collate, sizes=sizes, **options)
    return features if features.shape[1] else None


def probed_layers(states: int) -> list[int]:
    """Which of so many hidden states (the embeddings and every layer's) are probed, ascending."""
    last = states - 1
    return sorted({last // 2, max(last - 1, 0), last})


def mean_of_tokens(hidden: Tensor, mask: Tensor | None) -> Tensor:
    """Mean over the tokens that are no padding, (B, T, D) → (B, D) float32."""
    hidden = hidden.float()
    if mask is None or mask.shape != hidden.shape[:2]:
        return hidden.mean(dim=1)
    real = mask.unsqueeze(-1).to(hidden)
    return (hidden * real).sum(dim=1) / real.sum(dim=1).clamp(min=1)


@torch.no_grad()
def pass_over(
    read: Callable[[dict[str, Any], Tensor], Tensor],
    model: nn.Module,
    dataset: Any,
    collate: Callable,
    *,
    batch_size: int,
    lengths: np.ndarray | None,
    prepare: Callable[[dict[str, Any]], dict[str, Any]],
    rows: np.ndarray | None = None,
    sizes: np.ndarray | None = None,
    dtype: torch.dtype = torch.float32,
    rank: int = 0,
    world_size: int = 1,
) -> Tensor:
    """What a model makes of each example of a dataset, or of some of them, in its order.

    Draws no random number, so that training with such passes and without are the same training. Each
    rank fills the places of its share of the batches and leaves zeros elsewhere: the sum over ranks is the
    whole, whatever their number.

    Args:
        read: Runs the model on a batch of inputs, (B, …), of these ids, (B,), and gives (B, …); with
            ``sizes`` (B, T, …).
        model: The model; its mode is restored afterwards.
        dataset: Map-style, items with ``clear_example_id`` (see ``with_ids``).
        collate: Collator that keeps the ids.
        batch_size: Examples per forward.
        lengths: Token counts of all items, to batch examples of like length; None keeps the order.
        prepare: Moves a batch to the device.
        rows: Ids of the N items to read, ascending. Default all.
        sizes: Words of each of all items: tokens whose label is not -100. What is read of these is kept then,
            item after item. Default: items are not taken apart.
        dtype: Of the result. Default float32.
        rank: This process. Default 0.
        world_size: Number of processes. Default 1.

    Returns:
        (N, …) on the CPU; with ``sizes`` (W, …), a row for each word.
    """
    rows = np.arange(len(dataset)) if rows is None else rows
    size, each = len(rows), np.ones(len(rows), np.int64) if sizes is None else sizes[rows]
    starts = np.cumsum(each) - each
    order = rows if lengths is None else rows[np.argsort(lengths[rows], kind="stable")]
    every = [order[i : i + batch_size].tolist() for i in range(0, size, batch_size)]
    own = every[rank::world_size]
    # as many batches on every rank, since a forward of sharded weights waits for all of them
    idle = len(every[::world_size]) - len(own)
    # a generator of its own: a loader takes its seed from the global one otherwise
    loader = DataLoader(
        dataset, batch_sampler=own + every[:idle], collate_fn=collate, generator=torch.Generator()
    )
    found: Tensor | None = None
    was_training, quick = model.training, faster(next(model.parameters()).device.type)
    model.eval()
    try:
        for number, batch in enumerate(loader):
            inputs = prepare({k: v for k, v in batch.items() if k not in (ID_COLUMN, "labels")})
            with quick:
                part = read(inputs, batch[ID_COLUMN])
            if sizes is not None:
                part = part[batch["labels"].to(part.device) != NO_LABEL]
            part = part.to("cpu", dtype)
            if found is None:
                found = torch.zeros(int(each.sum()), *part.shape[1:], dtype=dtype)
            if number < len(own):
                place = np.searchsorted(rows, batch[ID_COLUMN].numpy())
                found[ranges(starts[place], each[place])] = part
    finally:
        model.train(was_training)
    assert found is not None  # no dataset is empty
    return found
