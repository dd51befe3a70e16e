"""Where a PEFT model can be gated, to which block each place belongs, and what cannot be gated."""

import inspect
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Literal

from torch import nn

from clear_peft.errors import InputError
from clear_peft.routing.internals import (
    CACHES,
    LIFTED,
    BaseTunerLayer,
    GradientCheckpointingLayer,
    ModulesToSaveWrapper,
    adds_bias,
    terms,
)

OUTSIDE = "outside"  # one gate for all tuner layers that lie in no block (embeddings, poolers)

_REFUSED_TYPES = {
    "LILY": "LILY averages its router over the batch, so one example's gate would change another's output",
    "XLORA": "X-LoRA runs the model twice and mixes adapters by itself",
    "PROMPT_TUNING": "prompt tuning adds its tokens before the first block",
    "MULTITASK_PROMPT_TUNING": "prompt tuning adds its tokens before the first block",
    "P_TUNING": "p-tuning adds its tokens before the first block",
    "CPT": "CPT adds its tokens before the first block",
    "CARTRIDGE": "a cartridge replaces the key-value cache of the whole model",
    "ADAPTION_PROMPT": "Llama-Adapter has its own gate inside the attention",
    "SHADOW": "SHADOW wraps blocks instead of layers",
}
_INSTEAD = "use LoRA, prefix tuning, BitFit, a bottleneck adapter or another layer-wise tuner instead"

# Initialisations that take the adapter's start out of the base weight: without the adapter, what
# is left is not the pretrained model.
_REWRITING_INITS = ("pissa", "olora", "corda", "loftq", "lora_ga")


Kind = Literal["term", "bias", "prefix", "attention", "output"]


@dataclass(frozen=True)
class GatePoint:
    """One module whose output is gated, example by example.

    Attributes:
        name: dotted name of the module, or of the layer that it is part of.
        module: the module.
        kind: how it is gated. ``term``: its layer adds nothing to the frozen output where it returns zeros,
            as it does where a gate is closed. ``bias``: a layer that adds a vector, times the gate.
            ``prefix``: an attention, which sees a prefix or not. Of others the output is chosen between
            tuned and frozen: ``output``, and ``attention`` of an attention whose layers cannot be gated.
        block: index of its block: the column of the gates.
        tuners: the tuner layers and wrappers whose flag turns the module into its frozen self; empty
            for prefix tuning, where the frozen module is the one that sees no prefix.
    """

    name: str
    module: nn.Module
    block: int
    kind: Kind
    tuners: tuple[Any, ...]  # BaseTunerLayer or ModulesToSaveWrapper, which share only the flag


def find_gate_points(model: nn.Module) -> tuple[list[GatePoint], tuple[str, ...]]:
    """Find the gate points of a PEFT model.

    A block is the nearest ``GradientCheckpointingLayer`` around a module, or else the innermost
    numbered entry of a ``ModuleList``. All gate points of one block share one gate, as in the paper.
    Trained copies of whole modules (``modules_to_save``) are gated inside blocks and left alone
    outside, where they are the classification head.

    Args:
        model: what ``peft.get_peft_model`` made, or a ``BottleneckModel``.

    Returns:
        The gate points, and the names of the blocks in the order of their columns.

    Raises:
        InputError: if there is nothing to gate, or something that cannot be gated.
    """
    _refuse_configs(model)
    prefix_length = virtual_tokens(model)
    places = list(cached_attentions(model) if prefix_length else _tuned_places(model))
    if not places:
        raise InputError(
            "The model has no PEFT module that could be gated: make it with peft.get_peft_model or "
            f"clear_peft.tuners.build first ({_INSTEAD})."
        )
    points: list[GatePoint] = []
    columns: dict[str, int] = {}
    for name, module, block, tuners in places:
        column = columns.setdefault(block, len(columns))
        parts = terms(module) if len(tuners) == 1 else None
        if parts is None:
            points.append(GatePoint(name, module, column, _kind(module, tuners), tuners))
        else:
            points += [GatePoint(name, part, column, "term", tuners) for part in parts]
    for point in points:
        if any("forward" in part.__dict__ for part in (point.module, *point.tuners)):
            raise InputError(
                f"The forward of '{point.name}' has been patched (by accelerate's device_map or offloading, "
                "it seems): attach the router first, or load the model on one device."
            )
    _refuse_in_place_training(model, points)
    return points, tuple(columns)


