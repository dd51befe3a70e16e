"""Rows to verify: a random sample that stays one."""

from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import chisquare
from worlds import blobs, symmetric

from clear_peft.errors import InputError
from clear_peft.label_quality import noise_rate_from_sample, rows_to_verify


@given(size=st.integers(1, 60), count=st.integers(0, 70), kinds=st.integers(1, 60), seed=st.integers(0, 3))
@settings(deadline=None, max_examples=80)
def test_what_is_proposed(size, count, kinds, seed):
    rng = np.random.default_rng(seed)
    groups, seen = rng.integers(0, kinds, size), rng.random(size) < 0.3
    found = rows_to_verify(size, count, verified=seen, groups=groups, seed=seed)
    again = rows_to_verify(size, count, verified=seen, groups=groups, seed=seed)
    assert found.rows.dtype == np.int64
    assert len(found.rows) <= count
    assert not seen[found.rows].any()
    assert len(np.unique(groups[found.rows])) == len(found.rows)
    np.testing.assert_array_equal(found.rows, again.rows)
    assert not (found.sampled[~seen] > 0).any()
    # every group without a row that has been looked at can be proposed
    assert len(found.rows) >= min(count, len(np.setdiff1d(groups, groups[seen])))
    if len(np.unique(groups)) == size:
        assert len(found.rows) == min(count, (~seen).sum())


def test_classes_and_flags_say_alike_what_has_been_looked_at():
    told = np.where(np.arange(400) < 380, np.arange(400) % 4, -1)
    for verified in (told, told >= 0):
        found = rows_to_verify(400, 40, verified=verified)
        assert sorted(found.rows) == list(range(380, 400))


def review(size, seed, rounds=3, count=9, groups=None):
    """Everything that is proposed in a few rounds, beside a row that is looked at for another reason."""
    seen, parts = np.arange(size) == size - 1, []
    for _ in range(rounds):
        found = rows_to_verify(size, count, verified=seen, groups=groups, seed=seed)
        seen[found.rows] = True
        parts.append(found)
    return parts, seen, rows_to_verify(size, count, verified=seen, groups=groups, seed=seed).sampled


def test_the_random_sample_is_uniform_whatever_else_is_looked_at():
    counts = np.zeros(20)
    for seed in range(300):
        _, _, sampled = review(20, seed, rounds=2, count=3)
        counts += sampled > 0
    assert chisquare(counts).pvalue > 0.01


def test_of_a_group_every_row_may_be_drawn():
    groups = np.r_[np.zeros(10, int), np.arange(1, 11)]
    counts, weights, seeds = np.zeros(20), np.zeros(20), 500
    for seed in range(seeds):
        found = rows_to_verify(20, 3, groups=groups, seed=seed).rows
        counts[found] += 1
        seen = np.isin(np.arange(20), found)
        weights += rows_to_verify(20, 0, verified=seen, groups=groups, seed=seed).sampled
    assert chisquare(counts[:10]).pvalue > 0.01
    assert chisquare(counts[10:]).pvalue > 0.01
    # weighted, every row of the table is there once on average
    assert weights.sum() / seeds == pytest.approx(20, rel=0.1)
    assert weights[:10].sum() / seeds == pytest.approx(10, rel=0.1)


def test_the_sample_grows_and_gives_the_noise_rate():
    world = blobs(400, symmetric(4, 0.3), distance=5.0)
    parts, seen, sampled = review(400, seed=3, rounds=5, count=30)
    drawn = np.concatenate([part.rows for part in parts])
    assert np.isin(drawn, np.flatnonzero(sampled)).all()
    assert 150 == len(drawn) <= (sampled > 0).sum() <= seen.sum() == 151
    for one, other in pairwise(parts):
        assert np.isin(np.flatnonzero(one.sampled), np.flatnonzero(other.sampled)).all()
    told = np.where(seen, world.true, -1)
    rate, (low, high) = noise_rate_from_sample(np.full(400, 0.7), told, world.given, sampled)
    assert low <= world.wrong.mean() <= high
    assert rate == pytest.approx(world.wrong.mean(), abs=0.1)


def test_a_row_that_is_left_out_is_asked_for_again_and_ends_the_sample():
    first = rows_to_verify(400, 30).rows
    seen = np.isin(np.arange(400), np.delete(first, 4))
    after = rows_to_verify(400, 30, verified=seen)
    assert after.rows[0] == first[4]
    assert set(np.flatnonzero(after.sampled)) == set(first[:4])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"count": -1}, "count is -1"),
        ({"verified": np.zeros(3, int)}, r"verified has shape \(3,\).*each of the 30 rows"),
        ({"verified": np.zeros(30)}, "dtype float64"),
        ({"groups": [0, 1]}, "groups have shape"),
    ],
)
def test_what_is_no_table_is_refused(change, message):
    with pytest.raises(InputError, match=message):
        rows_to_verify(**({"size": 30, "count": 5} | change))
