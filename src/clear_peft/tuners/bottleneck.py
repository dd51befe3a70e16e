"""The bottleneck adapter of Houlsby et al. 2019 (arXiv:1902.00751), which peft lacks.

It is not a PEFT type: peft's list of types is closed, so the adapter is saved in files of its own
(`bottleneck_config.json`, `bottleneck_model.safetensors`) and loaded by `load_adapter`. Its layer follows
peft's contract for tuner layers, so that whatever finds and switches peft's layers finds and switches it.
"""

import inspect
import math
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any, Self, cast

import torch
from torch import Tensor, nn
from transformers.modeling_utils import PreTrainedModel

from clear_peft.errors import InputError
from clear_peft.tuners.anatomy import head_names, is_named, projection_names
from clear_peft.tuners.internals import (
    BaseTunerLayer,
    Conv1D,
    ModulesToSaveWrapper,
    enable_checkpointing,
    is_checkpointing,
)
from clear_peft.tuners.own_format import OwnFormat

_BERT = ("output.dense",)  # attention.output.dense and output.dense
_LLAMA = ("o_proj", "down_proj")
_TARGETS: dict[str, tuple[str, ...]] = {
    "bert": _BERT,
    "roberta": _BERT,
    "xlm-roberta": _BERT,
    "electra": _BERT,
    "deberta-v2": _BERT,
    "mpnet": ("attn.o", "output.dense"),
    "distilbert": ("out_lin", "lin2"),
    "modernbert": ("attn.Wo", "mlp.Wo"),
    "gpt2": ("attn.c_proj", "mlp.c_proj"),
    "llama": _LLAMA,
    "mistral": _LLAMA,
    "qwen2": _LLAMA,
    "qwen3": _LLAMA,
    "opt": ("out_proj", "fc2"),
    "t5": ("SelfAttention.o", "EncDecAttention.o", "wo"),
    "vit": ("o_proj", "fc2", "output.dense"),  # by its new and by its old names
}


@dataclass(frozen=True)
class BottleneckConfig:
    """Configuration of bottleneck adapters.

    Attributes:
        width: Width of the bottleneck.
        target_modules: Ends of the names of the linear layers that get an adapter on their output; by
            default the output projections of attention and feed-forward, where the architecture is known.
        modules_to_save: Ends of the names of further modules that are trained and saved as a whole; by
            default the classification head.
        base_model_name_or_path: Where the base model comes from; filled in by `BottleneckModel`.
        scaling: Factor of what each adapter adds, in the order of the layers; by default 1 each.
    """

    width: int = 16
    target_modules: tuple[str, ...] | None = None
    modules_to_save: tuple[str, ...] | None = None
    base_model_name_or_path: str | None = None
    scaling: tuple[float, ...] | None = None


BOTTLENECK_FORMAT = OwnFormat(
    "bottleneck",
    "bottleneck adapter",
    BottleneckConfig,
    frozenset({"bottleneck_down", "bottleneck_up", "modules_to_save"}),
)


