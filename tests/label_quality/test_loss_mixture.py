"""The paper's mixture: scikit-learn's, to the last digit, and well-formed whatever the losses."""

import functools
import json
import subprocess
import sys

import numpy as np
import pytest
import sklearn.mixture
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import norm
from sklearn.metrics import roc_auc_score

from clear_peft.errors import InputError
from clear_peft.label_quality import GaussianLossMixture, LossMixture, PaperMixture
from clear_peft.report.mixtures import densities

PAPER: LossMixture = PaperMixture()
LARGEST = float(np.finfo(np.float32).max)


def two_groups(seed, n=600):
    """Losses of right and wrong labels, float32 as a model's are, and which are wrong."""
    rng = np.random.default_rng(seed)
    wrong = rng.random(n) < 0.4
    losses = np.abs(np.where(wrong, rng.normal(3, 0.8, n), rng.normal(0.3, 0.2, n)))
    return losses.astype(np.float32), wrong


def spread(count, mean, deviation):
    """The quantiles of a normal distribution: a sample without chance."""
    return np.abs(norm.ppf((np.arange(count) + 0.5) / count, mean, deviation))


def scikit_learn(losses):
    values = np.asarray(losses, np.float64)[:, None]
    return sklearn.mixture.GaussianMixture(2, random_state=0).fit(values), values


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("make", [lambda rng: rng.exponential(1, 300), lambda rng: rng.lognormal(0, 2, 77)])
def test_p_is_the_posterior_of_scikit_learns_mixture(make, seed):
    losses = make(np.random.default_rng(seed))
    mixture, values = scikit_learn(losses)
    lower, upper = mixture.means_.ravel().argsort()
    result = PAPER.estimate(losses)
    np.testing.assert_allclose(result.clean_probability, mixture.predict_proba(values)[:, lower], atol=1e-7)
    assert result.components == 2
    assert result.parameters == {
        "scale": "loss",
        "family": "gaussian",
        "weights": [mixture.weights_[lower], mixture.weights_[upper]],
        "means": [mixture.means_[lower, 0], mixture.means_[upper, 0]],
        "variances": [mixture.covariances_[lower, 0, 0], mixture.covariances_[upper, 0, 0]],
    }


def test_p_follows_from_means_variances_and_weights():
    losses, wrong = two_groups(0)
    result = PAPER.estimate(losses)
    weights, means, variances = (np.array(result.parameters[k]) for k in ("weights", "means", "variances"))
    lower, upper = weights[:, None] * norm.pdf(losses, means[:, None], np.sqrt(variances)[:, None])
    np.testing.assert_allclose(result.clean_probability, lower / (lower + upper), atol=1e-6)
    assert means[0] < means[1]
    assert weights.sum() == pytest.approx(1)
    assert result.clean_probability.dtype == np.float32
    assert roc_auc_score(~wrong, result.clean_probability) > 0.99
    # the report draws the curve from the same parameters
    np.testing.assert_allclose(densities(result.parameters, losses.astype(np.float64)), [lower, upper])


def test_an_early_stop_keeps_the_class_that_em_at_its_end_shuts_out():
    """Well-learnt classes have tiny losses of nearly one value, a hard one larger losses."""
    groups = spread(1000, 0.05, 0.03), spread(500, 1, 0.2), spread(750, 3, 1)
    well_learnt, hard, wrong = (np.repeat(range(3), [len(g) for g in groups]) == k for k in range(3))
    losses = np.concatenate(groups)
    paper = PAPER.estimate(losses).clean_probability
    at_the_end = GaussianLossMixture(scale="loss", monotone=False).estimate(losses).clean_probability
    for p in (paper, at_the_end):
        assert p[well_learnt].mean() > 0.95
        assert p[wrong].mean() < 0.1
    assert paper[hard].mean() > 0.8
    assert at_the_end[hard].mean() < 0.01
    truth = (~wrong).sum()
    assert abs(paper.sum() - truth) < 0.05 * truth
    assert at_the_end.sum() < 0.7 * truth
    # it is where EM stops that differs, not whose EM it is
    mixture = sklearn.mixture.GaussianMixture(2, random_state=0, tol=1e-7, max_iter=1000)
    posterior = mixture.fit(losses[:, None]).predict_proba(losses[:, None])
    np.testing.assert_allclose(posterior[:, mixture.means_.argmin()], at_the_end, atol=5e-3)


some_losses = st.lists(
    st.one_of(
        st.floats(0, 30, width=32),
        st.floats(-LARGEST, LARGEST, width=32),
        st.sampled_from([0.0, 1e-8, 1e-45, 0.5, LARGEST, np.nan]),
    ),
    min_size=1,
    max_size=40,
)


