import math
from itertools import pairwise, product
from statistics import mean

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from clear_peft.errors import InputError
from clear_peft.tuners.evolution import random_configuration, search

SPACE = [4, 4, 3, 3, 3] * 2


def matches(optimum):
    return lambda configuration: float(sum(a == b for a, b in zip(configuration, optimum, strict=True)))


def is_monotone(history):
    return all(before <= after for before, after in pairwise(history))


@pytest.mark.parametrize("seed", range(10))
def test_finds_a_known_optimum_in_the_default_budget(seed):
    space = [4, 4, 3, 3, 3]  # one layer: 96 of 432
    optimum = random_configuration(space, seed, 7)
    result = search(space, matches(optimum), seed=seed)
    assert result.best == optimum
    assert result.fitness == len(space) == result.history[-1]
    assert is_monotone(result.history)
    assert len(result.history) == 6
    assert len(result.evaluated) == 96


def test_is_better_than_chance_in_a_large_space():
    space = [4, 4, 3, 3, 3] * 12
    fitness = matches(random_configuration(space, 3))
    by_chance = [
        max(fitness(random_configuration(space, seed, draw, 1)) for draw in range(96)) for seed in range(10)
    ]
    found = [search(space, fitness, seed=seed).fitness for seed in range(10)]
    assert mean(found) > max(by_chance)


def test_the_last_generation_counts():
    order = []

    def later_is_better(configuration):
        order.append(configuration)
        return float(len(order))

    result = search(SPACE, later_is_better)
    assert result.best == order[-1]
    assert list(result.evaluated) == order
    assert result.history == (16, 32, 48, 64, 80, 96)


def test_half_of_a_generation_descends_by_crossover_half_by_mutation():
    fitness = matches((1,) * 40)
    result = search([4] * 40, fitness, generations=1, mutation=0.0)  # a mutation then changes nothing
    ranked = sorted(list(result.evaluated)[:16], key=fitness, reverse=True)[:4]
    children = list(result.evaluated)[16:]
    mixed = [
        any(all(g in pair for g, *pair in zip(child, a, b, strict=True)) for a in ranked for b in ranked)
        for child in children
    ]
    assert mixed == [True] * 8 + [False] * 8  # the mutations, being no new ones, were replaced at random

    result = search([4] * 40, fitness, generations=1, crossover_share=0.0)
    for child in list(result.evaluated)[16:]:
        assert min(sum(a != b for a, b in zip(child, parent, strict=True)) for parent in ranked) < 18


def test_same_seed_same_search():
    fitness = matches(random_configuration(SPACE, 5))
    one, same, other = (search(SPACE, fitness, seed=seed) for seed in (1, 1, 2))
    assert list(one.evaluated.items()) == list(same.evaluated.items())
    assert list(one.evaluated) != list(other.evaluated)


@settings(deadline=None, max_examples=40)
@given(
    stop=st.integers(0, 95),
    seed=st.integers(0, 2**40),
    limit=st.sampled_from([None, 3, 9]),
    noise=st.integers(1, 100),
)
def test_a_stopped_search_goes_on_to_the_same_end(stop, seed, limit, noise):
    def fitness(configuration):  # with ties
        return float(hash(configuration) % noise), -float(sum(configuration) % 3)

    options = {"seed": seed, "cost": None if limit is None else sum, "max_cost": limit}
    whole = search(SPACE, fitness, **options)
    known = {}

    def record(configuration, value):
        if len(known) == stop:
            raise KeyboardInterrupt
        assert configuration not in known
        known[configuration] = value

    try:
        search(SPACE, fitness, on_evaluated=record, **options)
    except KeyboardInterrupt:
        pass
    else:
        assert len(known) == len(whole.evaluated)
    before = dict(known)
    computed = []

    def fitness_again(configuration):
        computed.append(configuration)
        return fitness(configuration)

    resumed = search(SPACE, fitness_again, known=before, **options)
    assert resumed == whole
    assert list(resumed.evaluated) == list(whole.evaluated) == [*before, *computed]


def test_what_is_known_beside_the_search_does_not_steer_it():
    alone = search(SPACE, sum)
    best = tuple(n - 1 for n in SPACE)
    assert best not in alone.evaluated
    assert search(SPACE, sum, known={best: 100.0}) == alone


@settings(deadline=None, max_examples=40)
@given(limit=st.integers(0, 25), seed=st.integers(0, 1000))
def test_never_exceeds_the_limit(limit, seed):
    prices = []

    def fitness(configuration):
        prices.append(sum(configuration))
        return float(sum(configuration))  # pulls against the limit

    result = search(SPACE, fitness, cost=sum, max_cost=limit, seed=seed, first=[tuple(n - 1 for n in SPACE)])
    assert max(prices) <= limit
    assert len(prices) == len(result.evaluated) <= 96
    assert is_monotone(result.history)
    assert result.fitness >= limit - 3


