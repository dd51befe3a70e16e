"""GLoRA's supernet (Chavan et al. 2023, arXiv:2306.07967): one adapter that holds 432 configurations a layer.

GLoRA computes ``y = (W + W ⊙ A + B) x + b + b ⊙ D + E + W C``, and in every layer each of the five tensors is
one of several kinds, all cut from the same parameters:

======  ==============================  ============================================================
tensor  kinds, cheapest first           from the parameters
======  ==============================  ============================================================
A, B    none, constant, vector, lora    lora ``Xd Xu``; vector: first column of Xd; constant: Xd[0, 0]
C       none, vector, lora              lora ``Xd Xu``; vector: first column of Xd
D, E    none, constant, vector          vector x; constant: x[0]
======  ==============================  ============================================================

A configuration is a flat tuple of five genes (A, B, C, D, E) a layer, layers in the model's order; a gene is
the place of its kind among those of the table. A layer without bias has no C, D and E in peft: their only
kind is none.

The layers stay peft's own. What is exchanged is the class of the modules that make the five tensors, so state
dict, saved adapter, merging and routing are those of an ordinary GLoRA.
"""

from collections.abc import Callable, Iterable, Sequence
from typing import Any, ClassVar, Self

import torch
from peft import GloraConfig, PeftModel
from peft.tuners.glora.layer import GloraEmptyPath, GloraLinear, GloraLoraPath, GloraVectorPath
from torch import Tensor, nn

from clear_peft.errors import InputError

Configuration = tuple[int, ...]

TENSORS = ("A", "B", "C", "D", "E")
SUPERNET_OPTIONS = {"config_A_B": "lora", "config_C": "lora", "config_D_E": "vector"}
_KINDS: dict[str, tuple[str, ...]] = {
    "A": ("none", "constant", "vector", "lora"),
    "B": ("none", "constant", "vector", "lora"),
    "C": ("none", "vector", "lora"),
    "D": ("none", "constant", "vector"),
    "E": ("none", "constant", "vector"),
}


class _Supernet(nn.Module):
    """What the exchanged modules share: the kind that is chosen, as a bool tensor (3, columns).

    Its rows tell of each column of the parameter: whether it is kept, whether all its entries are its first
    one, and whether it is multiplied by Xu's row instead of ones. A tensor, so that another choice compiles
    nothing anew, and every parameter always has a gradient: zero where it is not chosen. It is no buffer: DDP
    overwrites buffers, also between a forward and its backward, which still needs this one.
    """

    plain: ClassVar[type[nn.Module]]
    masks: dict[str, Tensor]  # of every kind
    mask: Tensor

    def open(self) -> None:
        """Make the masks, and choose the largest kind."""
        parameter = next(self.parameters())
        columns = parameter.shape[1] if parameter.dim() == 2 else 1
        nothing, everything = torch.zeros(columns, dtype=torch.bool), torch.ones(columns, dtype=torch.bool)
        first = torch.arange(columns) == 0
        rows = {
            "none": (nothing, nothing, nothing),
            "constant": (first, everything, nothing),
            "vector": (first, nothing, nothing),
            "lora": (everything, nothing, everything),
        }
        self.masks = {kind: torch.stack(three).to(parameter.device) for kind, three in rows.items()}
        self.choose("lora")

    def choose(self, kind: str) -> None:
        """Compute this kind of tensor from now on."""
        self.kind = kind
        self.mask = self.masks[kind]

    def chosen(self) -> dict[str, Tensor]:
        """The parameters with which peft's own module computes what is chosen, by their names."""
        raise NotImplementedError

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Self:
        super()._apply(fn, recurse)
        self.masks = {kind: fn(mask) for kind, mask in self.masks.items()}
        self.choose(self.kind)
        return self


class SupernetLoraPath(_Supernet, GloraLoraPath):
    """A, B or C: ``Xd Xu`` of shapes (o, r) and (r, i), a vector, a constant or nothing."""

    plain = GloraLoraPath
    Xd: nn.Parameter
    Xu: nn.Parameter

    def chosen(self) -> dict[str, Tensor]:
        """Xd and Xu such that their product is what is chosen."""
        kept, constant, low_rank = self.mask
        # where(), not arithmetic: exact in every dtype, and Inf or NaN of what is not chosen stays out
        down = torch.where(kept, torch.where(constant, self.Xd[:1], self.Xd), 0.0)
        up = torch.where(low_rank[:, None], self.Xu, kept[:, None].to(self.Xu.dtype))
        return {"Xd": down, "Xu": up}

    def forward(self) -> Tensor:
        """Make the tensor, of shape (o, i)."""
        chosen = self.chosen()
        return chosen["Xd"] @ chosen["Xu"]


class SupernetVectorPath(_Supernet, GloraVectorPath):
    """D or E: a vector of shape (o,), a constant or nothing."""

    plain = GloraVectorPath
    X: nn.Parameter

    def chosen(self) -> dict[str, Tensor]:
        """The vector that is what is chosen."""
        kept, constant, _ = self.mask
        return {"X": torch.where(kept, torch.where(constant, self.X[:1], self.X), 0.0)}

    def forward(self) -> Tensor:
        """Make the tensor, of shape (o,)."""
        return self.chosen()["X"]


