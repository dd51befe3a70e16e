"""The answer: a compact form of probabilities that loses little, and a list in the right order."""

import json
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from clear_peft.label_quality import LabelQuality, NoiseModel, TopProbs
from clear_peft.label_quality.quality import TOP_CLASSES


def quality(p, own, labels=(0, 1, 2, 0), groups=(0, 1, 1, 2)):
    top = TopProbs.of(np.array([[0.2, 0.7, 0.1], [0.2, 0.7, 0.1], [0.1, 0.1, 0.8], [0.9, 0.1, 0.0]]))
    numbers = (np.array(own, np.float32), np.array(p, np.float32))
    noise = NoiseModel("symmetric", np.eye(3))
    return LabelQuality(np.array(labels), top, *numbers, noise, (0.0, 1.0), np.array(groups))


@settings(max_examples=80, deadline=None)
@given(st.integers(1, 90), st.integers(0, 9), st.integers(0, 10**6), st.sampled_from([0.01, 0.3, 5.0]))
def test_the_largest_probabilities_survive_and_the_rest_is_even(classes, size, seed, doubt):
    pred_probs = np.random.default_rng(seed).dirichlet(np.full(classes, doubt), size).reshape(size, classes)
    top = TopProbs.of(pred_probs)
    dense = top.dense()
    assert len(top) == size
    assert dense.shape == (size, classes)
    np.testing.assert_allclose(dense.sum(axis=1), 1, atol=1e-5)
    np.testing.assert_array_equal(top.predicted, pred_probs.argmax(axis=1))
    assert (np.diff(top.values, axis=1) <= 0).all()
    kept = np.take_along_axis(pred_probs, top.classes.astype(int), axis=1)
    np.testing.assert_allclose(top.values, kept, atol=1e-6)
    if classes <= 2 * TOP_CLASSES:
        np.testing.assert_allclose(dense, pred_probs, atol=1e-6)
    elif size:
        assert top.classes.shape[1] == TOP_CLASSES
        rest = np.sort(pred_probs, axis=1)[:, :-TOP_CLASSES].mean(axis=1)
        others = np.ones((size, classes), bool)
        np.put_along_axis(others, top.classes.astype(int), False, axis=1)
        expected = np.repeat(rest[:, None], classes - TOP_CLASSES, axis=1)
        np.testing.assert_allclose(dense[others].reshape(size, -1), expected, atol=1e-6)


