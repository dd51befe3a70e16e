"""Adaptive Prefix Tuning (Zhang et al. 2023, arXiv 2305.15212): a prefix with gates per token and layer.

Layer i has, as in prefix tuning, m vectors before its keys and before its values. Row j of both is multiplied
by λ_i·α_ij before it is attended to, where α_i = sigmoid(h·W_i), (m,), depends on the example, and the scalar
λ_i does not. h (d,) is a hidden state that enters the layer's attention (where a norm comes before it, the
normalized one), with its gradient; W_i is (d, m), and there is no bias.

What is known of the paper does not say of which token h is, nor how W and λ begin. That it is the first token
(in a causal model, where that one sees nothing but itself, the last one), and that W = 0, so α = ½, and λ = 1
at the start, are choices of this package.

α depends on the example, so no peft configuration can hold it: the adapter is saved in files of its own
(`apt_config.json`, `apt_model.safetensors`) and loaded by `load_adapter`. To routing it is a prefix.
"""

import functools
import inspect
import os
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, Self

import torch
from peft import PrefixTuningConfig, get_peft_model
from torch import Tensor, nn
from transformers.modeling_utils import PreTrainedModel

from clear_peft.errors import InputError
from clear_peft.routing.gate_points import cached_attentions
from clear_peft.tuners.anatomy import head_names, is_named, pooler_names
from clear_peft.tuners.internals import CACHES
from clear_peft.tuners.own_format import OwnFormat
from clear_peft.tuners.prefix import PrefixModel, check_takes_prefix
from clear_peft.tuners.quiet import explained, quiet

POOLS = ("first", "mean", "last")


@dataclass(frozen=True)
class AptConfig:
    """Configuration of Adaptive Prefix Tuning.

    Attributes:
        num_virtual_tokens: Length m of the prefix.
        pool: Which hidden state the gates read: of the `first` or `last` token that is not padding, or the
            `mean` of all of them. Default `last` in causal models, else `first`.
        modules_to_save: Ends of the names of further modules that are trained and saved as a whole; by
            default the classification head and, where there is one, the pooler.
        base_model_name_or_path: Where the base model comes from; filled in by `AptModel`.
    """

    num_virtual_tokens: int = 20
    pool: str | None = None
    modules_to_save: tuple[str, ...] | None = None
    base_model_name_or_path: str | None = None


APT_FORMAT = OwnFormat(
    "apt",
    "APT adapter",
    AptConfig,
    frozenset({"prompt_encoder", "apt_token_gate", "apt_layer_gate", "modules_to_save"}),
)


@dataclass(frozen=True)
class PrefixGates:
    """What scales the prefix in one forward; it travels with the cache that holds the prefix.

    Attributes:
        token: W, (layers, d, m).
        layer: λ, (layers,).
        pool: One of `POOLS`.
        real: bool tensor (B, T), False where there is padding; None: there is none.
    """

    token: Tensor
    layer: Tensor
    pool: str
    real: Tensor | None

    def scale(self, cached: Any, index: int, hidden: Tensor) -> None:
        """Scale keys and values of a layer of the cache, (B, heads, m, size), in their dtype, not in place.

        Args:
            cached: The layer of the cache, which holds nothing but the prefix yet.
            index: Its index.
            hidden: What enters the layer's attention, (B, T, d).
        """
        gates = self.of(index, hidden).to(cached.keys.dtype)[:, None, :, None]
        cached.keys = cached.keys * gates
        cached.values = cached.values * gates

    def of(self, index: int, hidden: Tensor) -> Tensor:
        """λ·α of a layer, (B, m)."""
        weight = self.token[index]
        return self.layer[index] * torch.sigmoid(self._pooled(hidden).to(weight.dtype) @ weight)

    def _pooled(self, hidden: Tensor) -> Tensor:
        real = hidden.new_ones(hidden.shape[:2], dtype=torch.bool) if self.real is None else self.real
        if self.pool == "mean":
            share = real.to(hidden.dtype)[:, :, None]
            return (hidden * share).sum(1) / share.sum(1).clamp(min=1)
        if self.pool == "first":
            place = real.int().argmax(1)
        else:
            place = hidden.shape[1] - 1 - real.flip(1).int().argmax(1)
        return hidden[torch.arange(len(hidden), device=hidden.device), place]


