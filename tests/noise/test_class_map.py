"""The class map: only the classes in it flip, and only to where it says."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from clear_peft.errors import InputError
from clear_peft.noise import class_map, pair_flip

N = 20_000


@pytest.fixture(scope="module")
def labels():
    return np.random.default_rng(7).integers(0, 4, N)


def test_classes_flip_to_their_image_at_the_rate_and_others_are_kept(labels):
    noisy = class_map(labels, 4, {0: 2, 3: 2}, 0.3, seed=0)
    expected = np.eye(4)
    expected[[0, 3], [0, 3]] = 0.7
    expected[[0, 3], 2] = 0.3
    # five standard deviations of a share of about 5,000 examples
    np.testing.assert_allclose(noisy.matrix, expected, atol=5 * np.sqrt(0.3 * 0.7 / 4_900))
    assert set(noisy.labels[noisy.changed]) == {2}
    assert not noisy.changed[(labels == 1) | (labels == 2)].any()


def test_two_classes_may_trade_places():
    noisy = class_map([0, 1, 2], 3, {0: 1, 1: 0}, 1.0, seed=0)
    np.testing.assert_array_equal(noisy.labels, [1, 0, 2])


def test_the_pair_flip_is_a_class_map(labels):
    ring = {0: 1, 1: 2, 2: 3, 3: 0}
    np.testing.assert_array_equal(
        class_map(labels, 4, ring, 0.4, seed=5).labels, pair_flip(labels, 4, 0.4, seed=5).labels
    )


@given(
    st.lists(st.integers(0, 4), min_size=1, max_size=50),
    st.dictionaries(st.integers(0, 4), st.integers(0, 4)),
    st.floats(0, 1),
    st.integers(0, 2**32),
)
def test_every_changed_label_follows_the_map(labels, mapping, rate, seed):
    noisy = class_map(labels, 5, mapping, rate, seed)
    for before, after, changed in zip(labels, noisy.labels, noisy.changed, strict=True):
        assert changed == (after != before)
        assert after in (before, mapping.get(before, before))
    assert not class_map(labels, 5, mapping, 0.0, seed).changed.any()


@pytest.mark.parametrize(
    ("mapping", "rate", "message"),
    [
        ({0: 3}, 0.5, "names 3"),
        ({-1: 0}, 0.5, "names -1"),
        ({"a": 0}, 0.5, "names 'a'"),
        ({0: 1}, 1.1, "noise rate is 1.1"),
    ],
)
def test_wrong_input_is_refused(mapping, rate, message):
    with pytest.raises(InputError, match=message):
        class_map([0, 1, 2], 3, mapping, rate, 0)
