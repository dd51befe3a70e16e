"""Many losses are fitted as bins: p is that of the fit to all of them."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from clear_peft.label_quality import GaussianLossMixture, gaussian_mixture
from clear_peft.label_quality.gaussian_mixture import GaussianMixture, _binned

ESTIMATORS = [
    GaussianLossMixture(),
    GaussianLossMixture(scale="loss", monotone=False),
]


def _losses(seed, size, noise, gap, sd):
    rng = np.random.default_rng(seed)
    wrong = rng.random(size) < noise
    return np.logaddexp(0, rng.normal(np.where(wrong, gap / 2, -gap / 2), np.where(wrong, sd, 1)))


@settings(max_examples=12, deadline=None)
@given(
    estimator=st.sampled_from(ESTIMATORS),
    seed=st.integers(0, 2**31),
    noise=st.floats(0.05, 0.7),
    gap=st.floats(3, 10),
    sd=st.floats(0.5, 1.5),
)
def test_p_hardly_differs(estimator, seed, noise, gap, sd):
    losses = _losses(seed, 20_000, noise, gap, sd)
    exact = estimator.estimate(losses)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(gaussian_mixture, "_MOST_VALUES", 1000)
        binned = estimator.estimate(losses)
    # where p falls from 1 to 0 between two bins, single values move more than the mean does
    np.testing.assert_allclose(binned.clean_probability, exact.clean_probability, atol=1e-2)
    mean, expected = (found.clean_probability.mean(dtype=np.float64) for found in (binned, exact))
    assert mean == pytest.approx(expected, abs=1e-4)


@settings(max_examples=50, deadline=None)
@given(
    st.lists(st.floats(-1e6, 1e6), min_size=2, max_size=30).filter(lambda v: np.ptp(v) > 0),
    st.integers(1, 400),
    st.integers(0, 2**31),
)
def test_the_bins_keep_their_promise(few, repeats, seed):
    rng = np.random.default_rng(seed)
    values = np.concatenate([few, rng.normal(size=30 * repeats)])
    means, sizes = _binned(values)
    assert len(means) <= 2 * gaussian_mixture._BINS
    assert sizes.sum() == len(values)
    assert (sizes >= 1).all()
    ordered = np.sort(values)
    moved = np.abs(np.repeat(means, sizes.astype(int)) - ordered)
    assert moved.max() <= np.ptp(values) / gaussian_mixture._BINS * (1 + 1e-9)
    assert means @ sizes == pytest.approx(values.sum(), abs=1e-9 * np.abs(values).sum())
    lost = values.var() - np.average((means - values.mean()) ** 2, weights=sizes)
    assert lost <= (np.ptp(values) / gaussian_mixture._BINS) ** 2 / 4 + 1e-9 * values.var()


def test_an_outlier_does_not_blur_the_rest():
    rng = np.random.default_rng(0)
    values = np.concatenate([rng.normal(0, 1, 90_000), rng.normal(6, 1, 30_000), [3000.0]])
    binned, exact = GaussianMixture.fit(values), GaussianMixture.fit(values, np.ones(len(values)))
    np.testing.assert_allclose(binned.means, exact.means, atol=1e-4)
    np.testing.assert_allclose(binned.variances, exact.variances, rtol=1e-4)


def test_few_values_are_not_binned():
    values = np.random.default_rng(0).normal(size=gaussian_mixture._MOST_VALUES)
    fitted, weighted = GaussianMixture.fit(values), GaussianMixture.fit(values, np.ones(len(values)))
    np.testing.assert_array_equal(fitted.means, weighted.means)
    np.testing.assert_array_equal(fitted.variances, weighted.variances)


def test_the_order_of_many_values_does_not_matter():
    values = np.random.default_rng(0).normal(size=gaussian_mixture._MOST_VALUES + 1)
    np.testing.assert_array_equal(
        GaussianMixture.fit(values).means, GaussianMixture.fit(values[::-1].copy()).means
    )
