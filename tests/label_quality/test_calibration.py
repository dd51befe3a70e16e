"""Calibration and noise model, fitted together: the gradient, and worlds whose noise is known."""

import numpy as np
import pytest
from scipy.optimize import check_grad
from scipy.special import softmax
from worlds import class_conditional, drawn, linear, pair, symmetric

from clear_peft.label_quality import calibrate
from clear_peft.label_quality.calibration import _MOST_CLASSES, Shape, _Problem, refitted


def rate_of(fit, views, labels):
    return 1 - fit.noise.clean_probability(fit.calibration(views), labels).mean()


@pytest.mark.parametrize("mixes", [False, True])
@pytest.mark.parametrize("kind", ["none", "symmetric", "pair_flip", "class_conditional"])
def test_the_gradient_is_that_of_the_objective(kind, mixes):
    # a wrong gradient still ends in some fit, which no public result would tell from the best one
    rng = np.random.default_rng(0)
    views, labels = [rng.normal(size=(40, 4)), 5 * rng.normal(size=(40, 4))], np.r_[rng.integers(0, 3, 39), 1]
    problem = _Problem.of(views, labels, rng.uniform(0, 2, 40), mixes=mixes)
    shape = Shape(kind, np.array([0.4, 0.3, 0.2, 0.1]), np.array([1, 2, 0, 0]))
    for _ in range(3):
        theta = 0.5 * rng.normal(size=2 + shape.size + 4 + 16 * mixes)
        value, slopes = (lambda at, k=k: problem._negative(at, shape)[k] for k in (0, 1))
        assert check_grad(value, slopes, theta) < 1e-4 * np.linalg.norm(slopes(theta))


@pytest.mark.parametrize("seed", [0, 1])
@pytest.mark.parametrize("classes", [3, 5])
@pytest.mark.parametrize(
    ("kind", "transition"),
    [("symmetric", symmetric), ("pair_flip", pair), ("class_conditional", class_conditional)],
)
def test_noise_of_each_kind_is_found_in_scores_on_any_scale(kind, transition, classes, seed):
    truth = transition(classes, 0.3)
    # known probabilities of the true classes would leave errors of .02 in the C² numbers
    world = linear(12_000 if kind == "class_conditional" else 4000, truth, seed=seed)
    views = [0.01 * world.scores + 7]
    fit = calibrate(views, world.given)
    assert fit.noise.kind == kind
    np.testing.assert_allclose(fit.noise.transition, truth, atol=0.04)
    np.testing.assert_allclose(fit.noise.transition.sum(axis=1), 1)
    # probabilities are those of true classes, not of given labels
    off = fit.calibration(views) - softmax(world.scores, axis=1)
    assert np.abs(off).mean() < 0.03
    assert rate_of(fit, views, world.given) == pytest.approx(world.wrong.mean(), abs=0.03)


@pytest.mark.parametrize(("classes", "sharpness"), [(2, 1.5), (3, 1.0), (4, 1.0), (5, 1.0), (10, 1.5)])
def test_classes_that_overlap_are_no_noise(classes, sharpness):
    rates, known = [], []
    for seed in range(3):
        world = linear(4000, np.eye(classes), sharpness=sharpness, seed=seed)
        known.append((world.scores.argmax(axis=1) == world.given).mean())
        rates.append(rate_of(calibrate([world.scores], world.given), [world.scores], world.given))
    assert np.mean(known) < 0.42 + 0.75 / classes
    assert np.mean(rates) < 0.03


@pytest.mark.parametrize("seed", [0, 1])
def test_a_view_that_confuses_classes_is_put_right_by_bias_and_mixing(seed):
    world = linear(4000, symmetric(4, 0.3), seed=seed)
    rng = np.random.default_rng(seed + 5)
    scores = world.scores - world.scores.mean(axis=1, keepdims=True)
    views = [scores @ (np.eye(4) + 0.2 * rng.normal(size=(4, 4))) + 2 * rng.normal(size=4)]
    fit = calibrate(views, world.given)
    true = softmax(world.scores, axis=1)
    assert np.abs(softmax(fit.calibration.weights[0] * views[0], axis=1) - true).mean() > 0.05
    assert np.abs(fit.calibration(views) - true).mean() < 0.03
    np.testing.assert_allclose(fit.noise.transition, symmetric(4, 0.3), atol=0.04)


