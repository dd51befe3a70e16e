"""The estimated joint of true and given classes."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from audit.written_run import judged
from clear_peft.audit import confused_pairs
from clear_peft.audit.joint import estimated_joint
from clear_peft.label_quality import TopProbs

# float16 has rounded every probability but that of the given label away
SILENT = TopProbs.of(np.array([[1.0, 0.0, 0.0]]))


def test_by_hand():
    p = np.array([1.0, 0.25, 0.5, 0.0])
    label = np.array([0, 0, 1, 2])
    predicted = np.array([0, 2, 1, 0])
    probabilities = np.array([[1, 0, 0], [0.2, 0.2, 0.6], [0, 1, 0], [0.5, 0.25, 0.25]])
    expected = np.zeros((3, 3))
    expected[0, 0] += 1
    expected[:, 0] += [0.25, 0.75 * 0.25, 0.75 * 0.75]
    expected[:, 1] += [0.25, 0.5, 0.25]  # all its mass is on the given label: alike to all others
    expected[:, 2] += [2 / 3, 1 / 3, 0]
    np.testing.assert_allclose(
        estimated_joint(p, label, predicted, TopProbs.of(probabilities), 3), expected / 4
    )
    expected[:, 0] = [1.25, 0, 0.75]
    expected[:, 2] = [1, 0, 0]
    np.testing.assert_allclose(estimated_joint(p, label, predicted, None, 3), expected / 4)


def test_a_silent_model_s_rest_goes_to_what_it_predicted():
    joint = estimated_joint(np.array([0.5]), np.array([0]), np.array([2]), SILENT, 3)
    np.testing.assert_allclose(joint[:, 0], [0.5, 0, 0.5])


@settings(max_examples=40, deadline=None)
@given(st.integers(2, 5), st.integers(1, 40), st.booleans(), st.integers(0, 99))
def test_margins(classes, rows, known, seed):
    rng = np.random.default_rng(seed)
    p, label = rng.random(rows), rng.integers(0, classes, rows)
    probabilities = rng.dirichlet(np.full(classes, 0.1), rows).astype(np.float16)
    predicted = probabilities.argmax(axis=1)
    top = TopProbs.of(probabilities) if known else None
    joint = estimated_joint(p, label, predicted, top, classes)
    assert (joint >= 0).all()
    np.testing.assert_allclose(joint.sum(axis=0), np.bincount(label, minlength=classes) / rows)
    assert 1 - np.trace(joint) == pytest.approx(np.mean(1 - p))


def test_it_comes_near_the_truth_in_parts_of_the_table():
    label, true, probabilities, _ = judged(rows=20_000, noise=0.3, seed=1, sharpness=6)
    p = (label == true).astype(np.float64)
    joint = estimated_joint(p, label, probabilities.argmax(axis=1), TopProbs.of(probabilities), 3)
    truth = np.zeros((3, 3))
    np.add.at(truth, (true, label), 1 / len(true))
    assert np.abs(joint - truth).max() < 0.01


def test_the_pairs_most_often_confused():
    joint = np.array([[0.3, 0.1, 0.004], [0.2, 0.3, 0], [0.05, 0.046, 0]])
    pairs = confused_pairs(joint, ["a", "b", "c"], 100, limit=4)
    assert pairs[["true", "given"]].to_numpy().tolist() == [["b", "a"], ["a", "b"], ["c", "a"], ["c", "b"]]
    assert pairs["rows"].tolist() == pytest.approx([20, 10, 5, 4.6])
    assert pairs["share"].tolist() == pytest.approx([0.2, 0.1, 0.05, 0.046])
    assert len(confused_pairs(joint, ["a", "b", "c"], 100)) == 4  # 0.4 of a row is none
    assert len(confused_pairs(np.eye(3) / 3, ["a", "b", "c"], 100)) == 0
