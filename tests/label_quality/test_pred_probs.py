"""Anybody's out-of-sample predictions: what they say of labels, beside the real cleanlab."""

import numpy as np
import pytest
from cleanlab.filter import find_label_issues
from cleanlab.rank import get_label_quality_scores
from scipy.special import softmax
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import average_precision_score
from sklearn.model_selection import cross_val_predict
from sklearn.naive_bayes import GaussianNB
from sklearn.neighbors import KNeighborsClassifier
from worlds import blobs, class_conditional, linear, pair, symmetric

from clear_peft.errors import InputError
from clear_peft.label_quality import interval, label_quality_from_pred_probs, pred_probs

CLASSIFIERS = {
    "logistic regression": LogisticRegression(max_iter=1000),
    "neighbours": KNeighborsClassifier(10),
    "naive Bayes": GaussianNB(),
}
NOISE = {
    "pair .2": pair(6, 0.2),
    "pair .4": pair(6, 0.4),
    "symmetric .3": symmetric(6, 0.3),
    "class-conditional .25": class_conditional(6, 0.25),
}


def precision_at(scores, wrong, length):
    return wrong[np.argsort(scores, kind="stable")[:length]].mean()


@pytest.mark.parametrize("classifier", CLASSIFIERS)
@pytest.mark.parametrize("noise", NOISE)
def test_folds_of_a_classifier_that_has_learned_from_the_noise(classifier, noise):
    world = blobs(1200, NOISE[noise], spread=1.6, seed=1)
    predicted = cross_val_predict(
        CLASSIFIERS[classifier], world.features, world.given, cv=5, method="predict_proba"
    )
    quality = label_quality_from_pred_probs(predicted, world.given)
    assert quality.noise_rate == pytest.approx(world.wrong.mean(), abs=0.05)
    low, high = quality.noise_rate_interval
    assert low <= world.wrong.mean() <= high
    p, theirs = quality.clean_probability, get_label_quality_scores(world.given, predicted)
    length = len(
        find_label_issues(world.given, predicted, return_indices_ranked_by="self_confidence", n_jobs=1)
    )
    ours, cleanlab_s = (average_precision_score(world.wrong, 1 - each) for each in (p, theirs))
    assert ours >= cleanlab_s - 0.002
    assert precision_at(p, world.wrong, length) >= precision_at(theirs, world.wrong, length) - 0.01


@pytest.mark.parametrize("rate", [0.0, 0.2, 0.4])
@pytest.mark.parametrize("model", ["of true labels", "of given labels", "logistic regression"])
def test_a_calibrated_model_of_classes_that_overlap(model, rate):
    world = linear(3000, symmetric(4, rate))
    true = softmax(world.scores, axis=1)
    assert (true.argmax(axis=1) == world.true).mean() < 0.82
    if model == "logistic regression":
        learner = CLASSIFIERS[model]
        predicted = cross_val_predict(learner, world.features, world.given, cv=5, method="predict_proba")
    else:
        predicted = true @ symmetric(4, rate) if model == "of given labels" else true
    quality = label_quality_from_pred_probs(predicted, world.given)
    assert quality.noise_rate == pytest.approx(world.wrong.mean(), abs=0.06)


def test_copies_count_once():
    world = linear(800, symmetric(3, 0.2))
    copied = np.flatnonzero(world.wrong)[:1].repeat(600)
    rows = np.r_[np.arange(800), copied]
    predicted = softmax(world.scores, axis=1)
    alone = label_quality_from_pred_probs(predicted, world.given)
    together = label_quality_from_pred_probs(predicted[rows], world.given[rows], groups=rows)
    unaware = label_quality_from_pred_probs(predicted[rows], world.given[rows])
    off, without = (
        np.abs(each.clean_probability[:800] - alone.clean_probability).mean() for each in (together, unaware)
    )
    assert off < 0.02 < without
    np.testing.assert_array_equal(together.groups[800:], together.groups[copied[0]])


