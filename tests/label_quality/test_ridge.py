"""Ridge regression: what it says of a group without the group is what a fit to the others says."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from clear_peft.label_quality import ridge
from clear_peft.label_quality.ridge import Ridge, one_hot, sums_by_label, whole_groups


def without_groups(fitted, features, labels, groups, penalty, weights):
    """By refitting: normal equations of the rows of all other groups, on the fit's center and scale."""
    rows = np.c_[(features - fitted.center) / fitted.scale, np.ones(len(features))].astype(np.float64)
    given_labels, predicted = one_hot(labels, fitted.products.shape[1]), []
    for group in groups:
        others = groups != group
        weighted = rows[others].T * weights[others]
        gram = weighted @ rows[others] + penalty * np.eye(rows.shape[1])
        predicted.append(rows[len(predicted)] @ np.linalg.solve(gram, weighted @ given_labels[others]))
    return np.array(predicted)


def by_closed_form(fitted, features, labels, groups, penalty, weights=None):
    predicted = np.empty((len(labels), fitted.products.shape[1]))
    for rows, each in whole_groups(groups, len(labels)):
        counted = None if weights is None else weights[rows]
        predicted[rows] = fitted.left_out(
            fitted.project(features[rows]), labels[rows], each, penalty, counted
        )
    return predicted


@st.composite
def tables(draw):
    size, dimensions, classes = draw(st.integers(6, 40)), draw(st.integers(1, 8)), draw(st.integers(2, 4))
    rng = np.random.default_rng(draw(st.integers(0, 10**6)))
    labels = rng.integers(0, classes, size)
    features = rng.normal(size=(size, dimensions)) * rng.uniform(0.2, 5, dimensions) + rng.normal(
        size=dimensions
    )
    groups = rng.integers(0, draw(st.integers(1, size)), size)
    if draw(st.booleans()):
        groups[: min(size, dimensions + 3)] = size  # more rows than the D + 1 unknowns
    weights = rng.uniform(0.1, 2, size) if draw(st.booleans()) else None
    return features, labels, classes, groups, weights


@settings(max_examples=120, deadline=None)
@given(tables(), st.sampled_from([0.01, 0.3, 10.0, 1000.0]))
def test_a_group_is_predicted_as_by_a_fit_to_the_others(table, penalty):
    features, labels, classes, groups, weights = table
    fitted = Ridge.fit(features, labels, classes, weights)
    counted = np.ones(len(labels)) if weights is None else weights
    expected = without_groups(fitted, features, labels, groups, penalty, counted)
    closed = by_closed_form(fitted, features, labels, groups, penalty, weights)
    np.testing.assert_allclose(closed, expected, atol=2e-3)


@settings(max_examples=30, deadline=None)
@given(tables())
def test_rows_alone_are_groups_of_one(table):
    features, labels, classes, _, weights = table
    fitted = Ridge.fit(features, labels, classes, weights)
    alone = by_closed_form(fitted, features, labels, None, 1.0, weights)
    ones = by_closed_form(fitted, features, labels, np.arange(len(labels)) + 7, 1.0, weights)
    np.testing.assert_allclose(alone, ones, atol=1e-12)
    counted = np.ones(len(labels)) if weights is None else weights
    expected = without_groups(fitted, features, labels, np.arange(len(labels)), 1.0, counted)
    np.testing.assert_allclose(alone, expected, atol=1e-4)


@settings(max_examples=30, deadline=None)
@given(tables(), st.sampled_from([0.01, 3.0]))
def test_coefficients_are_the_map_that_projected_rows_go_through(table, penalty):
    features, labels, classes, _, weights = table
    fitted = Ridge.fit(features, labels, classes, weights)
    slopes, intercepts = fitted.coefficients(penalty)
    projected = fitted.project(features) @ (fitted.products / (fitted.values + penalty)[:, None])
    np.testing.assert_allclose(features @ slopes + intercepts, projected, atol=2e-3)
    rows = np.c_[(features - fitted.center) / fitted.scale, np.ones(len(features))]
    weighted = rows.T * (1 if weights is None else weights)
    solved = np.linalg.solve(
        weighted @ rows + penalty * np.eye(rows.shape[1]), weighted @ one_hot(labels, classes)
    )
    np.testing.assert_allclose(slopes, solved[:-1] / fitted.scale, atol=2e-3)


