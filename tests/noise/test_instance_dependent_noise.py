"""Instance-dependent noise: its rate, what it depends on and what it does not, refusals."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from clear_peft.errors import InputError
from clear_peft.noise import instance_dependent

N, S, C = 20_000, 16, 5


@pytest.fixture(scope="module")
def labels():
    return np.random.default_rng(7).integers(0, C, N)


@pytest.fixture(scope="module")
def features():
    return np.random.default_rng(8).normal(size=(N, S)).astype(np.float32)


# the mean of a normal variable with standard deviation 0.1, truncated to [0, 1], by its closed form
@pytest.mark.parametrize(
    ("rate", "mean"), [(0.1, 0.128760), (0.2, 0.205525), (0.4, 0.400013), (0.6, 0.599987), (1.0, 0.920212)]
)
def test_the_rate_is_the_mean_of_the_truncated_normal(labels, features, rate, mean):
    realised = instance_dependent(labels, features, C, rate, seed=0).rate
    assert abs(realised - mean) <= 5 * np.sqrt(mean * (1 - mean) / N)


def test_rate_zero_changes_nothing(labels, features):
    assert not instance_dependent(labels, features, C, 0.0, seed=0).changed.any()


def test_like_examples_of_a_class_are_mislabelled_alike_and_others_otherwise():
    # two groups of one class, each with one direction
    directions = np.repeat(np.random.default_rng(1).normal(size=(2, S)), N // 2, axis=0)
    noisy = instance_dependent(np.zeros(N, int), directions, C, 0.5, seed=0)
    first, second = (
        np.bincount(half[half > 0], minlength=C)[1:] / (half > 0).sum() for half in np.split(noisy.labels, 2)
    )
    # scores have standard deviation 1: shares differ by far more than chance, which is 5·√(0.25/5000) at most
    assert np.abs(first - second).max() > 0.1
    other = instance_dependent(np.zeros(N, int), directions, C, 0.5, seed=1).labels[: N // 2]
    shares = np.bincount(other[other > 0], minlength=C)[1:] / (other > 0).sum()
    assert np.abs(first - shares).max() > 0.1


def test_shares_follow_the_softmax_of_the_scores():
    direction = np.random.default_rng(1).normal(size=S)
    noisy = instance_dependent(np.full(N, 2), np.tile(direction, (N, 1)), C, 0.5, seed=3)
    # the third class's own generator, as a reader of the docstring would draw W
    weights = np.random.default_rng(3).spawn(C)[2].standard_normal((S, C))
    chances = np.exp(direction / np.linalg.norm(direction) @ weights)
    chances[2] = 0
    expected = 0.5 * chances / chances.sum()
    expected[2] = 0.5
    shares = np.bincount(noisy.labels, minlength=C) / N
    np.testing.assert_allclose(shares, expected, atol=5 * np.sqrt(0.25 / N))


def test_the_length_of_a_feature_does_not_matter(labels, features):
    scaled = features * np.random.default_rng(2).uniform(0.1, 9, (N, 1)).astype(np.float32)
    plain, other = (instance_dependent(labels, x, C, 0.4, seed=0).labels for x in (features, scaled))
    assert (plain != other).mean() < 1e-3  # float32 rounding alone


def test_what_a_class_draws_does_not_depend_on_the_others(features):
    ones, mixed = np.ones(N, int), np.ones(N, int)
    mixed[::2] = 3
    alone = instance_dependent(ones, features, C, 0.4, seed=0).labels
    among = instance_dependent(mixed, features, C, 0.4, seed=0).labels
    np.testing.assert_array_equal(alone[1::2], among[1::2])


def test_the_same_seed_gives_the_same_labels_and_another_seed_others(labels, features):
    first, again, other = (instance_dependent(labels, features, C, 0.4, seed=s).labels for s in (1, 1, 2))
    np.testing.assert_array_equal(first, again)
    assert (first != other).any()


@given(
    st.integers(2, 6).flatmap(
        lambda classes: st.tuples(
            st.just(classes), st.lists(st.integers(0, classes - 1), min_size=1, max_size=40)
        )
    ),
    st.floats(0, 1),
    st.integers(0, 2**32),
)
def test_every_corruption_is_consistent_with_itself(drawn, rate, seed):
    classes, labels = drawn
    features = np.random.default_rng(seed).normal(size=(len(labels), 3))
    noisy = instance_dependent(labels, features, classes, rate, seed)
    assert noisy.labels.dtype == np.int64
    assert ((noisy.labels >= 0) & (noisy.labels < classes)).all()
    np.testing.assert_array_equal(noisy.changed, noisy.labels != labels)
    assert noisy.rate == noisy.changed.mean()
    prior = np.bincount(labels, minlength=classes) / len(labels)
    assert noisy.rate == pytest.approx(1 - prior @ np.diag(noisy.matrix))


@pytest.mark.parametrize(
    ("features", "rate", "message"),
    [
        (np.ones((3, 4)), 0.4, r"shape \(3, 4\).*each of the 2 labels"),
        (np.ones(2), 0.4, "give floats"),
        (np.ones((2, 4), int), 0.4, "dtype int64"),
        (np.array([[1.0, 2.0], [0.0, 0.0]]), 0.4, "zero or not finite"),
        (np.array([[1.0, 2.0], [np.nan, 0.0]]), 0.4, "zero or not finite"),
        (np.ones((2, 0)), 0.4, "zero or not finite"),
        (np.ones((2, 4)), -0.1, "noise rate is -0.1"),
    ],
)
def test_wrong_input_is_refused(features, rate, message):
    with pytest.raises(InputError, match=message):
        instance_dependent([0, 1], features, 2, rate, 0)
