"""The noise model: what it says of a label follows from Bayes, and its numbers from the labels."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from clear_peft.cleanliness import NoiseModel, fit_noise_model


def rows(size, classes, rate, drawn, seed=0, doubt=0.15):
    """Predictions that are right as often as they say, true classes, and labels with noise."""
    rng = np.random.default_rng(seed)
    predicted = rng.dirichlet(np.full(classes, doubt), size)
    true = np.array([rng.choice(classes, p=p) for p in predicted])
    anew = np.array([rng.choice(classes, p=drawn[t]) for t in true])
    return predicted, true, np.where(rng.random(size) < rate, anew, true)


def pair(classes):
    return np.roll(np.eye(classes), 1, axis=1)


@pytest.mark.parametrize("rate", [0.0, 0.2, 0.6])
def test_even_noise_is_found_to_be_even(rate):
    even = np.full((6, 6), 1 / 6)
    predicted, true, labels = rows(3000, 6, rate, even)
    noise = fit_noise_model(predicted, labels)
    assert noise.drawn is None
    assert abs(noise.rate - rate) < 0.05
    p = noise.clean_probability(predicted, labels)
    assert abs(p.mean() - (labels == true).mean()) < 0.03
    surest = p > 0.8
    assert abs(p[surest].mean() - (labels == true)[surest].mean()) < 0.05


def test_flips_between_pairs_are_found_to_be_such():
    predicted, true, labels = rows(3000, 6, 0.4, pair(6))
    noise = fit_noise_model(predicted, labels)
    assert noise.drawn is not None
    assert (noise.drawn.argmax(axis=1) == pair(6).argmax(axis=1)).all()
    assert abs(1 - noise.clean_probability(predicted, labels).mean() - (labels != true).mean()) < 0.03
    knows = noise.posterior(predicted, labels).argmax(axis=1) == true
    blind = NoiseModel(0.4, None).posterior(predicted, labels).argmax(axis=1) == true
    assert knows.mean() > max(blind.mean(), (predicted.argmax(axis=1) == true).mean()) + 0.02


@pytest.mark.parametrize(("size", "classes"), [(400, 6), (1000, 24), (2500, 60)])
def test_flips_of_few_rows_or_many_classes_are_found(size, classes):
    predicted, true, labels = rows(size, classes, 0.4, pair(classes))
    noise = fit_noise_model(predicted, labels)
    assert noise.drawn is not None
    assert (noise.drawn.argmax(axis=1) == pair(classes).argmax(axis=1)).all()
    assert np.allclose(noise.drawn.sum(axis=1), 1)
    assert noise.kind == "flips"
    assert len(np.unique(noise.drawn.round(9))) == 2  # a class flips to one other, as often as all do
    assert abs(1 - noise.clean_probability(predicted, labels).mean() - (labels != true).mean()) < 0.06


def test_flips_beside_even_noise_are_told_apart():
    drawn = (pair(4) + 1 / 4) / 2
    predicted, _, labels = rows(4000, 4, 0.5, drawn)
    noise = fit_noise_model(predicted, labels)
    assert noise.drawn is not None
    assert len(np.unique(noise.drawn.round(9))) == 2
    transition = (1 - noise.rate) * np.eye(4) + noise.rate * noise.drawn
    assert np.abs(transition - (np.eye(4) + drawn) / 2).max() < 0.02


def test_classes_of_which_each_draws_in_its_own_way_are_found_to():
    drawn = np.random.default_rng(1).dirichlet(np.full(5, 0.5), 5)
    predicted, _, labels = rows(4000, 5, 0.5, drawn)
    noise = fit_noise_model(predicted, labels)
    assert noise.drawn is not None
    assert noise.kind == "class-conditional"
    transition = (1 - noise.rate) * np.eye(5) + noise.rate * noise.drawn
    assert np.abs(transition - (np.eye(5) + drawn) / 2).max() < 0.1


def test_few_flips_are_not_believed():
    predicted, _, labels = rows(3000, 12, 0.06, pair(12))
    assert fit_noise_model(predicted, labels).drawn is None


def test_flips_are_not_believed_where_predictions_hardly_see_them():
    predicted, _, labels = rows(3000, 5, 0.2, pair(5), doubt=2)
    assert fit_noise_model(predicted, labels).kind != "flips"


def test_few_rows_of_many_classes_say_nothing_of_each_class():
    predicted, _, labels = rows(200, 40, 0.4, pair(40))
    assert fit_noise_model(predicted, labels).drawn is None


@settings(max_examples=50, deadline=None)
@given(st.integers(2, 6), st.floats(0, 1), st.booleans(), st.integers(0, 10**6))
def test_the_posterior_is_bayes(classes, rate, even, seed):
    rng = np.random.default_rng(seed)
    predicted, labels = rng.dirichlet(np.ones(classes), 9), rng.integers(0, classes, 9)
    drawn = np.full((classes, classes), 1 / classes) if even else rng.dirichlet(np.ones(classes), classes)
    noise = NoiseModel(rate, None if even else drawn)
    transition = (1 - rate) * np.eye(classes) + rate * drawn
    joint = predicted * transition[:, labels].T
    expected = joint / joint.sum(axis=1, keepdims=True)
    assert np.allclose(noise.posterior(predicted, labels), expected)
    assert np.isclose(noise.log_likelihood(predicted, labels), np.log(joint.sum(axis=1)).sum())
    p = noise.clean_probability(predicted, labels)
    assert p.dtype == np.float64
    assert np.allclose(p, expected[np.arange(9), labels], atol=1e-6)
    # a label speaks for itself, if its class gives it more often than others do
    own, others = transition.diagonal(), (transition - 2 * np.eye(classes)).max(axis=0)
    speaks = (own >= others)[labels]
    assert (p + 1e-6 >= predicted[np.arange(9), labels])[speaks].all()


@pytest.mark.parametrize("shape", [(1, 2), (3, 5), (40, 2)])
def test_predictions_without_doubt_or_without_support(shape):
    predicted = np.eye(shape[1])[np.zeros(shape[0], int)]
    for label in (0, 1):
        labels = np.full(shape[0], label)
        p = fit_noise_model(predicted, labels).clean_probability(predicted, labels)
        assert np.isfinite(p).all()
        assert (p > 0.9).all() if label == 0 else (p <= 1).all()