GOOD = np.full((4, 2), 0.5)
NO_PROBABILITIES = (
    r"^pred_probs (are no probabilities in \d rows \(row 0, counted from 0, sums to \S+\): give rows of "
    r"numbers from 0 to 1 that sum to 1|hold <U32 values: give numbers)\.$"
)
NO_IDS = r"^labels are not all whole numbers from 0 to 1: give class ids\.$"
NO_SHAPE = r"^labels have shape .* and pred_probs .*: give \(N,\) and \(N, C\)\.$"


@pytest.mark.parametrize(
    ("predicted", "labels", "message"),
    [
        (np.where(np.eye(4, 2) > 0, np.nan, GOOD), [0, 1, 0, 1], NO_PROBABILITIES),
        (GOOD * 0.9, [0, 1, 0, 1], NO_PROBABILITIES),
        (GOOD * [3, -1], [0, 1, 0, 1], NO_PROBABILITIES),
        (np.log(GOOD), [0, 1, 0, 1], NO_PROBABILITIES),
        (GOOD.astype(str), [0, 1, 0, 1], NO_PROBABILITIES),
        (GOOD, [0, 1, 0], NO_SHAPE),
        (GOOD[:, 0], [0, 1, 0, 1], NO_SHAPE),
        (GOOD[:0], [], NO_SHAPE),
        (GOOD, [[0, 1, 0, 1]], NO_SHAPE),
        (GOOD, [0, 1, 0, 2], NO_IDS),
        (GOOD, [0, 1, 0, -1], NO_IDS),
        (GOOD, [0.0, 1.0, 0.0, 0.5], NO_IDS),
        (GOOD, ["a", "b", "a", "b"], NO_IDS),
    ],
)
def test_what_is_no_prediction_or_no_label_is_refused(predicted, labels, message):
    with pytest.raises(InputError, match=message):
        label_quality_from_pred_probs(predicted, labels)


def test_groups_of_another_length_are_refused():
    with pytest.raises(InputError, match=r"^groups have shape \(3,\)"):
        label_quality_from_pred_probs(GOOD, [0, 1, 0, 1], groups=[0, 1, 2])


def test_lists_booleans_and_half_precision_are_accepted():
    world = linear(300, symmetric(2, 0.2))
    predicted = softmax(world.scores, axis=1)
    plain = label_quality_from_pred_probs(predicted, world.given)
    listed = label_quality_from_pred_probs(predicted.tolist(), (world.given == 1).tolist())
    np.testing.assert_array_equal(listed.clean_probability, plain.clean_probability)
    half = label_quality_from_pred_probs(predicted.astype(np.float16), world.given)
    np.testing.assert_allclose(half.clean_probability, plain.clean_probability, atol=0.1)


def test_many_classes_are_kept_as_the_likeliest_in_chunks(monkeypatch):
    monkeypatch.setattr(interval, "_DRAWS", 2)
    world = blobs(800, symmetric(70, 0.2), dimensions=70)
    predicted = softmax(0.1 * world.scores, axis=1)
    whole = label_quality_from_pred_probs(predicted, world.given)
    assert whole.pred_probs.classes.shape == (800, 32)
    assert whole.pred_probs.num_classes == 70
    assert (whole.predicted == world.true).mean() > 0.95
    own = whole.pred_probs.dense()[np.arange(800), world.given]
    inside = (whole.pred_probs.classes == world.given[:, None]).any(axis=1)
    np.testing.assert_allclose(whole.self_confidence[inside], own[inside], atol=1e-6)
    monkeypatch.setattr(pred_probs, "_CHUNK_CELLS", 70 * 77)
    parts = label_quality_from_pred_probs(predicted, world.given)
    np.testing.assert_array_equal(parts.clean_probability, whole.clean_probability)
    np.testing.assert_array_equal(parts.pred_probs.classes, whole.pred_probs.classes)


@pytest.mark.parametrize("classes", [2, 3, 7])
def test_one_prediction_for_all_rows_says_nothing(classes):
    labels = np.arange(210) % classes
    predicted = np.tile(np.bincount(labels) / 210, (210, 1))
    quality = label_quality_from_pred_probs(predicted, labels)
    assert not quality.is_label_issue.any()
    low, high = quality.noise_rate_interval
    assert low == 0
    assert high > 0.5
