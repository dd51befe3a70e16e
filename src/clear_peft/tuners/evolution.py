"""The evolutionary search of GLoRA (Chavan et al. 2023, arXiv:2306.07967) over any space of choices.

As theirs, but the last generation counts, no candidate is evaluated twice, a tight limit cannot make it loop
for ever, and a search that was stopped goes on where it was. Their sizes (population 50, 10 parents, 20
generations: up to 1,050 evaluations) are cut to what two cores can do: 96.
"""

import math
from bisect import bisect_left
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np

from clear_peft.errors import InputError

Configuration = tuple[int, ...]
Fitness = float | tuple[float, ...]

_TRIES = 20  # at a candidate that is new and within the limit


@dataclass(frozen=True)
class SearchResult:
    """What a search has found.

    Attributes:
        best: The fittest configuration; of equals the cheapest, then the earliest.
        fitness: Its fitness.
        history: The best fitness after the first population and after each generation; it never falls.
        evaluated: All configurations of the search with their fitness, in the order of their evaluation.
    """

    best: Configuration
    fitness: Fitness
    history: tuple[Fitness, ...]
    evaluated: dict[Configuration, Fitness]


def random_configuration(space: Sequence[int], *key: int) -> Configuration:
    """Draw a configuration uniformly: a pure function of the space and the key.

    Args:
        space: Number of choices of every gene.
        *key: Whole numbers of at least 0, such as a seed and a step.
    """
    return _random(space, _generator(*key))


def search(
    space: Sequence[int],
    fitness: Callable[[Configuration], Fitness],
    *,
    cost: Callable[[Configuration], float] | None = None,
    max_cost: float | None = None,
    population: int = 16,
    parents: int = 4,
    generations: int = 5,
    mutation: float = 0.2,
    crossover_share: float = 0.5,
    seed: int = 0,
    known: Mapping[Configuration, Fitness] | None = None,
    first: Sequence[Configuration] = (),
    on_evaluated: Callable[[Configuration, Fitness], object] | None = None,
) -> SearchResult:
    """Search for the fittest configuration by mutation and crossover of the best.

    Evaluates at most population · (generations + 1) configurations. All draws are keyed by (seed,
    generation, member), so a search that was stopped and is given what it had evaluated finds the same.

    Args:
        space: Number of choices of every gene: gene g is one of 0 … space[g] - 1, in the order of their cost.
        fitness: Gives a configuration's fitness, the larger the better; of tuples the first entries that
            differ decide, and NaN counts as -inf. It must be deterministic.
        cost: Gives a configuration's cost. Default: all cost the same.
        max_cost: Configurations of a larger cost are never evaluated. Default: no limit.
        population: Number of candidates at first, and of each generation. Default 16.
        parents: How many of the best seen so far the next generation descends from. Default 4.
        generations: Number of generations. Default 5.
        mutation: Probability with which a mutation redraws a gene of one parent. Default 0.2.
        crossover_share: Share of a generation that takes each gene from one of two parents at random; the
            others are mutations. Default 0.5.
        seed: Seed of all draws. Default 0.
        known: Configurations whose fitness is not to be computed again. They do not steer the search.
        first: Configurations to begin with, those beyond the limit left out; the first population is filled
            up at random.
        on_evaluated: Called with each configuration and its fitness once it has been computed.

    Returns:
        The best configuration and what was evaluated.

    Raises:
        InputError: An option is out of range, or even the cheapest configuration costs more than the limit.
    """
    _check(space, population, parents, generations, mutation, crossover_share, seed, first)
    if cost is None and max_cost is not None:
        raise InputError("max_cost limits nothing without cost: give both or neither.")
    price = cache(cost or (lambda _: 0.0))
    limit = math.inf if max_cost is None else max_cost
    cheapest = (0,) * len(space)
    if not price(cheapest) <= limit:
        raise InputError(
            f"Even the cheapest configuration costs {price(cheapest):g}: give a max_cost of at least that, "
            f"not {limit:g}."
        )

    memory = known or {}
    evaluated: dict[Configuration, Fitness] = {}
    ranked: list[Configuration] = []  # best first
    history: list[Fitness] = []

    def fits(candidate: Configuration) -> bool:
        return price(candidate) <= limit

    def evaluate(candidate: Configuration) -> None:
        if candidate in memory:
            evaluated[candidate] = memory[candidate]
            return
        evaluated[candidate] = fitness(candidate)
        if on_evaluated is not None:
            on_evaluated(candidate, evaluated[candidate])

    def proposals(rng: np.random.Generator, generation: int, member: int) -> Iterator[Configuration]:
        """A member's candidates: by descent, then by descent and made to fit, then random and made to fit."""

        def descend() -> Configuration:
            if generation == 0:
                return _random(space, rng)
            if member < round(population * crossover_share):
                return _crossed(ranked[:parents], rng)
            return _mutated(space, ranked[:parents], mutation, rng)

        for _ in range(_TRIES):
            yield descend()
        for _ in range(_TRIES):
            yield _shrunk(descend(), fits, rng)
        for _ in range(_TRIES):
            yield _shrunk(_random(space, rng), fits, rng)

    for candidate in dict.fromkeys(tuple(configuration) for configuration in first):
        if fits(candidate):
            evaluate(candidate)
    for generation in range(generations + 1):
        for member in range(len(evaluated) if generation == 0 else 0, population):
            rng = _generator(seed, generation, member)
            for candidate in proposals(rng, generation, member):
                if candidate not in evaluated and fits(candidate):
                    evaluate(candidate)
                    break
        # sorts are stable: of equals the cheaper comes first, then the earlier
        ranked = sorted(evaluated, key=price)
        ranked.sort(key=lambda candidate: _key(evaluated[candidate]), reverse=True)
        history.append(evaluated[ranked[0]])
    return SearchResult(ranked[0], history[-1], tuple(history), evaluated)