@settings(max_examples=60, deadline=None)
@given(st.lists(st.integers(-3, 9), min_size=1, max_size=80), st.integers(1, 12))
def test_chunks_are_whole_groups_of_one_size_and_every_row_once(groups, most):
    groups = np.array(groups)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(ridge, "_CHUNK", most)
        chunks = list(whole_groups(groups, len(groups)))
        alone = list(whole_groups(None, len(groups)))
    for rows, each in chunks:
        blocks = groups[rows].reshape(-1, each)
        assert (blocks == blocks[:, :1]).all()
        assert all((groups == group).sum() == each for group in blocks[:, 0])
        assert len(rows) <= max(most, each)
    for parts in (chunks, alone):
        assert sorted(np.concatenate([rows for rows, _ in parts])) == list(range(len(groups)))
    assert all(each == 1 and len(rows) <= most for rows, each in alone)


def test_many_chunks_are_one_fit(monkeypatch):
    rng = np.random.default_rng(0)
    features, labels, weights = rng.normal(size=(50, 3)), rng.integers(0, 3, 50), rng.uniform(size=50)
    whole = Ridge.fit(features, labels, 3, weights)
    monkeypatch.setattr(ridge, "_CHUNK", 7)
    parts = Ridge.fit(features, labels, 3, weights)
    for one, other in zip(whole.coefficients(1.0), parts.coefficients(1.0), strict=True):
        np.testing.assert_allclose(one, other, atol=1e-5)


@pytest.mark.parametrize(
    ("spread", "offset", "dtype"),
    [
        (8.0, 1e4, np.float16),  # steps of 8 at 10,000
        (32.0, 6e4, np.float16),  # near the largest number of all, 65,504
        (1.0, 1e5, np.float32),
        (1e-4, 0.0, np.float32),
        (1e4, -3e4, np.float64),
    ],
)
def test_neither_offset_nor_scale_hides_the_signal(spread, offset, dtype):
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 2, 2000)
    clear = rng.normal(size=(2000, 5)) + 3 * labels[:, None] * (np.arange(5) < 2)
    features = (clear * spread + offset).astype(dtype)
    assert np.isfinite(features).all()
    fitted = Ridge.fit(features, labels, 2)
    assert fitted.scale == pytest.approx(np.sqrt(clear.var(axis=0).sum()) * spread, rel=0.05)
    plain = Ridge.fit(clear, labels, 2)
    closed, known = (
        by_closed_form(each, rows, labels, None, 1.0).argmax(axis=1) == labels
        for each, rows in ((fitted, features), (plain, clear))
    )
    assert closed.mean() > known.mean() - 0.01
    assert known.mean() > 0.97


def test_features_that_say_nothing_predict_the_shares_of_the_classes():
    labels = np.array([0, 0, 0, 1])
    slopes, intercepts = Ridge.fit(np.full((4, 3), 5.0), labels, 3).coefficients(1e-6)
    np.testing.assert_allclose(np.full(3, 5.0) @ slopes + intercepts, [0.75, 0.25, 0], atol=1e-4)


def test_sums_by_label():
    rows, labels = np.arange(12.0).reshape(6, 2), np.array([3, 0, 3, 1, 0, 3])
    np.testing.assert_array_equal(sums_by_label(rows, labels, 5), one_hot(labels, 5).T @ rows)
    np.testing.assert_array_equal(sums_by_label(rows[:0], labels[:0], 2), np.zeros((2, 2)))
