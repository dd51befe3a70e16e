"""The estimators: what they promise about p, whatever the losses."""

import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import roc_auc_score
from sklearn.mixture import GaussianMixture as SklearnMixture

from clear_peft.errors import InputError
from clear_peft.label_quality import (
    GaussianLossMixture,
    LossMixture,
    MixtureEstimate,
    log_odds,
)

RAW = GaussianLossMixture(scale="loss", monotone=False)
AFFINE = [GaussianLossMixture(scale="loss")]
ESTIMATORS = [GaussianLossMixture(), RAW, *AFFINE]


def cross_entropies(log_odds_against):
    return np.logaddexp(0, log_odds_against)


def noisy_losses(seed, n=1500, noise=0.4):
    rng = np.random.default_rng(seed)
    wrong = rng.random(n) < noise
    return cross_entropies(np.where(wrong, rng.normal(2.3, 0.6, n), rng.normal(-1.5, 0.7, n))), wrong


@pytest.mark.parametrize("estimator", ESTIMATORS)
def test_wrong_labels_are_found(estimator: LossMixture):
    losses, wrong = noisy_losses(0)
    result = estimator.estimate(losses)
    assert isinstance(result, MixtureEstimate)
    assert result.components == 2
    assert result.clean_probability.dtype == np.float32
    assert roc_auc_score(~wrong, result.clean_probability) > 0.98
    assert 1 - result.clean_probability.mean() == pytest.approx(wrong.mean(), abs=0.1)


def test_on_raw_losses_the_plain_posterior_is_scikit_learns_run_to_its_end():
    losses, _ = noisy_losses(1)
    reference = SklearnMixture(2, tol=1e-8, max_iter=1000, random_state=0).fit(losses[:, None])
    expected = reference.predict_proba(losses[:, None])[:, reference.means_.argmin()]
    np.testing.assert_allclose(RAW.estimate(losses).clean_probability, expected, atol=2e-3)


@pytest.mark.parametrize("estimator", ESTIMATORS)
def test_order_does_not_matter(estimator):
    losses, _ = noisy_losses(2)
    permutation = np.random.default_rng(0).permutation(len(losses))
    straight = estimator.estimate(losses).clean_probability
    shuffled = estimator.estimate(losses[permutation]).clean_probability
    np.testing.assert_allclose(straight[permutation], shuffled, atol=1e-5)


@settings(max_examples=20, deadline=None)
@given(st.sampled_from(AFFINE), st.floats(0.01, 100), st.floats(-50, 50))
def test_affine_rescaling_of_the_losses_does_not_matter(estimator, factor, shift):
    losses, _ = noisy_losses(3, n=300)
    expected = estimator.estimate(losses).clean_probability
    np.testing.assert_allclose(
        estimator.estimate(factor * losses + shift).clean_probability, expected, atol=1e-4
    )


losses_lists = st.lists(
    st.one_of(st.floats(0, 30, width=32), st.sampled_from([0.0, 1e-8, 0.5, np.nan])), min_size=1, max_size=40
)


@settings(max_examples=150, deadline=None)
@given(losses_lists, st.sampled_from(ESTIMATORS))
def test_every_estimate_is_well_formed(losses, estimator):
    array = np.array(losses, np.float32)
    result = estimator.estimate(array, np.arange(len(array)) % 3)
    probability = result.clean_probability
    assert probability.shape == array.shape
    assert ((probability >= 0) & (probability <= 1)).all()
    assert (probability[np.isnan(array)] == 1).all()
    assert result.components == 2 or (probability == 1).all()
    json.dumps(result.parameters, allow_nan=False)
    if estimator.monotone:
        ordered = probability[~np.isnan(array)][np.argsort(array[~np.isnan(array)])]
        assert (np.diff(ordered) <= 1e-6).all()


@pytest.mark.parametrize("estimator", ESTIMATORS)
@pytest.mark.parametrize("losses", [[0.3], [0.0, 0.0], [0.7] * 50, [np.nan, np.nan], [np.nan, 2.0]])
def test_losses_that_are_all_alike_are_clean(estimator, losses):
    result = estimator.estimate(losses)
    assert result.components == 1
    assert (result.clean_probability == 1).all()


@pytest.mark.parametrize("estimator", ESTIMATORS)
def test_examples_never_scored_change_nothing(estimator):
    losses, _ = noisy_losses(4)
    with_gaps = np.insert(losses, [0, 700, 1500], np.nan)
    result = estimator.estimate(with_gaps).clean_probability
    np.testing.assert_array_equal(result[~np.isnan(with_gaps)], estimator.estimate(losses).clean_probability)


@pytest.mark.parametrize("estimator", ESTIMATORS)
def test_estimates_repeat_exactly(estimator):
    losses, _ = noisy_losses(5)
    first, second = estimator.estimate(losses), estimator.estimate(losses)
    np.testing.assert_array_equal(first.clean_probability, second.clean_probability)
    assert first.parameters == second.parameters


def test_log_odds_inverts_the_cross_entropy():
    scores = np.linspace(-13, 40, 200)
    np.testing.assert_allclose(log_odds(cross_entropies(scores)), scores, atol=1e-6)
    assert np.isfinite(log_odds(np.zeros(1, np.float32))).all()


@pytest.mark.parametrize(
    ("estimator", "losses", "labels", "message"),
    [
        (RAW, [0.1, np.inf], None, "1 losses are infinite"),
        (RAW, [], None, "non-empty"),
        (RAW, [[0.1, 0.2]], None, "1-D"),
        (RAW, ["a"], None, "float array"),
        (RAW, [0.1, 0.2], [0], "one integer per loss"),
        (RAW, [0.1, 0.2], [0.0, 1.0], "one integer per loss"),
        (GaussianLossMixture(), [-0.1, 0.2], None, "no cross entropy"),
    ],
)
def test_wrong_input_is_refused_with_a_remedy(estimator, losses, labels, message):
    with pytest.raises(InputError, match=message):
        estimator.estimate(losses, labels)