class BottleneckLayer(nn.Module, BaseTunerLayer):
    """A linear layer with a bottleneck on its output: `y = base_layer(x)`, `y + up(gelu(down(y)))`.

    `up` starts at zero, so the layer starts as the identity. In post-norm models such as BERT the block's
    dropout comes after the adapter; in Houlsby's drawing it has none of its own.

    Args:
        base_layer: `nn.Linear` (or a quantized subclass) or GPT-2's `Conv1D`; stays as it is.
        width: Width of the bottleneck.
        adapter_name: Name of the adapter in peft's sense.
    """

    adapter_layer_names = ("bottleneck_down", "bottleneck_up")

    def __init__(self, base_layer: nn.Linear | Conv1D, width: int, adapter_name: str = "default") -> None:
        super().__init__()
        self.base_layer = base_layer
        features = base_layer.nf if isinstance(base_layer, Conv1D) else base_layer.out_features
        weight = base_layer.weight
        # As in peft, adapters are trained in float32 also when the base is in half precision or quantized.
        dtype = torch.float64 if weight.dtype == torch.float64 else torch.float32
        down = nn.Linear(features, width, device=weight.device, dtype=dtype)
        up = nn.Linear(width, features, device=weight.device, dtype=dtype)
        nn.init.zeros_(up.weight)
        nn.init.zeros_(up.bias)
        self.bottleneck_down = nn.ModuleDict({adapter_name: down})
        self.bottleneck_up = nn.ModuleDict({adapter_name: up})
        self.scaling: dict[str, float | Tensor] = {adapter_name: 1.0}
        self.merged_adapters: list[str] = []
        BaseTunerLayer.set_adapter(self, adapter_name)

    def forward(self, x: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        """Map `x` of shape (..., in) to (..., out), in the dtype of the base layer's output."""
        y = self.base_layer(x, *args, **kwargs)
        if self.disable_adapters:
            return y
        for name in cast("list[str]", self.active_adapters):
            down, up = self.bottleneck_down[name], self.bottleneck_up[name]
            added = up(nn.functional.gelu(down(y.to(down.weight.dtype))))
            scale = self.scaling[name]
            if isinstance(scale, Tensor) or scale != 1:
                added = added * scale
            y = y + added.to(y.dtype)
        return y


class BottleneckModel(nn.Module):
    """A frozen transformers model with trainable bottleneck adapters and classification head.

    As with `PeftModel`, the base model is changed in place and unknown attributes are looked up in it.

    Args:
        model: A transformers classification model without adapters.
        config: Where the adapters sit and how wide they are.

    Raises:
        InputError: The architecture is unknown and `target_modules` is not given, or it names no linear
            layer of the model.
    """

    # what transformers asks, besides whether a model is peft's, before it trains on a quantized base
    _hf_peft_config_loaded = True

    def __init__(self, model: PreTrainedModel, config: BottleneckConfig) -> None:
        super().__init__()
        self.bottleneck_config = _resolve(model, config)
        model.requires_grad_(False)
        for name in self.bottleneck_config.target_modules or ():
            _replace_module(model, name, BottleneckLayer(model.get_submodule(name), config.width))
        for name in self.bottleneck_config.modules_to_save or ():
            wrapper = ModulesToSaveWrapper(model.get_submodule(name), "default")
            wrapper.set_adapter("default")
            _replace_module(model, name, wrapper)
        self.base_model = model
        if self.bottleneck_config.scaling is not None:
            self.set_scaling(self.bottleneck_config.scaling)
        if is_checkpointing(model):
            model.enable_input_require_grads()

    def __getattr__(self, name: str) -> Any:
        try:
            return super().__getattr__(name)
        except AttributeError:
            if name == "base_model":  # not there yet, e.g. while a copy is made
                raise
            return getattr(self.base_model, name)

    def forward(
        self,
        input_ids: Tensor | None = None,
        attention_mask: Tensor | None = None,
        token_type_ids: Tensor | None = None,
        inputs_embeds: Tensor | None = None,
        pixel_values: Tensor | None = None,
        labels: Tensor | None = None,
        **kwargs: Any,
    ) -> Any:
        """Run the base model on the arguments that are given.

        They are spelt out because `transformers.Trainer` reads from the signature which columns to keep.
        """
        inputs = {
            "input_ids": input_ids,
            "attention_mask": attention_mask,
            "token_type_ids": token_type_ids,
            "inputs_embeds": inputs_embeds,
            "pixel_values": pixel_values,
            "labels": labels,
        }
        return self.base_model(**{name: x for name, x in inputs.items() if x is not None}, **kwargs)

    def get_base_model(self) -> PreTrainedModel:
        """Return the transformers model, adapters included."""
        return self.base_model

    @property
    def accepts_loss_kwargs(self) -> bool:
        """Whether the base model takes the Trainer's extra loss arguments, by the Trainer's own rule."""
        parameters = inspect.signature(self.base_model.forward).parameters.values()
        takes_any = any(p.kind is inspect.Parameter.VAR_KEYWORD for p in parameters)
        return getattr(self.base_model, "accepts_loss_kwargs", takes_any)

    def activation_checkpointing_enable(
        self, activation_checkpointing_kwargs: dict[str, Any] | None = None, **kwargs: Any
    ) -> None:
        """Switch activation checkpointing on, also the reentrant kind, which needs inputs with gradients."""
        enable_checkpointing(self.base_model, activation_checkpointing_kwargs, **kwargs)
        self.base_model.enable_input_require_grads()

    def gradient_checkpointing_enable(
        self, gradient_checkpointing_kwargs: dict[str, Any] | None = None, **kwargs: Any
    ) -> None:
        """Do the same by the name that it had before transformers 5.23."""
        self.activation_checkpointing_enable(gradient_checkpointing_kwargs, **kwargs)

    @contextmanager
    def disable_adapter(self) -> Iterator[None]:
        """Make the model the pretrained one, old head included; `requires_grad` is left alone."""
        switches = [m for m in self.modules() if isinstance(m, (BottleneckLayer, ModulesToSaveWrapper))]
        before = [switch._disable_adapters for switch in switches]
        for switch in switches:
            switch._disable_adapters = True
        try:
            yield
        finally:
            for switch, state in zip(switches, before, strict=True):
                switch._disable_adapters = state

    def get_nb_trainable_parameters(self) -> tuple[int, int]:
        """Return the number of trainable and of all parameters."""
        sizes = [(p.numel(), p.requires_grad) for p in self.parameters()]
        return sum(n for n, trains in sizes if trains), sum(n for n, _ in sizes)

    def print_trainable_parameters(self) -> None:
        """Print the number of trainable parameters as peft does."""
        trainable, total = self.get_nb_trainable_parameters()
        print(  # noqa: T201
            f"trainable params: {trainable:,d} || all params: {total:,d} || trainable%: "
            f"{100 * trainable / total:.4f}"
        )

    def save_pretrained(
        self, save_directory: str | os.PathLike[str], state_dict: Mapping[str, Tensor] | None = None, **_: Any
    ) -> None:
        """Write the adapter's configuration and weights into a folder; each file appears whole or not at all.

        Args:
            save_directory: Folder, made if need be.
            state_dict: The model's state dict where it has been gathered already; by default its own.
            **_: The Trainer's further arguments, which do not apply.
        """
        state = self.state_dict() if state_dict is None else state_dict
        BOTTLENECK_FORMAT.save(save_directory, state, self.bottleneck_config)

    def set_scaling(self, scaling: Sequence[float]) -> None:
        """Set the factor of what each adapter adds, in the order of the layers.

        Raises:
            InputError: There are not as many as adapters, or one is no number of at least 0.
        """
        layers = self._adapted()
        if len(scaling) != len(layers) or not all(math.isfinite(scale) and scale >= 0 for scale in scaling):
            raise InputError(f"scaling needs {len(layers)} numbers of at least 0, one for each adapter.")
        for layer, scale in zip(layers, scaling, strict=True):
            layer.scaling["default"] = scale
        self.bottleneck_config = replace(self.bottleneck_config, scaling=tuple(scaling))

    @torch.no_grad()
    def fold_scaling(self) -> None:
        """Multiply each up-projection by its factor, which is 1 then."""
        for layer in self._adapted():
            for parameter in layer.bottleneck_up["default"].parameters():
                parameter.mul_(layer.scaling["default"])
            layer.scaling["default"] = 1.0
        self.bottleneck_config = replace(self.bottleneck_config, scaling=None)

    def _adapted(self) -> list[BottleneckLayer]:
        return [module for module in self.base_model.modules() if isinstance(module, BottleneckLayer)]

    def load_weights(self, folder: str | os.PathLike[str]) -> None:
        """Load the weights that `save_pretrained` has written.

        Args:
            folder: The folder.

        Raises:
            InputError: The file is missing or unreadable, or its names or shapes are not this model's.
        """
        BOTTLENECK_FORMAT.load(folder, self)

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
        adapted = cls(model, BOTTLENECK_FORMAT.read_config(folder))
        adapted.load_weights(folder)
        return adapted.requires_grad_(False).eval()


def _resolve(model: PreTrainedModel, config: BottleneckConfig) -> BottleneckConfig:
    """Replace the ends of names, and the defaults, by full names."""
    if not isinstance(config.width, int) or config.width < 1:
        raise InputError(f"The bottleneck's width is {config.width!r}: give a whole number of at least 1.")
    head = tuple(head_names(model)) if config.modules_to_save is None else config.modules_to_save
    ends = config.target_modules
    if ends is None:
        ends = _TARGETS.get(model.config.model_type)
    if ends is None:
        raise InputError(
            f"It is not known where bottleneck adapters sit in {model.config.model_type!r}: name the output "
            f"projections of attention and feed-forward in target_modules, out of "
            f"{', '.join(projection_names(model))}."
        )
    names = [name for name, _ in model.named_modules()]
    saved = tuple(name for name in names if is_named(name, head))
    targets = tuple(
        name
        for name in names
        if is_named(name, ends)
        and isinstance(model.get_submodule(name), (nn.Linear, Conv1D))
        and not any(name == part or name.startswith(f"{part}.") for part in saved)
    )
    if not targets:
        raise InputError(
            f"target_modules {list(ends)} name no linear layer of {type(model).__name__}: choose from "
            f"{', '.join(projection_names(model))}."
        )
    return replace(
        config,
        target_modules=targets,
        modules_to_save=saved,
        base_model_name_or_path=config.base_model_name_or_path or model.name_or_path or None,
    )


def _replace_module(model: nn.Module, name: str, module: nn.Module) -> None:
    parent, _, child = name.rpartition(".")
    setattr(model.get_submodule(parent), child, module)
