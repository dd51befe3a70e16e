"""The interval of the noise rate holds the truth as often as it says, where the estimator is right."""

import numpy as np
import pytest
from scipy.special import expit
from scipy.stats import binomtest

from clear_peft.audit.noise_rate import cross_entropies, noise_rate_interval
from clear_peft.cleanliness import GaussianMixtureCleanliness


def _simulated(rows, rate, gap, seed):
    """Clean probability, label quality and truth, from two Gaussians on the log-odds."""
    rng = np.random.default_rng(seed)
    wrong = rng.random(rows) < rate
    quality = expit(-rng.normal(np.where(wrong, gap / 2, -gap / 2)))
    p = GaussianMixtureCleanliness().estimate(cross_entropies(quality)).clean_probability
    return p.astype(np.float64), quality, wrong


def _interval(p, quality, seed=0):
    return noise_rate_interval(p, quality, np.ones(len(p), bool), quality < 0.5, seed)


@pytest.mark.parametrize("gap", [6, 14])  # the second: every label is told right from wrong
def test_coverage(gap):
    inside, among_these, widths = [], [], []
    for seed in range(30):
        p, quality, wrong = _simulated(400, 0.25, gap, seed)
        low, high = _interval(p, quality)
        assert low <= np.mean(1 - p) <= high
        inside.append(low <= 0.25 <= high)
        among_these.append(low <= wrong.mean() <= high)
        widths.append(high - low)
    assert sum(inside) >= 27  # of 30 at 95 %: less happens once in 16
    assert sum(inside) <= sum(among_these)  # these very rows are the smaller question
    # that of a binomial share is 0.085 wide
    assert 0.08 < np.mean(widths) < 0.095


def test_more_rows_and_clearer_losses_narrow_it():
    def width(rows, gap):
        low, high = _interval(*_simulated(rows, 0.3, gap, 1)[:2])
        return high - low

    assert width(4000, 5) < width(400, 5)
    assert width(400, 7) < width(400, 4)


def test_the_fit_is_uncertain_too():
    p, quality, _ = _simulated(400, 0.3, 3, 3)
    low, high = _interval(p, quality)
    # the same p, but not from these losses: taken as they are
    other_low, other_high = _interval(p, np.random.default_rng(0).permutation(quality))
    assert high - low > 1.3 * (other_high - other_low) > 0


@pytest.mark.parametrize("wrong", [0, 1, 10, 39, 40])
def test_known_labels_leave_open_what_a_sample_does(wrong):
    p = np.array([1.0] * (40 - wrong) + [0.0] * wrong)
    low, high = _interval(p, np.full(40, 0.9))
    # Clopper and Pearson's is the one that is known to be too wide
    exact = binomtest(wrong, 40).proportion_ci(0.95)
    assert exact.low <= low <= wrong / 40 <= high <= exact.high
    assert high - low > 0.8 * (exact.high - exact.low) * (0 < wrong < 40)
    assert high > low


def test_without_doubt_it_reaches_to_the_contradictions():
    low, high = _interval(np.ones(8), np.array([0.9] * 4 + [0.1] * 4))
    assert (low, high) == (0, 0.5)


def test_the_seed_decides():
    p, quality, _ = _simulated(2000, 0.3, 5, 0)
    assert _interval(p, quality) == _interval(p, quality)
    assert _interval(p, quality) != _interval(p, quality, seed=1)


def test_quality_0_has_a_finite_loss():
    assert np.isfinite(cross_entropies(np.array([0.0, 1.0]))).all()
