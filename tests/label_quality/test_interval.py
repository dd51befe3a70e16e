"""The interval of the noise rate: it covers the truth of worlds in which the noise model holds."""

import numpy as np
import pytest
from worlds import linear, pair, symmetric

from clear_peft.label_quality import fit_probe, label_quality_from_pred_probs
from clear_peft.label_quality.interval import noise_rate_interval


def judged(size, transition, seed, **options):
    world = linear(size, transition, seed=seed, **options)
    return world, fit_probe(world.features, world.given, len(transition))[1]


@pytest.mark.parametrize("transition", [symmetric(3, 0.25), pair(4, 0.25), np.eye(3)])
def test_the_true_rate_is_inside(transition):
    covered = 0
    for seed in range(10):
        world, quality = judged(500, transition, seed)
        low, high = quality.noise_rate_interval
        assert 0 <= low <= quality.noise_rate <= high <= 1
        assert high - low < 0.5
        covered += low <= world.wrong.mean() <= high
    assert covered >= 9


def test_fewer_rows_have_a_wider_interval():
    few, many = (
        np.mean([np.diff(judged(size, symmetric(3, 0.25), seed)[1].noise_rate_interval) for seed in range(3)])
        for size in (200, 3000)
    )
    assert few > 1.3 * many


@pytest.mark.parametrize("sharpness", [1.0, 8.0])
def test_clean_labels_may_have_no_noise(sharpness):
    for seed in range(3):
        low, high = judged(1500, np.eye(3), seed, sharpness=sharpness)[1].noise_rate_interval
        assert low == 0
        assert high < 0.25


def test_copies_make_no_rate_surer():
    world = linear(300, symmetric(3, 0.25))
    rows = np.repeat(np.arange(300), 4)
    pred_probs = np.exp(world.scores) / np.exp(world.scores).sum(axis=1, keepdims=True)
    alone = label_quality_from_pred_probs(pred_probs, world.given)
    copied = label_quality_from_pred_probs(pred_probs[rows], world.given[rows], groups=rows)
    unaware = label_quality_from_pred_probs(pred_probs[rows], world.given[rows])
    widths = [np.diff(each.noise_rate_interval)[0] for each in (alone, copied, unaware)]
    assert widths[1] == pytest.approx(widths[0], rel=0.4)
    assert widths[2] < 0.9 * widths[0]


@pytest.mark.parametrize(("rate", "error"), [(0.0, 0.0), (1.0, 0.0), (0.4, 0.01), (0.4, 5.0), (0.97, 0.02)])
def test_ends_are_shares(rate, error):
    low, high = noise_rate_interval(rate, error)
    assert 0 <= low <= rate <= high <= 1
    wider = noise_rate_interval(rate, error + 0.1)
    assert wider[0] <= low
    assert wider[1] >= high
