"""Early-learning regularization against its formulas in float64."""

import numpy as np
import pytest
import torch
from batches import draw, outcome, softmax

from clear_peft.losses import make_loss


@pytest.mark.parametrize(
    ("options", "beta", "weight"), [({}, 0.7, 3.0), ({"momentum": 0.2, "strength": 7}, 0.2, 7)]
)
def test_three_steps_by_hand(options, beta, weight):
    loss = make_loss("elr", 9, 4, options)
    targets = np.zeros((9, 4))
    for step in range(3):
        logits, labels, ids = draw(6, 4, step, num_examples=9)
        losses, gradients = outcome(loss, (logits, labels, ids))
        p = softmax(logits)
        assert (p > 1e-4).all(), "the clamp would be at work"
        targets[ids] = beta * targets[ids] + (1 - beta) * p
        t = targets[ids]
        agreement = (t * p).sum(1, keepdims=True)
        expected = -np.log(p[np.arange(6), labels]) + weight * np.log(1 - agreement[:, 0])
        gradient = p - np.eye(4)[labels] - weight * p * (t - agreement) / (1 - agreement)
        np.testing.assert_allclose(losses, expected, rtol=1e-4, atol=1e-5)
        np.testing.assert_allclose(gradients, gradient, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(loss.state_dict()["targets"], targets, rtol=1e-5)


def test_certainty_is_clamped():
    loss = make_loss("elr", 1, 50, {"momentum": 0.0})
    logits = torch.zeros(1, 50)
    logits[0, 0] = 50
    losses, _ = outcome(loss, (logits.requires_grad_(), torch.tensor([0]), torch.tensor([0])))
    p = np.array([1 - 1e-4, *[1e-4] * 49])
    assert losses.item() == pytest.approx(3 * np.log(1 - p @ p / p.sum()), rel=1e-3)
    np.testing.assert_allclose(loss.state_dict()["targets"][0], p / p.sum(), rtol=1e-5)