def made(rows, classes, noise=None, seed=0, source="probe", row=None):
    rng = np.random.default_rng(seed)
    labels, pred_probs = rng.integers(0, classes, rows), rng.dirichlet(np.full(classes, 0.3), rows)
    own, p = pred_probs[range(rows), labels].astype(np.float32), rng.random(rows, np.float32)
    interval, groups = None if noise is None else (0.05, 0.3), rng.integers(0, max(rows // 2, 1), rows)
    return LabelQuality(labels, TopProbs.of(pred_probs), own, p, noise, interval, groups, source, row)


def same(first, second):
    """Whether all of two qualities is the same, bit by bit."""
    (arrays, rest), (others, other) = first.arrays(), second.arrays()
    assert arrays.keys() == others.keys()
    assert all(arrays[name].dtype == others[name].dtype for name in arrays)
    return all(np.array_equal(arrays[name], others[name]) for name in arrays) and rest == other


@settings(max_examples=60, deadline=None)
@given(
    st.integers(0, 9),
    st.sampled_from([1, 2, 3, 64, 65, 200, 40_000]),
    st.sampled_from(["none", "symmetric", "pair_flip", "class_conditional", None]),
    st.sampled_from(["probe", "out_of_sample", "final_model"]),
    st.booleans(),
    st.integers(0, 10**6),
)
def test_a_file_gives_back_what_it_was_given(rows, classes, kind, source, numbered, seed):
    classes = min(classes, 300) if kind else classes
    noise = None if kind is None else NoiseModel(kind, np.full((classes, classes), 1 / classes))
    row = 3 * np.arange(rows) + 1 if numbered else None
    quality = made(rows, classes, noise, seed, source, row)
    arrays, rest = quality.arrays()
    # the rest goes through JSON
    again = LabelQuality.from_arrays(arrays, json.loads(json.dumps(rest)))
    assert same(again, quality)
    assert again.noise_rate_interval == quality.noise_rate_interval
    assert (again.noise is None) == (noise is None)
    np.testing.assert_array_equal(again.rows, np.arange(rows) if row is None else row)
    np.testing.assert_array_equal(again.pred_probs.dense(), quality.pred_probs.dense())


HOSTILE = [
    ({"classes": np.zeros((5, 1), np.int16)}, {}),
    ({"classes": np.full((5, 4), 4, np.int16)}, {}),
    ({"classes": np.full((5, 4), -1, np.int16)}, {}),
    ({"classes": np.zeros((5, 4), np.int64)}, {}),
    ({"classes": np.zeros((5, 4), np.float32)}, {}),
    ({"classes": np.int16(0)}, {}),
    ({"pred_probs": np.full((5, 4), 1.5, np.float32)}, {}),
    ({"pred_probs": np.full((5, 4), -0.5, np.float32)}, {}),
    ({"pred_probs": np.full((5, 4), np.nan, np.float32)}, {}),
    ({"pred_probs": np.zeros((5, 4), np.float64)}, {}),
    ({"pred_probs": np.zeros((4, 4), np.float32), "classes": np.zeros((4, 4), np.int16)}, {}),
    ({"given": np.zeros(4, np.int64)}, {}),
    ({"given": np.zeros((5, 1), np.int64)}, {}),
    ({"given": np.zeros(5, np.float32)}, {}),
    ({"given": np.zeros(5, bool)}, {}),
    ({"given": np.full(5, 4)}, {}),
    ({"given": np.full(5, -1)}, {}),
    ({"groups": np.zeros(6, np.int64)}, {}),
    ({"groups": np.zeros(5)}, {}),
    ({"row": np.zeros(5)}, {}),
    ({"row": np.zeros(3, np.int64)}, {}),
    ({"self_confidence": np.full(5, 2, np.float32)}, {}),
    ({"self_confidence": np.zeros(5)}, {}),
    ({"clean_probability": np.full(5, np.nan, np.float32)}, {}),
    ({"clean_probability": np.full(5, -0.1, np.float32)}, {}),
    ({"clean_probability": np.zeros((5, 1), np.float32)}, {}),
    ({"transition": np.zeros((3, 3))}, {}),
    ({"transition": np.full((4, 4), np.inf)}, {}),
    ({"transition": np.zeros(16)}, {}),
    ({}, {"num_classes": 5}),
    ({}, {"num_classes": 0}),
    ({}, {"num_classes": -4}),
    ({}, {"num_classes": 10**12}),
    ({}, {"num_classes": "four"}),
    ({}, {"num_classes": float("nan")}),
    ({}, {"num_classes": float("inf")}),
    ({}, {"source": "guess"}),
    ({}, {"source": None}),
    ({}, {"noise": "some"}),
    ({}, {"noise_rate_interval": [0.3, 0.1]}),
    ({}, {"noise_rate_interval": [0.1, 1.1]}),
    ({}, {"noise_rate_interval": [0.1]}),
    ({}, {"noise_rate_interval": [0.1, 0.2, 0.3]}),
    ({}, {"noise_rate_interval": ["a", "b"]}),
    ({}, {"noise_rate_interval": [0.1, float("nan")]}),
    ({}, {"noise_rate_interval": [0.1, 10**400]}),
]


@pytest.mark.parametrize(("arrays", "rest"), HOSTILE, ids=lambda change: str(change)[:60])
def test_what_nobody_has_written_is_refused(arrays, rest):
    held, told = made(5, 4, NoiseModel("symmetric", np.full((4, 4), 0.25))).arrays()
    with pytest.raises(ValueError, match=r"\w"):
        LabelQuality.from_arrays(held | arrays, told | rest)


@pytest.mark.parametrize("name", ["given", "classes", "pred_probs", "row", "groups", "transition", "source"])
def test_what_is_not_there_is_missed(name):
    held, told = made(5, 4, NoiseModel("symmetric", np.full((4, 4), 0.25))).arrays()
    held.pop(name, None)
    told.pop(name, None)
    with pytest.raises((KeyError, ValueError)):
        LabelQuality.from_arrays(held, told)


@given(st.permutations(range(12)), st.lists(st.integers(0, 12), max_size=3).map(sorted))
def test_parts_of_a_table_come_together_in_its_order(order, cuts):
    noise = NoiseModel("symmetric", np.full((5, 5), 0.2))
    whole = made(12, 5, noise, row=np.arange(12))
    parts = []
    for rows in np.split(np.array(order), cuts):
        top = whole.pred_probs[rows]
        numbers = whole.self_confidence[rows], whole.clean_probability[rows]
        interval, groups = whole.noise_rate_interval, whole.groups[rows]
        parts.append(LabelQuality(whole.given[rows], top, *numbers, noise, interval, groups, "probe", rows))
    together = LabelQuality.concatenate(parts)
    assert same(together, whole)
    assert together.noise is noise


def test_the_list_names_rows_by_their_place_in_the_table():
    place = np.array([70, 10, 30, 20])
    found = replace(quality(p=[0.5, 0.2, 0.9, 0.3], own=[0.5] * 4), row=place)
    issues = found.issues()
    assert issues["row"].tolist() == [10, 20, 70, 30]
    assert issues["group"].tolist() == [1, 2, 0, 1]
    assert quality(p=[0.5] * 4, own=[0.5] * 4).rows.tolist() == [0, 1, 2, 3]
    np.testing.assert_array_equal(found.rows, place)
    listed = LabelQuality.concatenate([found]).issues()
    assert listed["row"].tolist() == issues["row"].tolist()


def test_parts_of_the_rows_and_parts_together():
    top = TopProbs.of(np.random.default_rng(0).dirichlet(np.ones(20), 7))
    again = TopProbs.concatenate([top[:3], top[np.array([3, 4])], top[5:]])
    assert again.num_classes == 20
    np.testing.assert_array_equal(again.dense(), top.dense())


def test_the_list_begins_with_the_smallest_p_and_breaks_ties_by_self_confidence():
    issues = quality(p=[0.5, 0.2, 0.9, 0.2], own=[0.1, 0.6, 0.8, 0.3]).issues()
    assert issues["row"].tolist() == [3, 1, 0, 2]
    assert issues.columns.tolist() == [
        "row",
        "given_label",
        "predicted_label",
        "clean_probability",
        "label_quality",
        "is_label_issue",
        "group",
    ]
    assert issues["given_label"].tolist() == ["0", "1", "0", "2"]
    assert issues["predicted_label"].tolist() == ["0", "1", "1", "2"]
    assert issues["is_label_issue"].tolist() == [True, True, False, False]
    assert issues["group"].tolist() == [2, 1, 0, 1]
    np.testing.assert_allclose(issues["clean_probability"], [0.2, 0.2, 0.5, 0.9])
    np.testing.assert_allclose(issues["label_quality"], [0.3, 0.6, 0.1, 0.8])


def test_rows_that_are_equal_in_everything_keep_their_order():
    assert quality(p=[0.3] * 4, own=[0.5] * 4).issues()["row"].tolist() == [0, 1, 2, 3]


def test_classes_have_their_names():
    issues = quality(p=[0.1, 0.2, 0.3, 0.4], own=[0.5] * 4).issues(["ham", "spam", "eggs"])
    assert issues["given_label"].tolist() == ["ham", "spam", "eggs", "ham"]
    assert issues["predicted_label"].tolist() == ["spam", "spam", "eggs", "ham"]
    for column in ("given_label", "predicted_label"):
        assert issues[column].cat.categories.tolist() == ["ham", "spam", "eggs"]


@given(st.lists(st.floats(0, 1, width=32), min_size=4, max_size=4))
def test_rate_and_flags_follow_from_p(p):
    found = quality(p=p, own=[0.5] * 4)
    assert len(found) == 4
    assert found.noise_rate == pytest.approx(1 - np.mean(p), abs=1e-6)
    np.testing.assert_array_equal(found.is_label_issue, np.array(p, np.float32) < 0.5)
    assert found.issues()["is_label_issue"].sum() == found.is_label_issue.sum()
