"""Losses of different moments, moved to one."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import roc_auc_score

from clear_peft.label_quality import log_odds, moved_to


def learning(size=2000, seed=0):
    """Losses of an epoch, in which right labels part from wrong ones, and what they are at its end."""
    rng = np.random.default_rng(seed)
    wrong, times = rng.random(size) < 0.4, rng.permutation(np.linspace(2, 3, size))
    end = np.where(wrong, 2.0, -2.0) + rng.normal(0, 0.8, size)
    now = 0.7 * (3 - times) + end * (1 - 0.6 * (3 - times))
    return (np.logaddexp(0, a).astype(np.float32) for a in (now, end)), times, wrong


def test_what_was_seen_early_is_moved_to_what_it_became():
    (now, end), times, wrong = learning()
    moved = moved_to(now, times, 3.0)
    before, after = (np.abs(log_odds(a) - log_odds(end)).mean() for a in (now, moved))
    assert after < 0.25 * before
    assert roc_auc_score(wrong, moved) > roc_auc_score(wrong, now)


def test_where_nothing_is_learnt_nothing_moves():
    scores = np.tile([-2.0, -1.0, 0.0, 1.0, 3.0], 100)
    losses = np.logaddexp(0, scores).astype(np.float32)
    np.testing.assert_allclose(moved_to(losses, np.linspace(0, 1, 500), 1.0), losses, rtol=1e-4)


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 400), st.integers(0, 2**31))
def test_whatever_comes_losses_remain_losses(size, seed):
    rng = np.random.default_rng(seed)
    losses = rng.exponential(rng.choice([1e-7, 1.0, 50.0]), size).astype(np.float32)
    times = rng.choice([0.0, 0.5, 1.0], size) * rng.choice([0, 1])
    moved = moved_to(losses, times, 1.0)
    assert moved.shape == (size,)
    assert moved.dtype == np.float32
    assert np.isfinite(moved).all()
    assert (moved >= 0).all()


@pytest.mark.parametrize("size", [0, 1, 59])
def test_a_few_losses_are_left_alone(size):
    losses = np.random.default_rng(0).exponential(1, size).astype(np.float32)
    assert np.array_equal(moved_to(losses, np.linspace(0, 1, size), 1.0), losses)