def make_supernet(model: PeftModel) -> None:
    """Let a GLoRA adapter compute any configuration; it starts with the whole one, peft's.

    Args:
        model: A model of PEFT type GLORA, made with `SUPERNET_OPTIONS` and any rank; changed in place.

    Raises:
        InputError: It is no such model, or has several adapters.
    """
    configs = list(model.peft_config.values())
    if len(configs) != 1 or not isinstance(configs[0], GloraConfig):
        raise InputError("A supernet needs a model with one GLoRA adapter and no other: make it afresh.")
    if any(getattr(configs[0], option) != kind for option, kind in SUPERNET_OPTIONS.items()):
        given = ", ".join(f"{option}={kind!r}" for option, kind in SUPERNET_OPTIONS.items())
        raise InputError(f"A supernet needs the largest kind of each of GLoRA's tensors: give {given}.")
    classes = {cls.plain: cls for cls in (SupernetLoraPath, SupernetVectorPath)}
    for module in model.modules():
        if isinstance(module, GloraLinear):
            for path in _paths(module):
                if type(path) in classes:
                    path.__class__ = classes[type(path)]
                    path.open()


def is_supernet(model: nn.Module) -> bool:
    """Whether `make_supernet` has changed a model, and `fold` has not changed it back."""
    return any(isinstance(module, _Supernet) for module in model.modules())


def supernet_layers(model: nn.Module) -> dict[str, GloraLinear]:
    """Find the layers that a configuration is for, in its order, by their names in the model.

    Args:
        model: What `make_supernet` has changed, wrapped or not.

    Raises:
        InputError: There are none.
    """
    layers = {
        name: module
        for name, module in model.named_modules()
        if isinstance(module, GloraLinear) and _is_open(_paths(module)[0])
    }
    if not layers:
        raise InputError("The model is no GLoRA supernet: call make_supernet(model) first.")
    return layers


def choices(layer: GloraLinear) -> tuple[tuple[str, ...], ...]:
    """Name the kinds that each of a layer's five genes chooses from, cheapest first."""
    pairs = zip(TENSORS, _paths(layer), strict=True)
    return tuple(("none",) if isinstance(path, GloraEmptyPath) else _KINDS[tensor] for tensor, path in pairs)


def search_space(model: nn.Module) -> list[int]:
    """Count the choices of every gene, five a layer."""
    return [len(kinds) for layer in supernet_layers(model).values() for kinds in choices(layer)]


def set_configuration(model: nn.Module, configuration: Sequence[int]) -> None:
    """Let a supernet compute a configuration from now on.

    Args:
        model: The supernet.
        configuration: Five genes a layer.

    Raises:
        InputError: The configuration is not one of this model's, or the adapter is merged.
    """
    layers = supernet_layers(model).values()
    if any(layer.merged for layer in layers):
        raise InputError("The adapter is merged into the base weights: call unmerge_adapter() first.")
    for path, kind in _chosen(layers, configuration):
        if _is_open(path):
            path.choose(kind)


def whole(model: nn.Module) -> Configuration:
    """Let a supernet compute the largest kind of every tensor, peft's own; return that configuration."""
    configuration = tuple(count - 1 for count in search_space(model))
    set_configuration(model, configuration)
    return configuration


def parameter_count(model: nn.Module, configuration: Sequence[int]) -> int:
    """Count the parameters of a configuration, as the authors do.

    For a layer (o, i): A and B (i+o)r, o, 1 or 0; C (i+1)r, i or 0; D and E o, 1 or 0.

    Args:
        model: The supernet.
        configuration: Five genes a layer.

    Raises:
        InputError: The configuration is not one of this model's.
    """
    return sum(_size(*chosen) for chosen in _chosen(supernet_layers(model).values(), configuration))


def _size(path: nn.Module, kind: str) -> int:
    if kind in ("none", "constant"):
        return int(kind == "constant")
    parameters = list(path.parameters())
    return parameters[0].shape[0] if kind == "vector" else sum(p.numel() for p in parameters)


@torch.no_grad()
def fold(model: nn.Module, configuration: Sequence[int]) -> None:
    """Turn a supernet into peft's plain GLoRA, which computes one configuration and is saved as ever.

    The adapter computes bitwise what the supernet did. A vector becomes the first column of Xd, times a row
    of ones in Xu; what is not chosen becomes zero.

    Args:
        model: The supernet, changed in place.
        configuration: Five genes a layer.

    Raises:
        InputError: The configuration is not one of this model's, or the adapter is merged.
    """
    set_configuration(model, configuration)
    for layer in supernet_layers(model).values():
        for path in filter(_is_open, _paths(layer)):
            for name, value in path.chosen().items():
                getattr(path, name).copy_(value)
            del path.mask, path.masks, path.kind
            path.__class__ = path.plain


def _paths(layer: GloraLinear) -> list[Any]:
    """The modules that make the five tensors of a layer's adapter."""
    return [next(iter(getattr(layer, f"glora_{tensor}").values())) for tensor in TENSORS]


def _is_open(path: nn.Module) -> bool:
    return isinstance(path, _Supernet)


def _chosen(layers: Iterable[GloraLinear], configuration: Sequence[int]) -> list[tuple[Any, str]]:
    """Pair the modules that make the layers' tensors with the kinds that a configuration chooses."""
    genes = [pair for layer in layers for pair in zip(_paths(layer), choices(layer), strict=True)]
    if len(configuration) != len(genes):
        raise InputError(
            f"The configuration has {len(configuration)} genes: give {len(genes)}, five a layer."
        )
    for place, (gene, (_, kinds)) in enumerate(zip(configuration, genes, strict=True)):
        if gene not in range(len(kinds)):
            raise InputError(
                f"Gene {place} of the configuration is {gene}: give a whole number from 0 to "
                f"{len(kinds) - 1}."
            )
    return [(path, kinds[gene]) for gene, (path, kinds) in zip(configuration, genes, strict=True)]
