"""Targets and weights from outside."""

import numpy as np
import pytest
import torch
from batches import distributions, draw, outcome, softmax

from clear_peft.errors import InputError
from clear_peft.objectives import make_objective

N, C = 20, 4


def make():
    return make_objective("soft_labels", N, C)


def test_weighted_soft_cross_entropy_by_hand():
    objective = make()
    objective.targets, objective.weights = distributions(N, C, 0), torch.linspace(0, 2, N)
    logits, labels, ids = draw(9, C, 1)
    losses, gradients = outcome(objective, (logits, labels, ids))
    p, q, w = softmax(logits), objective.targets[ids].numpy(), objective.weights[ids].numpy()
    np.testing.assert_allclose(losses, -w * (q * np.log(p)).sum(1), rtol=1e-5)
    np.testing.assert_allclose(gradients, w[:, None] * (p - q), rtol=1e-4, atol=1e-6)


def test_it_is_cross_entropy_until_something_is_set_and_when_it_is_taken_back():
    batch = draw(9, C, 1)
    plain = outcome(make_objective("cross_entropy", N, C), batch)
    objective = make()
    torch.testing.assert_close(outcome(objective, batch), plain)
    objective.weights = torch.full((N,), 0.5)
    torch.testing.assert_close(outcome(objective, batch), tuple(x / 2 for x in plain))
    objective.targets, objective.weights = distributions(N, C, 0), None
    assert not torch.allclose(outcome(objective, batch)[0], plain[0])
    objective.targets = None
    torch.testing.assert_close(outcome(objective, batch), plain)
    assert objective.state() == {}


def test_what_was_set_is_copied_and_passes_no_gradient():
    objective, targets = make(), distributions(N, C, 0).requires_grad_()
    objective.targets = targets
    with torch.no_grad():
        targets.zero_()
    assert objective.targets.sum().item() == pytest.approx(N)
    assert not objective.targets.requires_grad


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("targets", torch.ones(N, C - 1), r"targets have shape \(20, 3\): give \(20, 4\)"),
        ("targets", torch.ones(N, C), "Row 0 of targets is no distribution"),
        ("targets", torch.tensor([[1.5, -0.5, 0, 0]]).repeat(N, 1), "Row 0 of targets"),
        ("targets", torch.full((N, C), float("nan")), "Row 0 of targets"),
        ("weights", torch.ones(N, 1), r"weights have shape \(20, 1\): give \(20,\)"),
        ("weights", -torch.ones(N), "Some weights are negative"),
        ("weights", torch.full((N,), float("inf")), "not finite"),
    ],
)
def test_wrong_tensors_are_refused_with_a_remedy(name, value, message):
    with pytest.raises(InputError, match=message):
        setattr(make(), name, value)
