"""The one-dimensional EM: against scikit-learn, against known parameters, and its invariances."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.mixture import GaussianMixture as SklearnMixture

from clear_peft.label_quality.gaussian_mixture import GaussianMixture


def two_gaussians(seed, n=4000, share=0.3, means=(0.0, 5.0), sds=(1.0, 1.5)):
    rng = np.random.default_rng(seed)
    upper = rng.random(n) < share
    return np.where(upper, rng.normal(means[1], sds[1], n), rng.normal(means[0], sds[0], n))


@pytest.mark.parametrize("seed", range(3))
def test_gaussian_fit_equals_scikit_learn(seed):
    values = two_gaussians(seed, n=1500)
    ours = GaussianMixture.fit(values)
    reference = SklearnMixture(2, tol=1e-8, max_iter=1000, random_state=0).fit(values[:, None])
    order = np.argsort(reference.means_[:, 0])
    np.testing.assert_allclose(ours.weights, reference.weights_[order], atol=2e-4)
    np.testing.assert_allclose(ours.means, reference.means_[order, 0], atol=2e-3)
    np.testing.assert_allclose(ours.variances, reference.covariances_[order, 0, 0], rtol=2e-3)
    posterior = reference.predict_proba(values[:, None])[:, order[0]]
    np.testing.assert_allclose(ours.lower_posterior(values, monotone=False), posterior, atol=1e-3)


@settings(max_examples=25, deadline=None)
@given(
    share=st.floats(0.15, 0.85),
    gap=st.floats(5, 12),
    sds=st.tuples(st.floats(0.5, 1.5), st.floats(0.5, 1.5)),
    seed=st.integers(0, 2**31),
)
def test_gaussian_fit_recovers_known_parameters(share, gap, sds, seed):
    values = two_gaussians(seed, share=share, means=(1.0, 1.0 + gap), sds=sds)
    fit = GaussianMixture.fit(values)
    np.testing.assert_allclose(fit.weights, [1 - share, share], atol=0.06)
    np.testing.assert_allclose(fit.means, [1.0, 1.0 + gap], atol=0.35)
    np.testing.assert_allclose(np.sqrt(fit.variances), sds, rtol=0.25)


def test_weights_count_repetitions():
    values = np.random.default_rng(0).beta(1, 3, 200).clip(0.01, 0.99)
    counts = np.random.default_rng(1).integers(1, 5, 200)
    weighted = GaussianMixture.fit(values, counts.astype(float))
    repeated = GaussianMixture.fit(np.repeat(values, counts))
    np.testing.assert_allclose(weighted.means, repeated.means, atol=1e-8)
    np.testing.assert_allclose(weighted.variances, repeated.variances, rtol=1e-6)


def test_a_histogram_gives_the_fit_of_all_values():
    values = two_gaussians(3, n=100_000)
    counts, edges = np.histogram(values, bins=500)
    filled = counts > 0
    binned = GaussianMixture.fit((edges[1:] + edges[:-1])[filled] / 2, counts[filled].astype(float))
    exact = GaussianMixture.fit(values)
    np.testing.assert_allclose(binned.means, exact.means, atol=5e-3)
    np.testing.assert_allclose(binned.weights, exact.weights, atol=1e-3)


mixtures = st.builds(
    lambda share, means, variances: GaussianMixture(
        np.array([1 - share, share]), np.sort(means), np.array(variances)
    ),
    st.floats(0.01, 0.99),
    st.tuples(st.floats(0.05, 0.5), st.floats(0.5, 0.95)),
    st.tuples(st.floats(1e-4, 0.02), st.floats(1e-4, 0.02)),
)


@given(mixtures)
def test_monotone_posterior_falls_and_agrees_between_the_means(mixture: GaussianMixture):
    values = np.linspace(0.001, 0.999, 400)
    monotone = mixture.lower_posterior(values, monotone=True)
    assert (np.diff(monotone) <= 1e-12).all()
    between = (values >= mixture.means[0]) & (values <= mixture.means[1])
    plain = mixture.lower_posterior(values, monotone=False)
    np.testing.assert_allclose(monotone[between], plain[between], atol=1e-12)


def test_plain_posterior_is_not_monotone_where_variances_differ():
    mixture = GaussianMixture(np.array([0.5, 0.5]), np.array([0.0, 3.0]), np.array([0.1, 4.0]))
    values = np.linspace(-4, 4, 100)
    assert (np.diff(mixture.lower_posterior(values, monotone=False)) > 0).any()


@pytest.mark.parametrize("values", [[0.2, 0.8], [0.2, 0.2, 0.8], [0.1, 0.5, 0.9]])
def test_two_and_three_values_fit(values):
    fit = GaussianMixture.fit(np.array(values))
    assert np.isfinite(fit.weights).all()
    posterior = fit.lower_posterior(np.array(values), monotone=True)
    assert posterior[0] > 0.5 > posterior[-1]