@settings(max_examples=200, deadline=None)
@given(some_losses, st.sampled_from([np.float32, np.float64]))
def test_every_estimate_is_well_formed(losses, dtype):
    array = np.array(losses, dtype)
    result = PAPER.estimate(array, np.arange(len(array)) % 3)
    p = result.clean_probability
    assert p.shape == array.shape
    assert p.dtype == np.float32
    assert ((p >= 0) & (p <= 1)).all()
    assert (p[np.isnan(array)] == 1).all()
    json.dumps(result.parameters, allow_nan=False)
    if result.components == 1:
        assert (p == 1).all()
        assert result.parameters == {}
    else:
        assert np.diff(result.parameters["means"]) >= 0
        assert min(result.parameters["variances"]) >= 1e-6
        assert sum(result.parameters["weights"]) == pytest.approx(1)
    again = PAPER.estimate(array)
    np.testing.assert_array_equal(p, again.clean_probability)
    assert result.parameters == again.parameters


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.floats(0, 1, width=32), min_size=1, max_size=15),
    st.lists(st.floats(5, 6, width=32), min_size=1, max_size=15),
    st.randoms(use_true_random=False),
)
def test_order_does_not_matter_where_k_means_has_one_solution(low, high, random):
    losses = np.array(low + high)
    order = list(range(len(losses)))
    random.shuffle(order)
    straight, shuffled = PAPER.estimate(losses), PAPER.estimate(losses[order])
    np.testing.assert_allclose(straight.clean_probability[order], shuffled.clean_probability, atol=1e-6)
    np.testing.assert_allclose(straight.parameters["means"], shuffled.parameters["means"], atol=1e-6)


def test_order_matters_where_k_means_has_several_solutions():
    """The price of scikit-learn's start: of three groups the middle one may go with either neighbour."""
    losses, order = np.array([0, 0.1, 3, 3.1, 6, 6.1]), [0, 1, 2, 4, 3, 5]
    straight, shuffled = PAPER.estimate(losses), PAPER.estimate(losses[order])
    middle = [2, 3]
    assert straight.clean_probability[middle].min() > 0.9
    assert shuffled.clean_probability[np.argsort(order)][middle].max() < 0.6


def test_neither_reads_nor_moves_the_global_generator():
    losses, _ = two_groups(1)
    results = []
    for seed in (1, 2):
        np.random.seed(seed)
        state = np.random.get_state()[1].copy()
        results.append(PAPER.estimate(losses).clean_probability)
        assert (np.random.get_state()[1] == state).all()
    np.testing.assert_array_equal(*results)


@pytest.mark.parametrize(
    "losses",
    [[0.3], [0.0, 0.0], [0.7] * 50, [np.nan, np.nan], [np.nan, 2.0], [1.0, 1.0 + 1e-10], [0, 1e-300]],
)
def test_losses_that_are_all_alike_are_clean(losses):
    result = PAPER.estimate(losses)
    assert result.components == 1
    assert (result.clean_probability == 1).all()


@pytest.mark.parametrize(
    ("losses", "expected"),
    [
        ([2.0, 1.0], [0, 1]),
        ([0.1, 0.3, 0.1], [1, 0, 1]),
        ([0.1, 0.2, LARGEST], [1, 1, 0]),
    ],
)
def test_few_and_huge_losses(losses, expected):
    np.testing.assert_allclose(PAPER.estimate(losses).clean_probability, expected, atol=1e-6)


def test_losses_within_a_thousandth_are_not_told_apart():
    """As scikit-learn has it: 1e-6 is added to each variance."""
    p = PAPER.estimate(np.linspace(0, 1e-5, 9)).clean_probability
    assert np.ptp(p) < 1e-3


def test_examples_never_scored_change_nothing():
    losses, _ = two_groups(2)
    with_gaps = np.insert(losses, [0, 300, 600], np.nan)
    result = PAPER.estimate(with_gaps).clean_probability
    np.testing.assert_array_equal(result[~np.isnan(with_gaps)], PAPER.estimate(losses).clean_probability)


def test_a_fit_that_has_not_converged_says_nothing(monkeypatch):
    """Warnings are errors here."""
    losses = np.random.default_rng(0).exponential(1, 300)
    one_step = functools.partial(sklearn.mixture.GaussianMixture, max_iter=1)
    monkeypatch.setattr(sklearn.mixture, "GaussianMixture", one_step)
    assert PAPER.estimate(losses).components == 2


@pytest.mark.parametrize(
    ("losses", "labels", "message"),
    [
        ([0.1, np.inf], None, "1 losses are infinite"),
        ([0.1, 1e39], None, "A loss is 1e\\+39: score in float32"),
        ([], None, "non-empty"),
        ([[0.1, 0.2]], None, "1-D"),
        ([1, 2], None, "float array"),
        ([0.1, 0.2], [0], "one integer per loss"),
        ([0.1, 0.2], [0.0, 1.0], "one integer per loss"),
    ],
)
def test_wrong_input_is_refused_with_a_remedy(losses, labels, message):
    with pytest.raises(InputError, match=message):
        PAPER.estimate(losses, labels)


def test_scikit_learn_is_imported_by_the_first_fit():
    code = "import sys, clear_peft.label_quality; sys.exit('sklearn' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