def test_of_two_views_the_better_one_counts_more():
    world = linear(3000, symmetric(3, 0.2))
    views = [world.scores, np.random.default_rng(1).normal(size=world.scores.shape)]
    weights = calibrate(views, world.given).calibration.weights * [view.std() for view in views]
    assert weights[0] > 5 * weights[1]


@pytest.mark.parametrize("transition", [symmetric, pair])
def test_a_row_of_weight_two_is_two_rows(transition):
    world = linear(1500, transition(3, 0.3))
    twice = np.arange(1500) % 3 == 0
    rows = np.r_[np.arange(1500), np.flatnonzero(twice)]
    weighted = calibrate([world.scores], world.given, 1.0 + twice)
    repeated = calibrate([world.scores[rows]], world.given[rows])
    assert weighted.noise.kind == repeated.noise.kind
    assert weighted.objective == pytest.approx(repeated.objective, abs=0.5)
    np.testing.assert_allclose(weighted.noise.transition, repeated.noise.transition, atol=0.01)


def test_rows_of_weight_zero_say_nothing():
    world = linear(3000, symmetric(3, 0.2))
    nonsense = linear(1000, pair(3, 0.9), seed=1)
    both = [np.r_[world.scores, nonsense.scores]]
    fit = calibrate(both, np.r_[world.given, nonsense.given], np.repeat([1.0, 0.0], [3000, 1000]))
    alone = calibrate([world.scores], world.given)
    assert fit.noise.kind == alone.noise.kind
    np.testing.assert_allclose(fit.noise.transition, alone.noise.transition, atol=0.01)


@pytest.mark.parametrize("constant", [0.0, 3.5])
def test_a_constant_view_changes_nothing(constant):
    world = linear(2000, pair(3, 0.3))
    alone = calibrate([world.scores], world.given)
    views = [world.scores, np.full_like(world.scores, constant)]
    both = calibrate(views, world.given)
    assert both.noise.kind == alone.noise.kind
    np.testing.assert_allclose(both.noise.transition, alone.noise.transition, atol=0.02)
    np.testing.assert_allclose(both.calibration(views), alone.calibration(views[:1]), atol=0.03)


def test_few_rows_are_given_a_simple_noise_model():
    world = linear(60, class_conditional(5, 0.3))
    assert calibrate([world.scores], world.given).noise.kind == "symmetric"


def test_many_classes_have_neither_mixing_nor_noise_of_each_class():
    classes = _MOST_CLASSES + 10
    world = linear(3000, pair(classes, 0.4), sharpness=20.0, dimensions=24)
    fit = calibrate([world.scores], world.given)
    assert fit.calibration.mixing is None
    assert fit.noise.kind == "pair_flip"
    targets = (fit.noise.transition - np.eye(classes)).argmax(axis=1)
    assert (targets == np.roll(np.arange(classes), -1)).mean() > 0.95
    assert rate_of(fit, [world.scores], world.given) == pytest.approx(0.4, abs=0.04)


@pytest.mark.parametrize(("size", "classes"), [(1, 1), (1, 3), (7, 1), (5, 2)])
def test_the_smallest_tables_have_a_fit(size, classes):
    views = [np.random.default_rng(0).normal(size=(size, classes))]
    fit = calibrate(views, np.zeros(size, np.int64))
    np.testing.assert_allclose(fit.noise.transition.sum(axis=1), 1)
    np.testing.assert_allclose(fit.calibration(views).sum(axis=1), 1)
    assert rate_of(fit, views, np.zeros(size, np.int64)) < 0.5


def test_refitting_from_a_fit_stays_there_and_follows_new_weights():
    rng = np.random.default_rng(0)
    world = linear(4000, pair(3, 0.2))
    worse = drawn(pair(3, 0.4)[world.true[2000:]], rng)
    labels, views = np.r_[world.given[:2000], worse], [world.scores]
    fit = calibrate(views, labels)
    same = refitted(fit, views, labels, np.ones(4000))
    np.testing.assert_allclose(same.noise.transition, fit.noise.transition, atol=0.005)
    for half, rate in ((0, 0.2), (1, 0.4)):
        counted = np.repeat([1.0 - half, half], 2000)
        again = refitted(fit, views, labels, counted, steps=150)
        np.testing.assert_allclose(again.noise.transition, pair(3, rate), atol=0.05)
