"""Self-ensemble label correction against its formulas in float64."""

import numpy as np
import torch
from batches import draw, outcome, softmax
from hypothesis import given, settings
from hypothesis import strategies as st

from clear_peft.losses import make_loss


def test_three_steps_after_the_switch_by_hand():
    loss = make_loss("selc", 9, 4)
    targets = np.eye(4)[np.arange(9) % 4]
    for step in range(3):
        logits, labels, ids = draw(6, 4, step, num_examples=9)
        losses, gradients = outcome(loss, (logits, labels, ids), epoch=2.0)
        p = softmax(logits)
        targets[ids] = 0.9 * targets[ids] + 0.1 * p
        np.testing.assert_allclose(losses, -(targets[ids] * np.log(p)).sum(1), rtol=1e-5)
        np.testing.assert_allclose(gradients, p - targets[ids], rtol=1e-4, atol=1e-6)


def test_nothing_is_remembered_before_the_switch():
    loss = make_loss("selc", 9, 4)
    outcome(loss, draw(6, 4, 0, num_examples=9), epoch=1.99)
    assert not loss.state_dict()["targets"].any()


def test_evaluation_takes_the_corrected_target_where_there_is_one():
    loss = make_loss("selc", 2, 2, {"momentum": 0.0})
    sure = torch.tensor([[40.0, 0.0]])
    outcome(loss, (sure.clone().requires_grad_(), torch.tensor([1]), torch.tensor([0])), epoch=2.0)
    losses = loss(sure.repeat(2, 1), torch.tensor([1, 1]), torch.tensor([0, 1]), epoch=2.0)
    torch.testing.assert_close(losses, torch.tensor([0.0, 40.0]))


@settings(deadline=None, max_examples=25)
@given(seeds=st.lists(st.integers(0, 999), min_size=1, max_size=8), momentum=st.floats(0, 1))
def test_targets_stay_distributions(seeds, momentum):
    loss = make_loss("selc", 9, 4, {"momentum": momentum, "switch_epoch": 0})
    seen = set()
    for seed in seeds:
        batch = draw(4, 4, seed, num_examples=9)
        seen |= set(batch[2].tolist())
        outcome(loss, batch)
    targets = loss.state_dict()["targets"]
    assert (targets >= 0).all()
    torch.testing.assert_close(targets.sum(1), torch.tensor([float(i in seen) for i in range(9)]))
