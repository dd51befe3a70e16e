"""Where the parts of a transformers classification model are: its blocks, pooler and head."""

from collections.abc import Iterable
from typing import Any

from torch import nn
from transformers.modeling_utils import PreTrainedModel

from clear_peft.errors import InputError
from clear_peft.tuners.internals import Conv1D, GradientCheckpointingLayer


def head_names(model: PreTrainedModel) -> list[str]:
    """Return the names of the classification head's modules.

    The head is every child with parameters beside the backbone: `classifier` in BERT, but also what
    peft leaves frozen although it is untrained, such as ModernBERT's `head`, T5's `classification_head`
    and DeBERTa's `pooler`.

    Args:
        model: A transformers model with a classification head.

    Returns:
        Names of direct children, in the order of the model.

    Raises:
        InputError: The model is no transformers model, or none of its heads ends in `num_labels` outputs.
    """
    if not isinstance(model, PreTrainedModel):
        raise InputError(
            f"An adapter needs a transformers model, and this is a {type(model).__name__}: load one with "
            "AutoModelForSequenceClassification.from_pretrained."
        )
    backbone = model.base_model
    names = [
        name
        for name, child in model.named_children()
        if backbone is not model and child is not backbone and next(child.parameters(), None) is not None
    ]
    widths = {
        module.out_features
        for name in names
        for module in model.get_submodule(name).modules()
        if isinstance(module, nn.Linear)
    }
    if model.config.num_labels not in widths:
        raise InputError(
            f"{type(model).__name__} has no classification head with {model.config.num_labels} outputs: load "
            "it with AutoModelForSequenceClassification.from_pretrained(..., num_labels=...)."
        )
    return names


def labels_tokens(model: Any) -> bool:
    """Whether a model gives each token logits of its own (``AutoModelForTokenClassification``).

    Args:
        model: Any, with or without an adapter.
    """
    base = model.get_base_model() if hasattr(model, "get_base_model") else model
    return type(base).__name__.endswith("ForTokenClassification")


def pooler_names(model: PreTrainedModel) -> list[str]:
    """Return the full names of the modules called `pooler` that have parameters (none in most models)."""
    return [
        name
        for name, module in model.named_modules()
        if name.rpartition(".")[2] == "pooler" and next(module.parameters(), None) is not None
    ]


def block_modules(model: PreTrainedModel) -> dict[str, nn.Module]:
    """Return every module inside the transformer blocks by its full name.

    A block is a `GradientCheckpointingLayer`, which is how transformers marks the layers of a stack, or,
    in the few models without one (MPNet), an entry of a `ModuleList`.
    """
    modules = dict(model.named_modules())
    blocks = [name for name, module in modules.items() if isinstance(module, GradientCheckpointingLayer)]
    if not blocks:
        lists = [name for name, module in modules.items() if isinstance(module, nn.ModuleList)]
        blocks = [name for name in modules if name.rpartition(".")[0] in lists]
    return {
        name: module
        for name, module in modules.items()
        if any(name.startswith(f"{block}.") for block in blocks)
    }


def projection_names(model: PreTrainedModel) -> list[str]:
    """Return the short names of the linear layers in the blocks, sorted: what `target_modules` can name."""
    return sorted(
        {
            name.rpartition(".")[2]
            for name, module in block_modules(model).items()
            if isinstance(module, (nn.Linear, Conv1D))
        }
    )


def is_named(name: str, ends: Iterable[str]) -> bool:
    """Whether the full name of a module is, or ends in, one of some names."""
    return any(f".{name}".endswith(f".{end}") for end in ends)
