"""Base models in half precision, or quantized: what can be trained on them, and in which precision."""

from typing import Any

import torch
from torch import Tensor, nn
from transformers.modeling_utils import PreTrainedModel

from clear_peft.errors import InputError
from clear_peft.tuners.anatomy import head_names, pooler_names
from clear_peft.tuners.catalogue import ON_QUANTIZED

_HALF = (torch.float16, torch.bfloat16)


def prepare_base(model: PreTrainedModel) -> None:
    """Make a base model in half precision, or a quantized one, ready for an adapter; others stay as they are.

    Head and pooler of a model in half precision compute in float32, as adapters do. peft trains an adapter in
    float32 on any base, but copies what is trained as a whole in the precision of the base: in bf16, with 8
    bits of precision, small steps would be lost.

    4-bit layers stay on a CPU what they are in training. Where it has AVX-512 BF16, a layer of bitsandbytes
    0.50 packs its weights anew in its first forward without a gradient. From then on a kernel computes it
    that no gradient passes, also in training, with rounded scales, and for some widths alone.

    Args:
        model: A transformers classification model without adapters, changed in place.
    """
    for module in model.modules():
        if hasattr(module, "support_avx512bf16_for_cpu"):
            module.support_avx512bf16_for_cpu = False
    if model.dtype not in _HALF:
        return
    for name in (*head_names(model), *pooler_names(model)):
        part = model.get_submodule(name).float()
        part.register_forward_pre_hook(_in_float32)


def _in_float32(_module: nn.Module, inputs: tuple[Any, ...]) -> tuple[Any, ...]:
    return tuple(x.float() if isinstance(x, Tensor) and x.is_floating_point() else x for x in inputs)


def check_quantization(model: PreTrainedModel, method: str) -> None:
    """Refuse a method that computes with the weights of a base model which are quantized.

    Raises:
        InputError: If the base model is.
    """
    for quantization, methods in ON_QUANTIZED.items():
        if getattr(model, f"is_loaded_in_{quantization}", False) and method not in methods:
            raise InputError(
                f"{method} does not go with {quantization} weights: choose from {', '.join(methods)}, or "
                "load the model without quantization."
            )


def check_trained_in_float32(model: nn.Module, method: str) -> None:
    """Refuse to train weights of the base model itself, or copies of them, that are in half precision.

    Raises:
        InputError: If there are such.
    """
    for name, parameter in model.named_parameters():
        if parameter.requires_grad and parameter.dtype in _HALF:
            kind = str(parameter.dtype).removeprefix("torch.")
            raise InputError(
                f"{method} would train {name} in {kind}, where small steps are lost: load the model in "
                "float32, or use lora or adapter, without modules_to_save."
            )