def _generator(*key: int) -> np.random.Generator:
    return np.random.default_rng([len(key), *key])  # numpy alone takes (1,) and (1, 0) for the same key


def _random(space: Sequence[int], rng: np.random.Generator) -> Configuration:
    return tuple(int(gene) for gene in rng.integers(0, space))


def _mutated(
    space: Sequence[int], parents: Sequence[Configuration], mutation: float, rng: np.random.Generator
) -> Configuration:
    parent = parents[int(rng.integers(len(parents)))]
    redrawn = rng.random(len(space)) < mutation
    return tuple(np.where(redrawn, rng.integers(0, space), parent).tolist())


def _crossed(parents: Sequence[Configuration], rng: np.random.Generator) -> Configuration:
    one, other = rng.choice(len(parents), size=2, replace=len(parents) < 2)
    from_one = rng.random(len(parents[0])) < 0.5
    return tuple(np.where(from_one, parents[one], parents[other]).tolist())


def _shrunk(
    candidate: Configuration, fits: Callable[[Configuration], bool], rng: np.random.Generator
) -> Configuration:
    """Make genes cheaper, one step at a time in random order, until the candidate fits."""
    steps = rng.permutation(np.repeat(np.arange(len(candidate)), candidate))

    def after(count: int) -> Configuration:
        taken = np.bincount(steps[:count], minlength=len(candidate))
        return tuple((np.array(candidate) - taken).tolist())

    return after(bisect_left(range(len(steps)), True, key=lambda count: fits(after(count))))


def _key(fitness: Fitness) -> tuple[float, ...]:
    entries = fitness if isinstance(fitness, Sequence) else (fitness,)
    return tuple(-math.inf if math.isnan(entry) else float(entry) for entry in entries)


def _check(
    space: Sequence[int],
    population: int,
    parents: int,
    generations: int,
    mutation: float,
    crossover_share: float,
    seed: int,
    first: Sequence[Configuration],
) -> None:
    if not len(space) or min(space) < 1:
        raise InputError("The search space is empty: give at least one gene, and each at least one choice.")
    least: dict[str, tuple[Any, int]] = {
        "population": (population, 1),
        "parents": (parents, 1),
        "generations": (generations, 0),
        "seed": (seed, 0),
    }
    for name, (value, lowest) in least.items():
        if not isinstance(value, int) or value < lowest:
            raise InputError(f"{name} is {value!r}: give a whole number of at least {lowest}.")
    for name, share in (("mutation", mutation), ("crossover_share", crossover_share)):
        if not 0 <= share <= 1:
            raise InputError(f"{name} is {share!r}: give a number from 0 to 1.")
    if len(first) > population:
        raise InputError(f"There are {len(first)} first configurations: give at most {population}.")
    for configuration in first:
        if len(configuration) != len(space) or any(
            g not in range(n) for g, n in zip(configuration, space, strict=True)
        ):
            raise InputError(f"The first configuration {tuple(configuration)} does not lie in the space.")
