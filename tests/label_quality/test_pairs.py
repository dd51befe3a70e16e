"""Responses that do not belong to their prompts, found among simulated ones."""

import numpy as np
import pytest
from scipy.optimize import minimize
from sklearn.linear_model import Ridge
from sklearn.metrics import average_precision_score

from clear_peft.errors import InputError
from clear_peft.label_quality import pairs
from clear_peft.label_quality.pairs import pair_quality

ROWS, WIDTH = 600, 16


def world(rate, seed=0, noise=0.7):
    """Prompts and responses that share a meaning, some responses swapped; which, (N,)."""
    rng = np.random.default_rng(seed)
    meaning = rng.normal(size=(ROWS, WIDTH))
    turned = np.linalg.qr(rng.normal(size=(WIDTH, WIDTH)))[0]
    prompts = meaning + noise * rng.normal(size=meaning.shape)
    responses = meaning @ turned + noise * rng.normal(size=meaning.shape)
    swapped = np.flatnonzero(rng.random(ROWS) < rate)
    order = np.arange(ROWS)
    order[swapped] = np.roll(swapped, 1)
    return prompts, responses[order], order != np.arange(ROWS)


@pytest.mark.parametrize("rate", [0.1, 0.3, 0.5])
def test_swapped_responses_are_found_and_counted(rate):
    prompts, responses, wrong = world(rate)
    found = pair_quality(prompts, responses)
    assert found.noise_rate == pytest.approx(wrong.mean(), abs=0.05)
    assert average_precision_score(wrong, -found.score) > 0.88
    listed = found.clean_probability < 0.5
    assert wrong[listed].mean() > 0.65
    assert listed[wrong].mean() > 0.65
    # probabilities mean what they say
    sure = found.clean_probability > 0.9
    assert wrong[sure].mean() < 0.1


def test_where_all_belong_next_to_nothing_is_listed():
    prompts, responses, _ = world(0.0)
    found = pair_quality(prompts, responses)
    assert found.noise_rate < 0.02
    assert (found.clean_probability < 0.5).mean() < 0.02


def test_of_random_pairs_nothing_is_believed():
    prompts, responses, _ = world(0.0)
    found = pair_quality(prompts, np.roll(responses, 1, axis=0))
    assert found.noise_rate > 0.85
    assert found.clean_probability.mean() < 0.2


def test_clean_probability_never_falls_as_the_score_rises():
    prompts, responses, _ = world(0.3, noise=2.0)
    found = pair_quality(prompts, responses)
    assert (np.diff(found.clean_probability[np.argsort(found.score)]) >= -1e-12).all()
    assert ((found.clean_probability >= 0) & (found.clean_probability <= 1)).all()


def test_scales_do_not_matter():
    prompts, responses, _ = world(0.3)
    one, other = pair_quality(prompts, responses), pair_quality(100 * prompts, 0.01 * responses)
    np.testing.assert_allclose(one.score, other.score, rtol=1e-6, atol=1e-8)


def test_what_is_expected_is_sklearns_ridge_on_other_folds():
    prompts, responses, _ = world(0.3)
    fold = np.arange(ROWS) % 5
    found = pairs._expected(prompts, responses, fold)
    seen = prompts[fold != 2]
    penalty = 0.1 * ((seen - seen.mean(axis=0)) ** 2).sum() / WIDTH
    by_sklearn = Ridge(alpha=penalty).fit(seen, responses[fold != 2])
    expected = by_sklearn.predict(prompts[fold == 2]) - by_sklearn.predict(seen.mean(axis=0)[None])
    expected /= np.linalg.norm(expected, axis=1, keepdims=True)
    np.testing.assert_allclose(found[fold == 2], expected, atol=1e-8)


