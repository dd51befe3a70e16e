"""The answer: a compact form of probabilities that loses little, and a list in the right order."""

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


@pytest.mark.parametrize("classes", [2, 64, 65])
def test_a_file_gives_back_what_it_was_given(classes):
    top = TopProbs.of(np.random.default_rng(0).dirichlet(np.ones(classes), 5))
    again = TopProbs.from_arrays(top.arrays(), classes)
    np.testing.assert_array_equal(again.classes, top.classes)
    np.testing.assert_allclose(again.values, top.values, atol=1e-3)
    for change, sentence in (
        ({"classes": top.classes[:, :1]}, "does not hold"),
        ({"classes": top.classes + 1}, "names classes"),
        ({"probabilities": -top.values.astype(np.float16)}, "between 0 and 1"),
    ):
        with pytest.raises(ValueError, match=sentence):
            TopProbs.from_arrays({**top.arrays(), **change}, classes)


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