def test_a_limit_that_only_the_cheapest_meets_leaves_the_cheapest():
    result = search(SPACE, lambda _: 1.0, cost=sum, max_cost=0)
    assert list(result.evaluated) == [(0,) * 10]
    with pytest.raises(InputError, match="Even the cheapest configuration costs 5: give a max_cost"):
        search(SPACE, lambda _: 1.0, cost=lambda c: 5 + sum(c), max_cost=4)


def test_never_exceeds_a_limit_when_the_costs_are_out_of_order():
    def cost(configuration):
        return sum((0, 9, 1, 5)[gene] for gene in configuration)

    result = search([4] * 6, lambda c: float(cost(c)), cost=cost, max_cost=7)
    assert all(cost(configuration) <= 7 for configuration in result.evaluated)


def test_a_space_smaller_than_the_budget_is_searched_once():
    result = search([2, 1, 3], matches((1, 0, 2)))
    assert sorted(result.evaluated) == sorted(product(range(2), range(1), range(3)))
    assert result.best == (1, 0, 2)


def test_of_equals_the_cheaper_then_the_earlier_wins():
    result = search(SPACE, lambda _: 0.0, cost=sum)
    cheapest = min(map(sum, result.evaluated))
    assert result.best == next(c for c in result.evaluated if sum(c) == cheapest)
    result = search(SPACE, lambda _: 0.0)
    assert result.best == next(iter(result.evaluated))


def test_the_first_are_evaluated_first():
    whole, none = tuple(n - 1 for n in SPACE), (0,) * 10
    result = search(SPACE, matches(none), first=[whole, none, whole])
    assert list(result.evaluated)[:2] == [whole, none]
    assert result.best == none
    assert len(result.evaluated) == 96
    limited = search(SPACE, matches(none), first=[whole, none], cost=sum, max_cost=3)
    assert next(iter(limited.evaluated)) == none


def test_nan_is_below_everything():
    result = search(SPACE, lambda configuration: math.nan if configuration[0] else -100.0)
    assert result.best[0] == 0
    assert result.fitness == -100
    assert search(SPACE, lambda c: (1.0, math.nan if c[0] else -9.0)).best[0] == 0


def test_one_parent_and_one_member_do():
    result = search(SPACE, matches((2,) * 10), population=1, parents=1, generations=20)
    assert len(result.evaluated) == 21
    result = search(SPACE, matches((2,) * 10), population=2, parents=4, generations=10)
    assert len(result.evaluated) == 22
    assert len(search(SPACE, matches((2,) * 10), generations=0).evaluated) == 16


def test_random_configurations_are_uniform_and_keyed():
    draws = [random_configuration([4, 3, 1], 0, step) for step in range(1200)]
    for gene, count in enumerate([4, 3, 1]):
        for choice in range(count):
            assert sum(d[gene] == choice for d in draws) == pytest.approx(1200 / count, rel=0.2)
    assert random_configuration(SPACE, 1, 2) == random_configuration(SPACE, 1, 2)
    assert random_configuration(SPACE, 1) != random_configuration(SPACE, 1, 0)
    assert random_configuration(SPACE, 1, 2) != random_configuration(SPACE, 2, 1)
    assert all(type(gene) is int for gene in draws[0])


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"population": 0}, "population is 0: give a whole number of at least 1"),
        ({"parents": 1.5}, "parents is 1.5: give a whole number"),
        ({"generations": -1}, "generations is -1: give a whole number of at least 0"),
        ({"seed": -1}, "seed is -1"),
        ({"mutation": 1.2}, "mutation is 1.2: give a number from 0 to 1"),
        ({"crossover_share": -0.1}, "crossover_share is -0.1"),
        ({"max_cost": 5}, "max_cost limits nothing without cost"),
        ({"first": [(0,) * 9]}, "does not lie in the space"),
        ({"first": [(9,) * 10]}, "does not lie in the space"),
        ({"first": [(0,) * 10] * 17}, "There are 17 first configurations: give at most 16"),
    ],
)
def test_options_out_of_range_are_refused(options, message):
    with pytest.raises(InputError, match=message):
        search(SPACE, lambda _: 0.0, **options)


@pytest.mark.parametrize("space", [[], [3, 0]])
def test_an_empty_space_is_refused(space):
    with pytest.raises(InputError, match="The search space is empty"):
        search(space, lambda _: 0.0)
