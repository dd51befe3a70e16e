"""Class-conditional label noise: conventions, realised amounts, determinism, refusals."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from clear_peft.errors import InputError
from clear_peft.noise import Corruption, pair_flip, symmetric, transition

N = 20_000


def within_binomial_bounds(realised, expected, n):
    # Five standard deviations: one false alarm in two million.
    return abs(realised - expected) <= 5 * np.sqrt(expected * (1 - expected) / n) + 1e-12


@pytest.fixture(scope="module")
def labels():
    return np.random.default_rng(7).integers(0, 5, N)


@pytest.mark.parametrize("rate", [0.0, 0.2, 0.6, 1.0])
def test_symmetric_exclusive_realises_its_rate_and_spreads_evenly(labels, rate):
    noisy = symmetric(labels, 5, rate, seed=0)
    assert within_binomial_bounds(noisy.rate, rate, N)
    off_diagonal = noisy.matrix[~np.eye(5, dtype=bool)]
    assert all(within_binomial_bounds(share, rate / 4, N / 5.5) for share in off_diagonal)


@pytest.mark.parametrize("rate", [0.0, 0.2, 0.6, 1.0])
def test_symmetric_inclusive_may_draw_the_true_class(labels, rate):
    assert within_binomial_bounds(symmetric(labels, 5, rate, seed=0, inclusive=True).rate, rate * 4 / 5, N)


@pytest.mark.parametrize("rate", [0.0, 0.4, 1.0])
def test_pair_flip_goes_to_the_next_class_only(labels, rate):
    noisy = pair_flip(labels, 5, rate, seed=0)
    assert within_binomial_bounds(noisy.rate, rate, N)
    np.testing.assert_array_equal(noisy.labels[noisy.changed], (labels[noisy.changed] + 1) % 5)


def test_transition_realises_its_matrix(labels):
    matrix = np.random.default_rng(3).dirichlet(np.ones(5), size=5)
    noisy = transition(labels, matrix, seed=0)
    np.testing.assert_allclose(noisy.matrix, matrix, atol=0.04)


def test_transition_takes_an_integer_matrix_as_a_class_map():
    noisy = transition([0, 1, 2, 2], [[0, 1, 0], [0, 1, 0], [1, 0, 0]], seed=5)
    np.testing.assert_array_equal(noisy.labels, [1, 1, 0, 0])
    assert noisy.rate == 0.75


def test_the_same_seed_gives_the_same_labels_and_another_seed_others(labels):
    first, again, other = (symmetric(labels, 5, 0.4, seed=seed).labels for seed in (1, 1, 2))
    np.testing.assert_array_equal(first, again)
    assert (first != other).any()


def test_the_input_is_left_as_it_was(labels):
    before = labels.copy()
    symmetric(labels, 5, 0.9, seed=0)
    np.testing.assert_array_equal(labels, before)


def test_a_class_without_examples_has_its_row_of_the_identity():
    noisy = symmetric([0, 0, 1], 4, 1.0, seed=0)
    np.testing.assert_array_equal(noisy.matrix[2:], np.eye(4)[2:])


label_lists = st.integers(2, 6).flatmap(
    lambda classes: st.tuples(
        st.just(classes), st.lists(st.integers(0, classes - 1), min_size=1, max_size=60)
    )
)


@given(
    label_lists, st.floats(0, 1), st.integers(0, 2**32), st.sampled_from(["inclusive", "exclusive", "pair"])
)
def test_every_corruption_is_consistent_with_itself(drawn, rate, seed, kind):
    classes, labels = drawn
    if kind == "pair":
        noisy = pair_flip(labels, classes, rate, seed)
    else:
        noisy = symmetric(labels, classes, rate, seed, inclusive=kind == "inclusive")
    assert isinstance(noisy, Corruption)
    assert noisy.labels.dtype == np.int64
    assert noisy.changed.dtype == np.bool_
    assert noisy.matrix.shape == (classes, classes)
    assert ((noisy.labels >= 0) & (noisy.labels < classes)).all()
    np.testing.assert_array_equal(noisy.changed, noisy.labels != labels)
    assert noisy.rate == noisy.changed.mean()
    np.testing.assert_allclose(noisy.matrix.sum(axis=1), 1)
    prior = np.bincount(labels, minlength=classes) / len(labels)
    assert noisy.rate == pytest.approx(1 - prior @ np.diag(noisy.matrix))


@given(label_lists, st.integers(0, 2**32))
def test_the_ends_of_the_rate_are_exact(drawn, seed):
    classes, labels = drawn
    assert not symmetric(labels, classes, 0.0, seed).changed.any()
    assert symmetric(labels, classes, 1.0, seed).changed.all()
    assert pair_flip(labels, classes, 1.0, seed).changed.all()


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: symmetric([0, 1], 2, 1.5, 0), "noise rate is 1.5"),
        (lambda: symmetric([0, 1], 2, float("nan"), 0), "noise rate is nan"),
        (lambda: pair_flip([0, 1], 2, -0.1, 0), "noise rate is -0.1"),
        (lambda: symmetric([0, 0], 1, 0.1, 0), "at least 2 classes"),
        (lambda: symmetric([0, 2], 2, 0.1, 0), "from 0 to 1"),
        (lambda: symmetric([0, -100], 2, 0.1, 0), "run from -100"),
        (lambda: symmetric([0.0, 1.0], 2, 0.1, 0), "1-D integers"),
        (lambda: symmetric([[0, 1]], 2, 0.1, 0), "1-D integers"),
        (lambda: symmetric([], 2, 0.1, 0), "non-empty"),
        (lambda: transition([0, 1], np.ones((2, 3)), 0), "square"),
        (lambda: transition([0, 1], [[0.5, 0.4], [0, 1]], 0), "no distribution"),
        (lambda: transition([0, 1], [[1.5, -0.5], [0, 1]], 0), "no distribution"),
        (lambda: transition([0, 1], [[np.nan, 1], [0, 1]], 0), "no distribution"),
    ],
)
def test_wrong_input_is_refused_with_a_remedy(call, message):
    with pytest.raises(InputError, match=message):
        call()
