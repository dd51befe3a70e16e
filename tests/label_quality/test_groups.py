"""Groups: who is left out together, and how much a copy counts."""

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from clear_peft.errors import InputError
from clear_peft.label_quality import as_groups, combined, identical_rows
from clear_peft.label_quality.groups import copy_weights


def numbered(groups):
    """Whether ids go from 0 in the order of their first rows."""
    return groups.dtype == np.int64 and list(dict.fromkeys(groups.tolist())) == list(range(len(set(groups))))


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ([5, 5, 2, 5], [0, 0, 1, 0]),
        ([-1, 3, -1, 3, -2], [0, 1, 2, 1, 3]),
        ([-1, -1], [0, 1]),
        (["b", "a", "b"], [0, 1, 0]),
        (["b", None, None, "b"], [0, 1, 2, 0]),
        (["b", "", " ", "", "b"], [0, 1, 2, 3, 0]),
        ([1.0, np.nan, np.nan, 1.0, -4.0, -4.0], [0, 1, 2, 0, 3, 4]),
        ([], []),
    ],
)
def test_values_become_groups(values, expected):
    groups = as_groups(values, len(values))
    assert groups.tolist() == expected
    assert numbered(groups)


@given(st.lists(st.integers(-2, 6), max_size=30))
def test_rows_are_together_if_their_values_are_equal_and_not_negative(values):
    groups = as_groups(np.array(values, np.int64), len(values))
    assert numbered(groups)
    for i in range(len(values)):
        for j in range(i):
            assert (groups[i] == groups[j]) == (values[i] == values[j] >= 0)


def by_hand(values):
    """Groups of values, None where there is none, pair by pair."""
    groups = []
    for i, value in enumerate(values):
        alone = value is None or (not isinstance(value, str) and value < 0)
        first = i if alone else values.index(value)
        groups.append(groups[first] if first < i else max(groups, default=-1) + 1)
    return groups


@pytest.mark.parametrize("missing", [None, float("nan"), pd.NA, pd.NaT], ids=repr)
@given(st.lists(st.none() | st.sampled_from(["a", "b", "nan", "None", "-1"]), max_size=12))
def test_groups_by_name_are_the_same_in_whatever_they_come(missing, values):
    given = [missing if value is None else value for value in values]
    objects = np.empty(len(given), object)
    objects[:] = given
    ways = [given, tuple(given), objects]
    ways += [pd.Series(given, dtype=kind) for kind in (object, "string", "str")]
    # a category cannot hold NaT beside text
    ways += [pd.Series(values, dtype=kind) for kind in (object, "category")]
    for way in ways:
        assert as_groups(way, len(values)).tolist() == by_hand(values), way


@pytest.mark.parametrize("missing", [None, float("nan"), pd.NA, pd.NaT], ids=repr)
@given(st.lists(st.none() | st.integers(-2, 3), max_size=12))
def test_groups_by_number_are_the_same_in_whatever_they_come(missing, values):
    given = [missing if value is None else value for value in values]
    objects = np.empty(len(given), object)
    objects[:] = given
    ways = [given, tuple(given), objects, pd.Series(given, dtype=object)]
    ways += [pd.Series(values, dtype=kind) for kind in (object, "Int64", "Int8", "float64", "category")]
    for way in ways:
        assert as_groups(way, len(values)).tolist() == by_hand(values), way


def test_rows_of_several_values_are_refused():
    with pytest.raises(InputError, match=r"^groups have shape \(2, 2\): give one for each of the 2 rows\.$"):
        as_groups([("a", None), ("b", "c")], 2)


def test_too_few_groups_are_refused():
    with pytest.raises(InputError, match=r"^groups have shape \(2,\): give one for each of the 3 rows\.$"):
        as_groups([0, 1], 3)


def joined(first, second):
    """By relabelling until nothing changes."""
    groups, before = list(range(len(first))), None
    while groups != before:
        before = list(groups)
        for values in (first, second):
            for i, one in enumerate(values):
                groups[i] = min(groups[i], *(groups[j] for j, other in enumerate(values) if one == other))
    return groups