class AptModel(PrefixModel):
    """A frozen transformers model with a trainable gated prefix and classification head.

    Made by `added_to`. It is peft's model of a prefix, whose configuration stays in `peft_config`, with two
    parameters more: `apt_token_gate` is W, (layers, d, m), and `apt_layer_gate` is λ, (layers,), both float32
    (float64 in a float64 model).
    """

    _method = "apt"
    apt_config: AptConfig

    @classmethod
    def added_to(cls, model: PreTrainedModel, config: AptConfig) -> Self:
        """Add a gated prefix to a model.

        Args:
            model: A transformers model for sequence classification without adapters, changed in place.
            config: The prefix's length, and what its gates read.

        Returns:
            The model, ready to be trained; its gates begin with λ = 1 and α = ½.

        Raises:
            InputError: A value is none that it can be, or the architecture takes no prefix.
        """
        check_takes_prefix(model, "apt")
        attentions = _attentions(model)
        config = _resolve(model, config, attentions)
        length, layers = config.num_virtual_tokens, len(attentions)
        prefix = PrefixTuningConfig(
            task_type="SEQ_CLS",
            num_virtual_tokens=length,
            modules_to_save=list(config.modules_to_save or ()),
        )
        with quiet(), explained(model, "apt"):
            built = get_peft_model(model, prefix)
            device = next(built.prompt_encoder.parameters()).device
            dtype = torch.float64 if model.dtype == torch.float64 else torch.float32
            token_gate = torch.zeros(layers, model.config.hidden_size, length, device=device, dtype=dtype)
        for attention in attentions:
            kind: Any = type(attention)
            attention.__class__ = _apt_class(kind)
        built.__class__ = cls
        built.apt_config = config
        built.apt_token_gate = nn.Parameter(token_gate)
        built.apt_layer_gate = nn.Parameter(torch.ones(layers, device=device, dtype=dtype))
        return built

    def _prefix(self, rows: int, attention_mask: Tensor | None) -> Any:
        cache = super()._prefix(rows, attention_mask)
        length = self.apt_config.num_virtual_tokens
        real = None if attention_mask is None else attention_mask[:, length:] > 0
        pool = self.apt_config.pool
        assert pool is not None
        cache.apt_gates = PrefixGates(self.apt_token_gate, self.apt_layer_gate, pool, real)
        return cache

    def save_pretrained(
        self, save_directory: str | os.PathLike[str], state_dict: Mapping[str, Tensor] | None = None, **_: Any
    ) -> None:
        """Write the adapter's configuration and weights into a folder; each file appears whole or not at all.

        Args:
            save_directory: Folder, made if need be.
            state_dict: The model's state dict where it has been gathered already; by default its own.
            **_: The Trainer's further arguments, which do not apply.
        """
        APT_FORMAT.save(
            save_directory, self.state_dict() if state_dict is None else state_dict, self.apt_config
        )

    def load_weights(self, folder: str | os.PathLike[str]) -> None:
        """Load the weights that `save_pretrained` has written.

        Args:
            folder: The folder.

        Raises:
            InputError: The file is missing or unreadable, or its names or shapes are not this model's.
        """
        APT_FORMAT.load(folder, self)

    @classmethod
    def from_pretrained(cls, model: PreTrainedModel, folder: str | os.PathLike[str]) -> Self:
        """Put a saved adapter on its base model, frozen and in eval mode.

        Args:
            model: The base model that the adapter was trained on, changed in place.
            folder: Folder that `save_pretrained` has written.

        Returns:
            The model with its adapter.

        Raises:
            InputError: A file is missing or unreadable, or does not fit the model.
        """
        config = APT_FORMAT.read_config(folder)
        check_takes_prefix(model, "apt")
        # before anything is made as long as the configuration says
        gate = APT_FORMAT.read_weights(folder).get("apt_token_gate")
        expected = (len(_attentions(model)), model.config.hidden_size, config.num_virtual_tokens)
        if gate is None or gate.shape != expected:
            raise APT_FORMAT.unfit(folder, f"its apt_token_gate is not of the shape {expected}")
        adapted = cls.added_to(model, config)
        adapted.load_weights(folder)
        return adapted.requires_grad_(False).eval()


def _attentions(model: PreTrainedModel) -> list[nn.Module]:
    """The attentions that the prefix is handed to, in the order of the layers of the cache."""
    attentions = {getattr(module, "layer_idx", None): module for _, module, *_ in cached_attentions(model)}
    layers = range(model.config.num_hidden_layers)
    if attentions.keys() != set(layers) or not all(
        "hidden_states" in inspect.signature(module.forward).parameters for module in attentions.values()
    ):
        raise InputError(
            f"apt does not work with {type(model).__name__}, whose layers are not one attention with a cache "
            "each: use prefix, lora or adapter."
        )
    if any("forward" in module.__dict__ for module in attentions.values()):
        raise InputError(
            f"The attentions of {type(model).__name__} have been patched (by accelerate's device_map or "
            "offloading, it seems): load the model on one device."
        )
    return [attentions[layer] for layer in layers]


def _resolve(model: PreTrainedModel, config: AptConfig, attentions: list[nn.Module]) -> AptConfig:
    """Check the values, and replace defaults and the ends of names by what they stand for."""
    length, pool = config.num_virtual_tokens, config.pool
    if type(length) is not int or length < 1:
        raise InputError(f"num_virtual_tokens is {length!r:.40}: give a whole number of at least 1.")
    if pool is None:
        pool = "last" if all(getattr(module, "is_causal", False) for module in attentions) else "first"
    if pool not in POOLS:
        raise InputError(f"pool is {pool!r:.40}: choose from {', '.join(POOLS)}.")
    ends = config.modules_to_save
    if ends is None:
        ends = (*head_names(model), *pooler_names(model))
    saved = tuple(name for name, _ in model.named_modules() if name and is_named(name, ends))
    lacking = [end for end in ends if not any(is_named(name, [end]) for name in saved)]
    if lacking:
        raise InputError(f"modules_to_save names {lacking[0]!r:.60}, which {type(model).__name__} lacks.")
    name = config.base_model_name_or_path or model.name_or_path or None
    return replace(config, pool=pool, modules_to_save=saved, base_model_name_or_path=name)


@functools.cache
def _apt_class(original: Any) -> Any:
    """The subclass of an attention's class that scales the prefix before it attends to it.

    As for the gates of routing, the class is swapped: forward hooks are ignored silently once a model of the
    same class has been compiled. Without a cache, which is the frozen path of routing, nothing is scaled.
    """
    names = [*inspect.signature(original.forward).parameters][1:]

    @functools.wraps(original.forward)
    def forward(self: Any, *args: Any, **kwargs: Any) -> Any:
        given = dict(zip(names, args, strict=False)) | kwargs
        cache: Any = next((given[name] for name in CACHES if given.get(name) is not None), None)
        cache = getattr(cache, "self_attention_cache", cache)
        if hasattr(cache, "apt_gates"):
            cache.apt_gates.scale(cache.layers[self.layer_idx], self.layer_idx, given["hidden_states"])
        return original.forward(self, *args, **kwargs)

    return type(original.__name__, (original,), {"forward": forward, "__module__": original.__module__})
