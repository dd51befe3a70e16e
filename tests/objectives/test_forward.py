"""Forward correction against its formula in float64."""

import numpy as np
import pytest
import torch
from batches import distributions, draw, outcome, softmax

from clear_peft.errors import InputError
from clear_peft.objectives import forward_cross_entropy, make_objective

N, C = 20, 4


def make(matrix=None):
    objective = make_objective("forward", N, C)
    objective.matrix = matrix
    return objective


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 1e-4), (torch.bfloat16, 2e-2)])
def test_values_and_gradients_by_hand(dtype, tolerance):
    matrix = distributions(C, C, 0)
    logits, labels, ids = draw(9, C, 1, dtype)
    losses, gradients = outcome(make(matrix), (logits, labels, ids))
    p, likelihood = softmax(logits), matrix.double().numpy()[:, labels].T
    noisy = (p * likelihood).sum(1, keepdims=True)
    np.testing.assert_allclose(losses, -np.log(noisy[:, 0]), rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(gradients.float(), p - p * likelihood / noisy, rtol=tolerance, atol=1e-6)


@pytest.mark.parametrize("matrix", [None, torch.eye(C)], ids=["none", "identity"])
def test_without_noise_it_is_cross_entropy(matrix):
    logits, labels, ids = draw(9, C, 1)
    logits = (20 * logits.detach()).requires_grad_()  # probabilities that underflow
    batch = logits, labels, ids
    torch.testing.assert_close(
        outcome(make(matrix), batch), outcome(make_objective("cross_entropy", N, C), batch)
    )


def test_the_noisy_labels_probabilities_sum_to_one():
    logits = draw(1, C, 2)[0].detach().repeat(C, 1)
    losses = forward_cross_entropy(logits, torch.arange(C), distributions(C, C, 3))
    assert losses.neg().exp().sum().item() == pytest.approx(1)


def test_the_matrix_can_be_taken_back():
    objective = make(distributions(C, C, 0))
    assert objective.state().keys() == {"matrix"}
    objective.matrix = None
    assert objective.state() == {}


@pytest.mark.parametrize(
    ("matrix", "message"),
    [
        (torch.eye(3), r"matrix have shape \(3, 3\): give \(4, 4\)"),
        (torch.ones(C, C), "Row 0 of matrix is no distribution"),
        (torch.eye(C)[[0, 1, 2, 2]], "Column 3 of matrix is all zero"),
    ],
)
def test_wrong_matrices_are_refused_with_a_remedy(matrix, message):
    with pytest.raises(InputError, match=message):
        make(matrix)


def test_a_matrix_of_another_size_is_refused():
    with pytest.raises(InputError, match=r"matrix \(3, 3\)"):
        forward_cross_entropy(torch.zeros(2, C), torch.tensor([0, 1]), torch.eye(3))
