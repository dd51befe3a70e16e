"""What a PEFT method asks of training besides gradient descent: `build` leaves it on the model."""

from dataclasses import dataclass, fields
from typing import Any, Literal, TypeVar

from torch import nn

from clear_peft.errors import InputError

_ATTRIBUTE = "clear_training_plan"


@dataclass(frozen=True, kw_only=True)
class RosaPlan:
    """How the sparse half of RoSA gets its support (Nikdan et al. 2024, arXiv 2401.04679).

    Attributes:
        mask_gradients: Number of batches whose gradients choose the support. Default 32.
        mask_score: `mean_squared` (the mean of the squared gradients, the authors' default) or `mean` (the
            absolute mean gradient).
        mask_steps: Optimizer steps of the low-rank half alone, where training has no warm-up. Default 64, as
            the authors advise.
        sparse_learning_rate: Learning rate of the sparse half, as a share of the one of the low-rank half.
            Default 2/7, the authors' 2e-4 to 7e-4.
    """

    mask_gradients: int = 32
    mask_score: Literal["mean_squared", "mean"] = "mean_squared"
    mask_steps: int = 64
    sparse_learning_rate: float = 2 / 7

    def __post_init__(self) -> None:
        """Refuse what is out of range."""
        _whole("mask_gradients", self.mask_gradients, 1)
        _whole("mask_steps", self.mask_steps, 0)
        _between("sparse_learning_rate", self.sparse_learning_rate, 0, 100)
        _one_of("mask_score", self.mask_score, ("mean_squared", "mean"))


@dataclass(frozen=True, kw_only=True)
class MetaPlan:
    """How MetaPEFT learns a scale per adapted module (Tian et al. 2025, arXiv 2603.01759).

    Attributes:
        outer_share: Rows of the outer steps, as a share of those of the inner steps: a batch of fresh rows
            after every 1/share steps. Default 0.2, the authors' share of fresh rows.
        outer_learning_rate: Of Adam on the scales, before softplus. Default 0.01: the paper's is not known.
    """

    outer_share: float = 0.2
    outer_learning_rate: float = 0.01

    def __post_init__(self) -> None:
        """Refuse what is out of range."""
        _between("outer_share", self.outer_share, 0.001, 1)
        _between("outer_learning_rate", self.outer_learning_rate, 0, 100)

    @property
    def inner_steps(self) -> int:
        """Optimizer steps between two outer steps."""
        return round(1 / self.outer_share)


@dataclass(frozen=True, kw_only=True)
class GloraPlan:
    """How GLoRA searches a configuration for each layer (Chavan et al. 2023, arXiv 2306.07967).

    Attributes:
        population: Configurations of a generation. Default 16 (authors: 50).
        generations: Beyond the first population. Default 5 (authors: 20).
        parents: The best so far, which the next generation is bred of. Default 4.
        mutation: Probability that a mutation draws a gene anew. Default 0.2, the authors'.
        max_parameters: Most parameters of a configuration, head aside. Default: no limit.
        search_rows: Most held-out rows of an evaluation. Default 512.
    """

    population: int = 16
    generations: int = 5
    parents: int = 4
    mutation: float = 0.2
    max_parameters: int | None = None
    search_rows: int = 512

    def __post_init__(self) -> None:
        """Refuse what is out of range."""
        for name, least in (("population", 2), ("generations", 0), ("parents", 1), ("search_rows", 1)):
            _whole(name, getattr(self, name), least)
        _between("mutation", self.mutation, 0, 1)
        if self.max_parameters is not None:
            _whole("max_parameters", self.max_parameters, 0)


Plan = RosaPlan | MetaPlan | GloraPlan
_P = TypeVar("_P", RosaPlan, MetaPlan, GloraPlan)
_M = TypeVar("_M", bound=nn.Module)


def part(kind: type[_P], options: dict[str, Any]) -> _P:
    """Take a plan's fields out of the options of a method.

    Raises:
        InputError: If one is out of range.
    """
    return kind(**{f.name: options.pop(f.name) for f in fields(kind) if f.name in options})


def plan_of(model: nn.Module) -> Plan | None:
    """What the PEFT method of a model asks of training; None: nothing but gradient descent."""
    return model.__dict__.get(_ATTRIBUTE)


def with_plan(model: _M, plan: Plan) -> _M:
    """The same model, which knows what its PEFT method asks of training."""
    model.__dict__[_ATTRIBUTE] = plan
    return model


def _whole(name: str, value: Any, least: int) -> None:
    if isinstance(value, bool) or not isinstance(value, int) or value < least:
        raise InputError(f"{name} is {value!r}: give a whole number of at least {least}.")


def _between(name: str, value: Any, low: float, high: float) -> None:
    number = isinstance(value, int | float) and not isinstance(value, bool)
    if not number or not low <= value <= high:
        raise InputError(f"{name} is {value!r}: give a number between {low} and {high}.")


def _one_of(name: str, value: Any, known: tuple[str, ...]) -> None:
    if value not in known:
        raise InputError(f"{name} is {value!r}: choose from {', '.join(known)}.")
