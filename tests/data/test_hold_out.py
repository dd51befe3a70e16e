"""hold_out: stratified, seeded, and never a class without a row for training."""

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from clear_peft.data import hold_out
from clear_peft.errors import InputError


@given(
    labels=st.lists(st.integers(0, 6), min_size=2, max_size=60).filter(lambda v: len(set(v)) < len(v)),
    fraction=st.floats(0.01, 0.99),
    seed=st.integers(0, 99),
)
@settings(deadline=None)
def test_the_parts_are_a_partition_and_every_class_stays_in_training(labels, fraction, seed):
    labels = np.array(labels)
    train, held = hold_out(labels, fraction, seed)
    assert sorted([*train, *held]) == list(range(len(labels)))
    assert (np.diff(train) > 0).all()
    assert (np.diff(held) > 0).all()
    assert set(labels[train]) == set(labels)
    most = len(labels) - len(set(labels))
    assert len(held) == min(max(1, round(fraction * len(labels))), most)
    again = hold_out(labels, fraction, seed)
    np.testing.assert_array_equal(held, again[1])


def test_large_classes_are_split_in_proportion():
    labels = np.repeat([0, 1, 2], [100, 200, 700])
    train, held = hold_out(labels, 0.1, 0)
    assert np.bincount(labels[held]).tolist() == [10, 20, 70]
    assert train.dtype == held.dtype == np.int64
    assert not np.array_equal(held, hold_out(labels, 0.1, 1)[1])


def test_more_classes_than_rows_to_hold_out():
    labels = np.repeat(np.arange(77), 2)
    _, held = hold_out(labels, 0.1, 0)
    assert len(held) == 15
    assert len(set(labels[held])) == 15


@pytest.mark.parametrize("fraction", [0, 1, -0.1, 1.5, float("nan")])
def test_a_fraction_out_of_range_is_refused(fraction):
    with pytest.raises(InputError, match="above 0 and below 1"):
        hold_out(np.array([0, 0]), fraction, 0)


@pytest.mark.parametrize("labels", [[], [0], [0, 1, 2]])
def test_nothing_to_hold_out_is_refused(labels):
    with pytest.raises(InputError, match="no class has two rows"):
        hold_out(np.array(labels, dtype=np.int64), 0.5, 0)


@given(
    st.lists(st.tuples(st.integers(0, 3), st.integers(0, 8)), min_size=4, max_size=60),
    st.sampled_from([0.1, 0.3, 0.5]),
    st.integers(0, 3),
)
def test_groups_stay_on_one_side_and_classes_in_training(rows, fraction, seed):
    labels, groups = (np.array(part) for part in zip(*rows, strict=True))
    assume(np.bincount(labels).max() > 1)
    train, held = hold_out(labels, fraction, seed, groups)
    assert sorted([*train, *held]) == list(range(len(labels)))
    assert set(labels[train]) == set(labels)
    torn = set(groups[train]) & set(groups[held])
    if torn:  # only where nothing could be held out otherwise
        alone = hold_out(labels, fraction, seed)
        assert all(np.array_equal(a, b) for a, b in zip((train, held), alone, strict=True))


def test_copies_do_not_straddle_the_split():
    labels, groups = np.arange(400) % 4, np.repeat(np.arange(100), 4)
    train, held = hold_out(labels, 0.1, 0, groups)
    assert not set(groups[train]) & set(groups[held])
    assert len(held) == 40
