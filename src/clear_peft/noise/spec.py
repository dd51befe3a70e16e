"""A noise model with its settings as one value, as a benchmark's grid or a command line names it."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from clear_peft.errors import InputError
from clear_peft.noise.checks import check_matrix, check_rate
from clear_peft.noise.class_conditional import class_map, pair_flip, symmetric, transition
from clear_peft.noise.corruption import Corruption
from clear_peft.noise.instance_dependent import instance_dependent

KINDS = ("symmetric", "symmetric-inclusive", "pair", "map", "matrix", "instance")


@dataclass(frozen=True, eq=False)
class NoiseSpec:
    """Which noise, and how much.

    Attributes:
        kind: One of ``KINDS``.
        rate: η in [0, 1], what it means is said by the noise model. Default 0; a matrix has its own rates.
        mapping: Class → the class that its labels flip to; for ``map`` alone.
        matrix: Row-stochastic, (C, C); for ``matrix`` alone.

    Raises:
        InputError: If there is no such kind, or the settings are not those that it takes.
    """

    kind: str
    rate: float = 0.0
    mapping: Mapping[int, int] | None = None
    matrix: npt.NDArray[np.float64] | None = None

    def __post_init__(self) -> None:
        if self.kind not in KINDS:
            raise InputError(f"There is no noise {self.kind!r}: choose from {', '.join(KINDS)}.")
        check_rate(self.rate)
        for kind, what, value in (
            ("map", "class map", self.mapping or None),
            ("matrix", "transition matrix", self.matrix),
        ):
            if self.kind == kind and value is None:
                raise InputError(f"The noise {kind!r} needs a {what}: give one.")
            if self.kind != kind and value is not None:
                raise InputError(
                    f"The noise {self.kind!r} takes no {what}: leave it out, or choose {kind!r}."
                )
        if not (self.mapping is None or _is_class_map(self.mapping)):
            raise InputError(f"The class map is {self.mapping!r}: give pairs of class ids, such as {{0: 1}}.")
        if self.matrix is not None:
            check_matrix(self.matrix)
            if self.rate:
                raise InputError("A transition matrix has its own rates: give no noise rate beside it.")

    @property
    def needs_features(self) -> bool:
        """Whether the noise looks at the examples themselves."""
        return self.kind == "instance"


def _is_class_map(value: object) -> bool:
    ids = (*value.keys(), *value.values()) if isinstance(value, Mapping) else (None,)
    return all(isinstance(i, int | np.integer) and not isinstance(i, bool) for i in ids)


def corrupt(
    labels: npt.ArrayLike,
    num_classes: int,
    spec: NoiseSpec,
    seed: int,
    *,
    features: npt.ArrayLike | None = None,
) -> Corruption:
    """Put the noise of a specification into labels.

    Args:
        labels: True labels, (N,) integers in [0, num_classes).
        num_classes: C, at least 2.
        spec: Which noise, and how much.
        seed: Seed of the random generator: the same arguments give the same labels.
        features: (N, S) floats; only looked at where ``spec.needs_features``. Default None.

    Returns:
        The corrupted labels with the realised rate and transition matrix.

    Raises:
        InputError: If the labels, the specification and the features do not fit each other.
    """
    match spec.kind:
        case "symmetric" | "symmetric-inclusive":
            inclusive = spec.kind == "symmetric-inclusive"
            return symmetric(labels, num_classes, spec.rate, seed, inclusive=inclusive)
        case "pair":
            return pair_flip(labels, num_classes, spec.rate, seed)
        case "map":
            assert spec.mapping is not None
            return class_map(labels, num_classes, spec.mapping, spec.rate, seed)
        case "matrix":
            assert spec.matrix is not None
            if len(spec.matrix) != num_classes:
                raise InputError(
                    f"The transition matrix has {len(spec.matrix)} rows, but there are {num_classes} "
                    "classes: give one row for each."
                )
            return transition(labels, spec.matrix, seed)
        case _:
            if features is None:
                raise InputError("Instance-dependent noise looks at the examples: give their features.")
            return instance_dependent(labels, features, num_classes, spec.rate, seed)