def _kind(module: nn.Module, tuners: tuple[nn.Module, ...]) -> Kind:
    if not tuners:
        return "prefix"
    if type(module).__name__ in LIFTED:
        return "attention"
    return "bias" if len(tuners) == 1 and adds_bias(module) else "output"


def virtual_tokens(model: nn.Module) -> int:
    """Number of prefix vectors that the model's prefix tuning puts before the keys; 0 without it."""
    return next((c.num_virtual_tokens for c in _configs(model) if c.peft_type.value == "PREFIX_TUNING"), 0)


def adapters(model: nn.Module) -> list[str]:
    """Names of the adapters of a peft model."""
    return list(getattr(model, "peft_config", None) or ())


def _configs(model: nn.Module) -> list:
    configs = getattr(model, "peft_config", None)
    return list(configs.values()) if isinstance(configs, dict) else []


def _refuse_configs(model: nn.Module) -> None:
    for config in _configs(model):
        kind = config.peft_type.value
        if kind in _REFUSED_TYPES:
            raise InputError(f"{kind} cannot be gated, since {_REFUSED_TYPES[kind]}: {_INSTEAD}.")
        init = getattr(config, "init_lora_weights", None)
        if isinstance(init, str) and init.lower().startswith(_REWRITING_INITS):
            raise InputError(
                f"init_lora_weights='{init}' rewrites the base weights, so the frozen path would not be the "
                "pretrained model: use init_lora_weights=True, 'gaussian', 'eva' or 'orthogonal'."
            )
        if getattr(config, "kasa_config", None) is not None:
            raise InputError(
                "KaSA truncates the base weights, so the frozen path would not be the pretrained model: "
                "leave kasa_config out."
            )


def _block_of(name: str, modules: dict[str, nn.Module]) -> str:
    parts = name.split(".")
    numbered = OUTSIDE
    for end in range(len(parts) - 1, 0, -1):
        ancestor = ".".join(parts[:end])
        if isinstance(modules[ancestor], GradientCheckpointingLayer):
            return ancestor
        parent = modules.get(".".join(parts[: end - 1]))
        if numbered == OUTSIDE and isinstance(parent, nn.ModuleList):
            numbered = ancestor
    return numbered


Place = tuple[str, nn.Module, str, tuple[nn.Module, ...]]


def _tuned_places(model: nn.Module) -> Iterator[Place]:
    modules = dict(model.named_modules())
    covered: list[str] = []  # gate points and ungated heads: what lies in them is settled
    for name, module in modules.items():
        if any(name.startswith(f"{outer}.") for outer in covered):
            continue
        block = _block_of(name, modules)
        if isinstance(module, ModulesToSaveWrapper):
            covered.append(name)
            if block != OUTSIDE:
                yield name, module, block, (module,)
        elif isinstance(module, BaseTunerLayer) or type(module).__name__ in LIFTED:
            tuners = tuple(m for m in module.modules() if isinstance(m, BaseTunerLayer))
            if tuners:
                covered.append(name)
                yield name, module, block, tuners


def cached_attentions(model: nn.Module) -> Iterator[Place]:
    """The innermost modules that take a key-value cache and a mask: there the prefix is attended to."""
    modules = dict(model.named_modules())

    def takes_cache(module: nn.Module) -> bool:
        names = inspect.signature(module.forward).parameters
        return not CACHES.isdisjoint(names) and "attention_mask" in names

    takers = [name for name, module in modules.items() if name and takes_cache(module)]
    for name in takers:
        block = _block_of(name, modules)
        if block != OUTSIDE and not any(other.startswith(f"{name}.") for other in takers):
            yield name, modules[name], block, ()


def _refuse_in_place_training(model: nn.Module, points: list[GatePoint]) -> None:
    """Refuse trainable base parameters inside blocks: the frozen path would contain what they learn."""
    modules = dict(model.named_modules())
    tuners = {id(tuner) for point in points for tuner in point.tuners}
    for name, parameter in model.named_parameters():
        if not parameter.requires_grad or _block_of(name, modules) == OUTSIDE:
            continue
        parts = name.split(".")
        ancestors = [".".join(parts[:end]) for end in range(1, len(parts))]
        owner = next((a for a in reversed(ancestors) if id(modules[a]) in tuners), None)
        if owner is None or name.startswith((f"{owner}.base_layer.", f"{owner}.original_module.")):
            raise InputError(
                f"The base parameter '{name}' is trained in place, so the frozen path would not be the "
                "pretrained model: freeze it (bias='none'), or train biases with BitFit "
                "(clear_peft.tuners.build(model, 'bitfit'))."
            )
