"""Whether predictions and labels have anything to do with each other."""

import warnings

import numpy as np
import pytest

from clear_peft import find_label_issues
from clear_peft.errors import ClearWarning
from clear_peft.label_quality import agreement


def _world(seed, size=400, classes=4, signal=1.0):
    rng = np.random.default_rng(seed)
    labels = rng.choice(classes, size, p=[0.55, 0.2, 0.15, 0.1])
    return signal * np.eye(classes)[labels] + rng.normal(size=(size, classes)), labels


@pytest.mark.parametrize("weighted", [False, True])
def test_it_is_standard_normal_where_labels_are_those_of_other_rows(weighted):
    rng = np.random.default_rng(0)
    scores, labels = _world(0)
    weights = rng.choice([1.0, 0.25], len(labels)) if weighted else None
    found = [agreement(scores, rng.permutation(labels), weights) for _ in range(1000)]
    assert abs(np.mean(found)) < 0.15
    assert 0.85 < np.std(found) < 1.15
    assert agreement(scores, labels, weights) > 8


def test_scores_that_are_the_same_for_all_rows_agree_by_nothing():
    _, labels = _world(1)
    assert agreement(np.tile([0.55, 0.2, 0.15, 0.1], (len(labels), 1)), labels) == pytest.approx(0, abs=1e-3)


def test_few_rows_cannot_tell():
    scores, labels = _world(2)
    assert agreement(scores[:99], labels[:99]) is None
    assert agreement(scores, labels, np.arange(len(labels)) < 99) is None


@pytest.mark.parametrize("seed", range(5))
def test_a_list_of_labels_that_stand_beside_other_rows_is_called_useless(seed):
    features, labels = _world(seed, signal=3.0)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        find_label_issues(None, labels, embeddings=features)
    with pytest.warns(ClearWarning, match="see whether each text stands beside its own label"):
        find_label_issues(None, np.random.default_rng(seed).permutation(labels), embeddings=features)


def test_so_is_one_by_predictions_of_other_rows():
    features, labels = _world(3, signal=3.0)
    probabilities = np.exp(features) / np.exp(features).sum(axis=1, keepdims=True)
    with pytest.warns(ClearWarning, match="agree with the labels no better than chance"):
        find_label_issues(None, labels[::-1], pred_probs=probabilities)
