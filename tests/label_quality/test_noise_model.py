"""The noise model: what it says of a label follows from Bayes."""

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from clear_peft.label_quality import NoiseModel


@settings(max_examples=50, deadline=None)
@given(st.integers(1, 6), st.integers(0, 10**6))
def test_the_posterior_is_bayes(classes, seed):
    rng = np.random.default_rng(seed)
    pred_probs, labels = rng.dirichlet(np.ones(classes), 9), rng.integers(0, classes, 9)
    transition = rng.dirichlet(np.ones(classes), classes)
    noise = NoiseModel("class_conditional", transition)
    joint = np.array(
        [
            [row[i] * transition[i, label] for i in range(classes)]
            for row, label in zip(pred_probs, labels, strict=True)
        ]
    )
    expected = joint / joint.sum(axis=1, keepdims=True)
    np.testing.assert_allclose(noise.joint(pred_probs, labels), joint)
    np.testing.assert_allclose(noise.posterior(pred_probs, labels), expected)
    p = noise.clean_probability(pred_probs, labels)
    assert p.dtype == np.float64
    np.testing.assert_allclose(p, expected[np.arange(9), labels])


def test_float32_predictions_and_those_that_exclude_the_label():
    noise = NoiseModel("symmetric", np.eye(2))
    pred_probs, labels = np.array([[1, 0], [1, 0]], np.float32), np.array([0, 1])
    np.testing.assert_array_equal(noise.clean_probability(pred_probs, labels), [1, 0])
    assert np.isfinite(noise.posterior(pred_probs, labels)).all()
