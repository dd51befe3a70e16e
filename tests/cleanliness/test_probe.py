"""The probe: it judges rows that it has not seen, and knows classes that features tell apart."""

import inspect

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import roc_auc_score

from clear_peft.cleanliness import GaussianMixtureCleanliness, probe
from clear_peft.cleanliness.probe import _sharpness

ESTIMATOR = GaussianMixtureCleanliness()


def blobs(size, classes, noise, seed=0):
    """Features around a centre for each class, given labels of which a share is wrong, and true labels."""
    rng = np.random.default_rng(seed)
    centres = rng.normal(size=(classes, 12))
    clean = rng.integers(0, classes, size)
    features = centres[clean] + 0.7 * rng.normal(size=(size, 12))
    given_labels = clean.copy()
    wrong = rng.permutation(size)[: round(noise * size)]
    given_labels[wrong] = (clean[wrong] + rng.integers(1, classes, len(wrong))) % classes
    return features.astype(np.float32), given_labels, clean


def test_most_classes_are_recognised_though_most_labels_are_wrong():
    features, labels, clean = blobs(1200, 6, 0.6)
    opinion = probe(features[:1000], labels[:1000], 6, ESTIMATOR)
    inside, outside = opinion.left_out, opinion.judge(features[1000:], labels[1000:])
    assert (inside.predicted.argmax(axis=1) == clean[:1000]).mean() > 0.85
    assert (outside.predicted.argmax(axis=1) == clean[1000:]).mean() > 0.8
    for part, rows in ((inside, slice(1000)), (outside, slice(1000, None))):
        assert np.allclose(part.predicted.sum(axis=1), 1)
        assert roc_auc_score(labels[rows] == clean[rows], part.clean_probability) > 0.95


@pytest.mark.parametrize("seed", [0, 1])
def test_flips_come_to_light_little_by_little(seed, monkeypatch):
    features, clean, _ = blobs(600, 10, 0.0, seed)
    wrong = np.random.default_rng(seed + 1).random(600) < 0.4
    labels = np.where(wrong, (clean + 1) % 10, clean)

    def judged():
        fitted = probe(features, labels, 10, ESTIMATOR)
        assert fitted.noise.kind == "flips"
        opinion = fitted.left_out
        recognised = (opinion.predicted.argmax(axis=1) == clean).mean()
        return 1 - opinion.clean_probability.mean(), recognised

    share, recognised = judged()
    assert abs(share - wrong.mean()) < 0.03
    monkeypatch.setattr(inspect.getmodule(probe), "_MOST_FITS", 3)
    of_three, recognised_by_three = judged()
    assert of_three < share - 0.04
    assert recognised_by_three < recognised - 0.04


def test_rows_are_judged_by_probes_that_have_not_seen_them():
    rng = np.random.default_rng(0)
    # more features than rows: a probe repeats what it was fitted to, and knows nothing else
    features, labels = rng.normal(size=(120, 400)), rng.integers(0, 2, 120)
    opinion = probe(features, labels, 2, ESTIMATOR)
    assert abs((opinion.left_out.predicted.argmax(axis=1) == labels).mean() - 0.5) < 0.2


@pytest.mark.parametrize("scale", [1e-3, 50.0])
def test_the_scale_of_features_does_not_matter(scale):
    features, labels, _ = blobs(200, 3, 0.3)
    one = probe(features, labels, 3, ESTIMATOR)
    other = probe(features * scale + 3, labels, 3, ESTIMATOR)
    for mine, its in zip(one.left_out, other.left_out, strict=True):
        assert np.allclose(mine, its, atol=1e-2)
    elsewhere = other.judge(features * scale + 3, labels)
    for mine, its in zip(one.judge(features, labels), elsewhere, strict=True):
        assert np.allclose(mine, its, atol=1e-2)


@settings(max_examples=25, deadline=None)
@given(st.lists(st.integers(0, 3), min_size=1, max_size=14), st.integers(0, 4))
def test_small_tables(labels, others):
    labels = np.array(labels)
    rng = np.random.default_rng(len(labels))
    opinion = probe(rng.normal(size=(len(labels), 3)), labels, 5, ESTIMATOR)
    held_out = opinion.judge(rng.normal(size=(others, 3)), rng.integers(0, 5, others))
    for part, size in ((opinion.left_out, len(labels)), (held_out, others)):
        assert part.predicted.shape == (size, 5)
        assert np.allclose(part.predicted.sum(axis=1), 1)
        assert part.clean_probability.shape == (size,)
        assert ((part.clean_probability >= 0) & (part.clean_probability <= 1)).all()


@pytest.mark.parametrize("noise", [0.0, 0.3, 0.6])
@pytest.mark.parametrize("classes", [3, 4, 11])
def test_the_share_of_wrong_labels_is_estimated(noise, classes):
    features, labels, clean = blobs(3000, classes, noise)
    opinion = probe(features, labels, classes, ESTIMATOR)
    p = opinion.left_out.clean_probability
    assert abs(1 - p.mean() - (labels != clean).mean()) < 0.1


def test_p_has_the_distribution_of_the_noise_models_posterior_and_the_order_of_both_fits():
    features, labels, _ = blobs(600, 4, 0.3)
    opinion = probe(features, labels, 4, ESTIMATOR)
    predicted, p = opinion.left_out
    posterior = opinion.noise.clean_probability(predicted, labels)
    assert np.allclose(np.sort(p), np.sort(posterior), atol=1e-6)
    # not the order of the last fit alone
    assert (np.diff(p[np.argsort(posterior)]) < 0).any()
    elsewhere, last = opinion.judge(features, labels).clean_probability, opinion.last(features)
    both = opinion.noise.clean_probability((opinion.first(features) + last) / 2, labels)
    assert (np.diff(elsewhere[np.argsort(both)]) >= 0).all()
    assert (np.diff(elsewhere[np.argsort(opinion.noise.clean_probability(last, labels))]) < 0).any()


def test_a_label_that_predictions_exclude_is_no_accident():
    predicted = np.tile([1.0, 0.0], (40, 1))
    predicted[-1] = [9.0, -9.0]
    labels = np.zeros(40, int)
    labels[-1] = 1
    with np.errstate(divide="raise", invalid="raise"):
        sharpness = _sharpness(predicted, labels, np.ones(40), some_random=False)
        unheard = _sharpness(predicted, labels, np.r_[np.ones(39), 0.0], some_random=False)
    assert 0 < sharpness < 1 < unheard