def test_the_mixture_is_found_as_by_a_search_without_gradients():
    rng = np.random.default_rng(0)
    random = rng.normal(0, 1, size=(4000, 2))
    of_pairs = rng.normal(0, 1, size=(1000, 2)) + np.where(np.arange(1000) < 700, 1.5, 0.0)[:, None]
    features = [np.concatenate([x, np.ones_like(x)], axis=1) for x in (of_pairs, random)]
    weights = pairs._mixture(*features)
    # of normal likenesses 1.5 above those of random pairs, log f1 / f0 is 1.5 x - 1.5² / 2 for each
    np.testing.assert_allclose(weights[:2], 1.5, atol=0.25)
    assert weights[2:].sum() == pytest.approx(-2.25, abs=0.5)

    def loss(theta):
        ratio = [x @ theta[:4] for x in features]
        rate = 1 / (1 + np.exp(-theta[4]))
        odds = [rate + (1 - rate) * np.exp(each) for each in ratio]
        return np.log1p(1 / odds[0]).sum() + np.log1p(odds[1]).sum() / 4

    found = minimize(loss, [1, 1, -1, -1, -1], method="Nelder-Mead", options={"maxiter": 5000, "fatol": 1e-9})
    np.testing.assert_allclose(features[0] @ weights, features[0] @ found.x[:4], atol=0.05)


def with_open_prompts(rate, share, seed=0):
    """A world in which some prompts are about the same point, whatever the response; which, (N,)."""
    prompts, responses, wrong = world(rate, seed)
    rng = np.random.default_rng(seed + 1)
    says_nothing = rng.random(ROWS) < share
    prompts[says_nothing] = 3 + 0.1 * rng.normal(size=(says_nothing.sum(), WIDTH))
    return prompts, responses, wrong, says_nothing


@pytest.mark.parametrize("rate", [0.0, 0.3])
def test_responses_to_open_prompts_are_not_called_wrong(rate):
    prompts, responses, wrong, says_nothing = with_open_prompts(rate, 0.2)
    found = pair_quality(prompts, responses)
    listed = found.clean_probability < 0.5
    assert listed[says_nothing & ~wrong].mean() < 0.1
    assert found.noise_rate == pytest.approx(wrong.mean(), abs=0.06)
    if rate:
        assert listed[wrong & ~says_nothing].mean() > 0.6
        assert wrong[listed].mean() > 0.7


def test_copies_of_a_wrong_pair_do_not_excuse_it():
    prompts, responses, wrong = world(0.2)
    many = pair_quality(prompts, responses).score.argmin()
    assert wrong[many]
    rows = np.concatenate([np.arange(ROWS), np.full(40, many)])
    found = pair_quality(prompts[rows], responses[rows], prompt_groups=rows, response_groups=rows)
    assert (found.clean_probability[ROWS:] < 0.5).all()


def test_a_copy_of_the_response_is_no_random_one():
    prompts, responses, _ = world(0.0)
    groups = np.arange(ROWS) % 4
    partners = pairs._random_partners(groups, np.random.default_rng(0))
    assert (groups[partners] != groups).all()
    # a response that many rows have is no sign of a swap
    same = np.where((np.arange(ROWS) < 100)[:, None], responses[0], responses)
    same_prompts = np.where((np.arange(ROWS) < 100)[:, None], prompts[0], prompts)
    marks = np.where(np.arange(ROWS) < 100, 0, np.arange(ROWS))
    found = pair_quality(same_prompts, same, prompt_groups=marks, response_groups=marks)
    assert (found.clean_probability[:100] > 0.5).all()


def test_copies_of_a_prompt_are_in_one_fold():
    groups = np.random.default_rng(0).integers(50, size=ROWS)
    fold = pairs._folds(groups, np.random.default_rng(0))
    assert all(len(set(fold[groups == group])) == 1 for group in range(50))


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        (lambda p, r: (p[:10], r[:10]), "There are 10 pairs: give 20 or more"),
        (lambda p, r: (p, r[:-1]), "give features of one model for both"),
        (lambda p, r: (p, np.full_like(r, np.nan)), "responses are not finite numbers"),
        (lambda p, r: (p[0], r), "prompts are not finite numbers of shape"),
    ],
)
def test_bad_input_is_refused(change, sentence):
    prompts, responses, _ = world(0.0)
    with pytest.raises(InputError, match=sentence):
        pair_quality(*change(prompts, responses))


@pytest.mark.parametrize("what", ["prompt_groups", "response_groups"])
def test_all_the_same_is_refused(what):
    prompts, responses, _ = world(0.0)
    with pytest.raises(InputError, match=f"All {what.removesuffix('_groups')}s are the same"):
        pair_quality(prompts, responses, **{what: np.zeros(ROWS, np.int64)})
