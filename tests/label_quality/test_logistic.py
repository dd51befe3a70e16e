"""Logistic regressions of several labels: against scikit-learn, and what they must not have seen."""

import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression

from clear_peft.errors import InputError
from clear_peft.label_quality import logistic
from clear_peft.label_quality.logistic import Regressions, fit_logistic_head


def _world(size=300, labels=3, seed=0):
    rng = np.random.default_rng(seed)
    features = rng.normal(size=(size, 6)).astype(np.float32)
    return features, features @ rng.normal(size=(6, labels)) > 0.5


@pytest.mark.parametrize("penalty", [0.3, 3.0])
def test_coefficients_are_those_of_scikit_learn(penalty):
    rows, given = _world()
    weights = np.random.default_rng(1).integers(1, 4, len(rows)).astype(float)
    base = np.log((weights @ given + 0.5) / (weights @ ~given + 0.5))
    found = logistic._fitted(rows, given, weights, penalty, base, np.zeros((7, 3)))
    for label in range(3):
        model = LogisticRegression(C=1 / penalty, tol=1e-8).fit(rows, given[:, label], weights)
        np.testing.assert_allclose(found[:-1, label], model.coef_[0], rtol=0.03)
        np.testing.assert_allclose(found[-1, label], model.intercept_[0], rtol=0.03)


def test_a_label_has_no_part_in_what_is_said_of_its_group(monkeypatch):
    monkeypatch.setattr(logistic, "_PENALTIES", (1.0,))
    features, given = _world()
    groups = np.arange(len(given)) // 2
    counted = np.ones(len(given))
    flipped = given.copy()
    flipped[:2] = ~flipped[:2]
    before = Regressions(features, given, counted, groups).left_out
    after = Regressions(features, flipped, counted, groups).left_out
    np.testing.assert_array_equal(before[:2], after[:2])
    assert np.abs(before - after).max() > 0


def test_rows_beyond_those_that_are_fitted_to_are_predicted(monkeypatch):
    features, given = _world(600)
    counted = np.ones(len(given))
    every = Regressions(features, given, counted, None).left_out
    monkeypatch.setattr(logistic, "_MOST_FIT_ROWS", 300)
    part = Regressions(features, given, counted, None).left_out
    assert ((part > 0) == given).mean() > 0.93
    assert np.corrcoef(part.ravel(), every.ravel())[0, 1] > 0.97


def test_several_views_and_any_scale():
    features, given = _world()
    views = np.stack([features, features * 0 + 5], axis=1)
    found = Regressions(views * 1000, given, np.ones(len(given)), None).left_out
    assert ((found > 0) == given).mean() > 0.9


def test_features_that_are_not_finite_are_refused():
    features, given = _world()
    features[3, 2] = np.inf
    with pytest.raises(InputError, match="not all finite"):
        Regressions(features, given, np.ones(len(given)), None)


def test_other_rows_are_predicted_by_a_fit_to_all():
    features, given = _world(400)
    fitted = Regressions(features[:300], given[:300], np.ones(300), None)
    odds = fitted.log_odds(features[300:])
    assert odds.shape == (100, 3)
    assert ((odds > 0) == given[300:]).mean() > 0.9


def test_a_head_of_soft_targets_is_that_of_rows_counted_by_them():
    features, given = _world(200)
    targets = np.where(given, 0.8, 0.3)
    head = fit_logistic_head(1000 * features + 7, targets)
    off = features - features.mean(axis=0)
    rows = off / np.sqrt((off**2).sum(axis=1).mean())
    for label in range(3):
        weights = np.concatenate([targets[:, label], 1 - targets[:, label]])
        model = LogisticRegression(tol=1e-8).fit(
            np.concatenate([rows, rows]), np.repeat([True, False], 200), weights
        )
        found = (1000 * features + 7) @ head.weights[:, label] + head.bias[label]
        np.testing.assert_allclose(found, model.decision_function(rows), atol=0.03)
