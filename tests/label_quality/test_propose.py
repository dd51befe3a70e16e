"""Rows to verify: a random sample that stays one, and rows that represent others."""

from dataclasses import replace
from functools import cache
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import chisquare
from worlds import blobs, symmetric

from clear_peft.errors import InputError
from clear_peft.label_quality import (
    LabelQuality,
    TopProbs,
    fit_probe,
    noise_rate_from_sample,
    rows_to_verify,
)


def quality_of(given, pred_probs, p, groups=None):
    """What a scan says, but for its noise model."""
    own = pred_probs[np.arange(len(given)), given].astype(np.float32)
    groups = np.arange(len(given)) if groups is None else groups
    return LabelQuality(given, TopProbs.of(pred_probs), own, np.asarray(p, np.float32), None, None, groups)


def table(size, classes=3, seed=0, groups=None):
    rng = np.random.default_rng(seed)
    pred_probs = rng.dirichlet(np.ones(classes), size)
    quality = quality_of(rng.integers(0, classes, size), pred_probs, rng.random(size), groups)
    return rng.normal(size=(size, 6)).astype(np.float32), quality


@cache
def scanned():
    world = blobs(400, symmetric(4, 0.3), distance=5.0)
    return world, fit_probe(world.features, world.given, 4)[1]


@given(
    size=st.integers(1, 60),
    count=st.integers(0, 70),
    share=st.sampled_from([0.0, 0.2, 1 / 3, 0.5, 1.0]),
    kinds=st.integers(1, 60),
    seed=st.integers(0, 3),
)
@settings(deadline=None, max_examples=80)
def test_what_is_proposed(size, count, share, kinds, seed):
    rng = np.random.default_rng(seed)
    groups, seen = rng.integers(0, kinds, size), rng.random(size) < 0.3
    features, quality = table(size, seed=seed, groups=groups)
    found = rows_to_verify(features, quality, count, verified=seen, seed=seed, random_share=share)
    again = rows_to_verify(features, quality, count, verified=seen, seed=seed, random_share=share)
    assert found.rows.dtype == np.int64
    assert len(found.rows) == len(found.reason) == len(found.random) <= count
    assert not seen[found.rows].any()
    assert len(np.unique(groups[found.rows])) == len(found.rows)
    np.testing.assert_array_equal(found.rows, again.rows)
    assert found.reason == again.reason
    assert [why == "random sample" for why in found.reason] == found.random.tolist()
    assert not (found.sampled[~seen] > 0).any()
    # every group without a row that has been looked at can be proposed
    assert len(found.rows) >= min(count, len(np.setdiff1d(groups, groups[seen])))
    if len(np.unique(groups)) == size:
        assert len(found.rows) == min(count, (~seen).sum())
        if len(found.rows) == count:
            assert found.random.sum() == int(np.ceil(count * share - 1e-9))


def test_answers_that_the_quality_knows_are_not_asked_for_again():
    world, quality = scanned()
    told = np.where(np.arange(400) < 380, world.true, -1)
    for known, verified in ((replace(quality, verified=told), None), (quality, told), (quality, told >= 0)):
        found = rows_to_verify(world.features, known, 40, verified=verified)
        assert sorted(found.rows) == list(range(380, 400))


def review(features, quality, seed, rounds=3, count=9):
    """Everything that is proposed in a few rounds."""
    seen, parts = np.zeros(len(quality), bool), []
    for _ in range(rounds):
        found = rows_to_verify(features, quality, count, verified=seen, seed=seed)
        seen[found.rows] = True
        parts.append(found)
    last = rows_to_verify(features, quality, count, verified=seen, seed=seed)
    return parts, seen, last.sampled


def test_the_random_sample_is_uniform_whatever_else_is_looked_at():
    features, quality = table(20)
    counts = np.zeros(20)
    for seed in range(300):
        _, _, sampled = review(features, quality, seed, rounds=2, count=3)
        counts += sampled > 0
    assert chisquare(counts).pvalue > 0.01


def test_of_a_group_every_row_may_be_drawn():
    groups = np.r_[np.zeros(10, int), np.arange(1, 11)]
    features, quality = table(20, groups=groups)
    counts, weights, seeds = np.zeros(20), np.zeros(20), 500
    for seed in range(seeds):
        parts, seen, _ = review(features, quality, seed, rounds=1, count=6)
        sampled = rows_to_verify(features, quality, 0, verified=seen, seed=seed).sampled
        counts[parts[0].rows[parts[0].random]] += 1
        weights += sampled
    assert chisquare(counts[:10]).pvalue > 0.01
    assert chisquare(counts[10:]).pvalue > 0.01
    # weighted, every row of the table is there once on average
    assert weights.sum() / seeds == pytest.approx(20, rel=0.1)
    assert weights[:10].sum() / seeds == pytest.approx(10, rel=0.1)


