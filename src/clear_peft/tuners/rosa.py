"""RoSA (Nikdan et al. 2024, arXiv 2401.04679): W = W0 + (alpha/r)·B·A + S, with S sparse on a fixed support.

peft's Supertuning stores exactly that: values at flat indices, which are saved, and with `r` a low-rank half.
Its own support are the largest weights; RoSA's are the entries of largest gradient, and it is chosen in
training (`clear_peft.trainer.tuning.rosa`). Saved, the adapter is an ordinary Supertuning adapter.
"""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from clear_peft.tuners.internals import BaseTunerLayer

_NAME = "default"


def sparse_layers(model: nn.Module) -> list[Any]:
    """The adapted layers of a RoSA model, in the order of its modules."""
    adapted = (module for module in model.modules() if isinstance(module, BaseTunerLayer))
    return [layer for layer in adapted if hasattr(layer, "supertuning_values")]


def base_weights(model: nn.Module) -> list[nn.Parameter]:
    """The frozen weights W0 of the adapted layers, (out, in) each."""
    return [layer.get_base_layer().weight for layer in sparse_layers(model)]


def sparse_values(model: nn.Module) -> list[nn.Parameter]:
    """The trained entries of S, (k,) float32 of each adapted layer."""
    return [layer.supertuning_values[_NAME] for layer in sparse_layers(model)]


def accumulate(scores: Sequence[Tensor], gradients: Sequence[Tensor], mask_score: str) -> None:
    """Add the gradients of a batch, (out, in) each, or their squares (`mean_squared`), to sums in float32."""
    for score, gradient in zip(scores, gradients, strict=True):
        gradient = gradient.float()
        score += gradient.square() if mask_score == "mean_squared" else gradient


def support(scores: Tensor, size: int) -> Tensor:
    """Flat positions of the largest absolute scores, (out, in) → (size,) int32, ascending."""
    chosen = torch.topk(scores.abs().flatten(), size).indices
    return chosen.sort().values.to(torch.int32)


@torch.no_grad()
def set_supports(model: nn.Module, scores: Sequence[Tensor]) -> None:
    """Give each sparse half the entries of largest absolute score; its values begin at zero.

    Args:
        model: A RoSA model.
        scores: Of the entries of each layer's weight, (out, in).
    """
    for layer, score in zip(sparse_layers(model), scores, strict=True):
        values = layer.supertuning_values[_NAME]
        layer.supertuning_indices[_NAME].copy_(support(score, values.numel()))
        values.zero_()