@settings(max_examples=80, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 6), st.integers(0, 6)), min_size=1, max_size=16))
def test_what_hangs_together_is_one_group_if_it_is_little(pairs):
    alone = np.arange(7, 7 + 10 * len(pairs))  # so many that no group is a tenth of the rows
    copies, groups = (as_groups([*part, *alone], 11 * len(pairs)) for part in zip(*pairs, strict=True))
    found = combined(copies, groups)
    assert numbered(found)
    assert found.tolist() == as_groups(joined(copies, groups), len(copies)).tolist()


@pytest.mark.parametrize("copies", [255, 256, 512])
def test_a_link_that_many_rows_make_is_a_link(copies):
    first = np.append(np.zeros(copies + 1, np.int64), np.arange(1, 20 * copies))
    second = np.append(np.arange(copies + 1) // copies, np.arange(2, 20 * copies + 1))
    assert (combined(first, second)[: copies + 1] == 0).all()


def test_a_word_of_thanks_from_each_customer_does_not_make_all_customers_one():
    customers = np.repeat(np.arange(20), 15)
    copies = np.arange(300)
    copies[::15] = 0
    assert np.bincount(combined(as_groups(copies, 300), customers)).max() == 20


def test_copies_count_together_as_one_row():
    copies = np.array([0, 1, 0, 2, 0, 2])
    weights = copy_weights(copies)
    np.testing.assert_allclose(weights, [1 / 3, 1, 1 / 3, 1 / 2, 1 / 3, 1 / 2])
    np.testing.assert_allclose(np.bincount(copies, weights), 1)


@pytest.mark.parametrize("shape", [(6, 3), (6, 2, 3)])
def test_identical_rows_are_found(shape):
    features = np.random.default_rng(0).normal(size=shape).astype(np.float32)
    features[4], features[5] = features[1], features[1] + 1e-6
    groups = identical_rows(features)
    assert groups.dtype == np.int64
    assert groups[1] == groups[4] == groups[5]
    assert len(set(groups[:4])) == 4


@given(
    st.integers(1, 4).flatmap(lambda n: st.lists(st.tuples(*[st.integers(-20, 20)] * n), min_size=1)),
    st.integers(-5000, 5000),
)
def test_a_column_of_far_larger_numbers_hides_no_other(rows, offset):
    features = np.array(rows, np.float32)
    features[:, 0] *= 4096
    different = list(dict.fromkeys(rows))
    groups = as_groups(identical_rows(features + offset), len(rows))
    assert groups.tolist() == [different.index(row) for row in rows]


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
@pytest.mark.parametrize("large", [0, 1e-3, 2000, 6e4])
@pytest.mark.parametrize("size", [1e-3, 1, 1000])
def test_rows_are_told_apart_beside_a_constant_on_any_scale(dtype, large, size):
    features = (size * np.random.default_rng(0).normal(size=(200, 16))).astype(dtype)
    features = np.column_stack([features, np.full(200, large, dtype)])
    features[150:] = features[:50]
    groups = identical_rows(features)
    assert len(set(groups)) == 150
    np.testing.assert_array_equal(groups[150:], groups[:50])


@pytest.mark.parametrize(
    "column",
    [
        [0.0, 0.0, 0.0],
        [5e-324, 5e-324, 5e-324],
        np.array([60000, -60000, 60000], np.float16),
        [1.5e308, -1.5e308, 1.5e308],
        np.array([-128, 127, -128], np.int8),
    ],
)
def test_numbers_at_the_ends_of_what_there_is(column):
    groups = identical_rows(np.array(column)[:, None])
    assert groups[0] == groups[2]
    assert (groups[0] == groups[1]) == (column[0] == column[1])


def test_identical_rows_are_found_part_by_part(monkeypatch, tmp_path):
    features = np.random.default_rng(0).normal(size=(50, 2, 4)).astype(np.float32)
    features[49] = features[3]
    np.save(tmp_path / "rows.npy", features)
    whole = identical_rows(features)
    assert whole[49] == whole[3]
    assert len(set(whole)) == 49
    monkeypatch.setattr("clear_peft.label_quality.groups._CELLS_AT_ONCE", 30)
    np.testing.assert_array_equal(identical_rows(np.load(tmp_path / "rows.npy", mmap_mode="r")), whole)