def test_the_sample_grows_and_gives_the_noise_rate():
    world, quality = scanned()
    parts, seen, sampled = review(world.features, quality, seed=3, rounds=5, count=30)
    drawn = np.concatenate([part.rows[part.random] for part in parts])
    assert np.isin(drawn, np.flatnonzero(sampled)).all()
    assert 50 == len(drawn) <= (sampled > 0).sum() < seen.sum() == 150
    for one, other in pairwise(parts):
        assert np.isin(np.flatnonzero(one.sampled), np.flatnonzero(other.sampled)).all()
    told = np.where(seen, world.true, -1)
    rate, (low, high) = noise_rate_from_sample(quality.clean_probability, told, world.given, sampled)
    assert low <= world.wrong.mean() <= high
    assert rate == pytest.approx(world.wrong.mean(), abs=0.15)


def test_a_row_that_is_left_out_is_asked_for_again_and_ends_the_sample():
    world, quality = scanned()
    first = rows_to_verify(world.features, quality, 30)
    drawn = first.rows[first.random]
    seen = np.isin(np.arange(400), np.delete(first.rows, np.flatnonzero(first.random)[4]))
    after = rows_to_verify(world.features, quality, 30, verified=seen)
    assert after.rows[after.random][0] == drawn[4]
    assert set(np.flatnonzero(after.sampled)) == set(drawn[:4])


def test_a_part_of_what_is_shown_is_a_mixture():
    world, quality = scanned()
    random = rows_to_verify(world.features, quality, 30).random
    assert random.sum() == 10
    assert (random.reshape(10, 3).sum(axis=1) == 1).all()


def kinds_of_rows():
    """Five kinds of rows that lie apart, and their sizes."""
    rng = np.random.default_rng(0)
    kinds = np.repeat(np.arange(5), [200, 100, 50, 30, 20])
    features = (10 * np.eye(5)[kinds] + rng.normal(size=(400, 5))).astype(np.float32)
    return kinds, features, quality_of(kinds % 2, np.full((400, 2), 0.5), np.full(400, 0.9))


def test_rows_represent_as_many_as_are_like_them():
    kinds, features, quality = kinds_of_rows()
    found = rows_to_verify(features, quality, 40, random_share=0)
    assert set(kinds[found.rows]) == {0, 1, 2, 3, 4}
    stands_for = np.array([int(why.split()[1]) for why in found.reason])
    assert stands_for.sum() == 400
    assert (np.diff(stands_for) <= 0).all()
    np.testing.assert_array_equal(np.bincount(kinds[found.rows], stands_for), [200, 100, 50, 30, 20])


def test_of_a_cluster_every_row_may_be_proposed():
    kinds, features, quality = kinds_of_rows()
    counts = np.zeros(400)
    for seed in range(300):
        found = rows_to_verify(features, quality, 20, random_share=0, seed=seed)
        counts[found.rows] += 1
    of_kind = np.bincount(kinds, counts) / counts.sum()
    np.testing.assert_allclose(of_kind, np.bincount(kinds) / 400, atol=0.06)
    # no row of the largest kind is nobody's, and none is everybody's
    assert counts[kinds == 0].min() >= 1
    assert counts[kinds == 0].max() < 60


def test_once_there_are_answers_rows_in_doubt_are_drawn_more_often():
    rng = np.random.default_rng(0)
    p = np.where(np.arange(400) < 40, 0.5, 1.0)
    quality = quality_of(rng.integers(0, 2, 400), np.full((400, 2), 0.5), p)
    features, seen = rng.normal(size=(400, 5)), np.arange(400) == 399
    doubtful, drawn = 0, 0
    for seed in range(300):
        found = rows_to_verify(features, quality, 2, verified=seen, random_share=0, seed=seed)
        assert found.reason == ["its label is in doubt"] * 2
        doubtful, drawn = doubtful + (found.rows < 40).sum(), drawn + 2
    # 40 rows with the weight 1.05, and 359 with 0.05
    assert doubtful / drawn == pytest.approx(42 / (42 + 17.95), abs=0.06)


def test_of_like_texts_those_with_another_label_are_represented_too():
    rng = np.random.default_rng(0)
    given = np.arange(300) % 30 // 29  # one in thirty
    quality = quality_of(given, np.full((300, 2), 0.5), np.full(300, 0.9))
    found = rows_to_verify(rng.normal(size=(300, 5)), quality, 6, random_share=0)
    assert set(given[found.rows]) == {0, 1}


def test_views_and_many_rows():
    features, quality = table(12_000)
    views = np.stack([np.zeros_like(features), features], axis=1)
    one, other = (rows_to_verify(rows, quality, 12) for rows in (features, views))
    np.testing.assert_array_equal(one.rows, other.rows)
    assert len(one.rows) == 12


def test_rows_that_are_all_alike():
    _, quality = table(30)
    assert len(rows_to_verify(np.zeros((30, 4)), quality, 40).rows) == 30


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"features": np.zeros((3, 2))}, r"shape \(3, 2\).*each of 30 labels"),
        ({"features": np.zeros(30)}, "shape"),
        ({"count": -1}, "count is -1"),
        ({"random_share": 1.5}, "random_share is 1.5"),
        ({"verified": np.zeros(3, int)}, r"verified has shape \(3,\).*each of the 30 rows"),
        ({"verified": np.zeros(30)}, "dtype float64"),
        ({"groups": [0, 1]}, "groups have shape"),
    ],
)
def test_what_is_no_table_is_refused(change, message):
    features, quality = table(30)
    with pytest.raises(InputError, match=message):
        rows_to_verify(**({"features": features, "quality": quality, "count": 5} | change))
