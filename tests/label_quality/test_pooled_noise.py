"""Rates of wrong and missing labels, on scores whose truth is known."""

from dataclasses import replace

import numpy as np
import pytest
from scipy.optimize import check_grad
from scipy.special import expit
from sklearn.metrics import average_precision_score

from clear_peft.label_quality.pooled_noise import PooledNoise, _Problem, fit_pooled_noise


def _world(size, often, missing, added, *, sharpness=5.0, seed=0):
    """Log odds (1, N, C) that are right, true labels, and given ones; ``added`` wrong ones a true one."""
    rng = np.random.default_rng(seed)
    scores = sharpness * (rng.normal(size=(size, len(often))) + np.log(np.array(often)) * 0.8)
    true = rng.random(scores.shape) < expit(scores)
    lost = true & (rng.random(scores.shape) < missing)
    extra = ~true & (rng.random(scores.shape) < np.asarray(added) * true.mean(axis=0))
    return scores[None], true, (true & ~lost) | extra


def test_the_gradient_is_that_of_the_objective():
    rng = np.random.default_rng(0)
    problem = _Problem(rng.normal(size=(2, 40, 3)), rng.random((40, 3)) < 0.3, rng.uniform(0.5, 2, 40))
    theta = 0.3 * rng.normal(size=4 * 5)
    assert check_grad(lambda t: problem._negative(t)[0], lambda t: problem._negative(t)[1], theta) < 1e-4


@pytest.mark.parametrize(("missing", "added"), [(0.0, 0.0), (0.2, 0.0), (0.0, 0.2), (0.1, 0.1)])
def test_rates_are_found(missing, added):
    scores, _, given = _world(4000, [0.3, 0.2, 0.1], missing, added)
    noise = fit_pooled_noise(scores, given, np.ones(len(given)))
    added_for_each = noise.added / given.mean(axis=0)
    np.testing.assert_allclose([noise.missing.mean(), added_for_each.mean()], [missing, added], atol=0.05)
    np.testing.assert_allclose([noise.missing, added_for_each], [[missing] * 3, [added] * 3], atol=0.1)
    assert not noise.confusion.any()


def test_labels_keep_rates_of_their_own_where_they_show_them():
    scores, _, given = _world(6000, [0.3] * 4, [0.05, 0.05, 0.05, 0.4], 0.0)
    noise = fit_pooled_noise(scores, given, np.ones(len(given)))
    assert noise.missing[3] > 0.3
    assert noise.missing[:3].max() < 0.12


def test_a_rare_label_takes_its_rates_from_the_others():
    often = [0.3] * 6 + [0.03]
    scores, true, given = _world(700, often, 0.25, 0.0, seed=3)
    wrong = true[:, 6] & ~given[:, 6]
    ones = np.ones(len(given))
    together = fit_pooled_noise(scores, given, ones)
    alone = fit_pooled_noise(scores[..., 6:], given[:, 6:], ones)
    assert wrong.sum() < 10
    assert abs(together.missing[6] - 0.25) < 0.07
    assert abs(together.missing[6] - 0.25) < abs(alone.missing[0] - 0.25)


def test_a_label_that_is_taken_for_another_is_found():
    scores, true, _ = _world(3000, [0.25] * 4, 0.0, 0.0)
    hit = true[:, 0] & (np.random.default_rng(5).random(len(true)) < 0.3)
    given = true.copy()
    given[hit, 0], given[hit, 1] = False, True
    # scores that were fitted to such labels expect label 1 a little where 0 applies
    scores[0, :, 1] = np.maximum(scores[0, :, 1], np.where(true[:, 0], np.log(0.3 / 0.7), -np.inf))
    noise = fit_pooled_noise(scores, given, np.ones(len(given)))
    assert noise.confusion[0, 1] > 0.4
    assert (noise.confusion > 0).sum() == 1
    is_given, wrong = given[:, 1], (hit & ~true[:, 1])[given[:, 1]]
    apart = replace(noise, confusion=np.zeros((4, 4)))
    alone, together = (each.judge(scores, given).clean_probability[is_given, 1] for each in (apart, noise))
    assert average_precision_score(wrong, -together) > average_precision_score(wrong, -alone) + 0.1
    assert together[wrong].mean() < alone[wrong].mean() - 0.2
    assert together[~wrong].mean() > 0.95


def test_judgement_is_bayes_rule():
    noise = PooledNoise(
        np.ones((2, 1)), np.zeros(2), np.array([0.1, 0.2]), np.array([0.05, 0.02]), np.zeros((2, 2))
    )
    odds = np.log(np.array([[0.3, 0.9]]) / np.array([[0.7, 0.1]]))
    q, p = noise.judge(odds[None], np.array([[True, False]]))
    np.testing.assert_allclose(q, [[0.3, 0.9]])
    np.testing.assert_allclose(p[0, 0], 0.3 * 0.9 / (0.3 * 0.9 + 0.7 * 0.05))
    np.testing.assert_allclose(p[0, 1], 0.1 * 0.98 / (0.1 * 0.98 + 0.9 * 0.2))


def test_rows_that_count_twice_are_as_two_rows():
    scores, _, given = _world(300, [0.3, 0.2], 0.1, 0.1)
    twice = fit_pooled_noise(np.repeat(scores, 2, axis=1), np.repeat(given, 2, axis=0), np.ones(600))
    counted = fit_pooled_noise(scores, given, np.full(300, 2.0))
    np.testing.assert_allclose(twice.missing, counted.missing, atol=1e-3)
