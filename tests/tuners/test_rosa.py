"""RoSA's formula, its support, and that it is full tuning where every entry is in it."""

import warnings

import peft
import pytest
import torch
from torch import nn

from clear_peft.tuners.catalogue import available_methods
from clear_peft.tuners.rosa import (
    accumulate,
    base_weights,
    set_supports,
    sparse_layers,
    sparse_values,
    support,
)

pytestmark = pytest.mark.skipif("rosa" not in available_methods(), reason="RoSA needs peft 0.21")


def layer(weight, sparsity, **options):
    """One adapted linear layer, as a model."""
    base = nn.Sequential(nn.Linear(weight.shape[1], weight.shape[0], bias=False, dtype=weight.dtype))
    with torch.no_grad():
        base[0].weight.copy_(weight)
    config = peft.SupertuningConfig(target_modules=["0"], sparsity=sparsity, **options)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return peft.get_peft_model(base, config, autocast_adapter_dtype=False)


def test_hand_numbers():
    """W = I + 2·BA + S, with A = (1, 2), B = (½, −½) and S₁₂ = 3."""
    model = layer(torch.eye(2), 0.75, r=1, lora_alpha=2)
    set_supports(model, [torch.tensor([[0.0, 1.0], [0.0, 0.0]])])
    (adapted,) = sparse_layers(model)
    with torch.no_grad():
        adapted.supertuning_lora_A["default"].weight.copy_(torch.tensor([[1.0, 2.0]]))
        adapted.supertuning_lora_B["default"].weight.copy_(torch.tensor([[0.5], [-0.5]]))
        sparse_values(model)[0].fill_(3.0)
        weight = adapted.get_base_layer().weight + adapted.get_delta_weight("default")
        assert torch.equal(weight, torch.tensor([[2.0, 5.0], [-1.0, -1.0]]))
        assert torch.equal(model(torch.ones(1, 2)), torch.tensor([[7.0, -2.0]]))


@pytest.mark.parametrize(("mask_score", "chosen"), [("mean", [1, 5]), ("mean_squared", [0, 1])])
def test_hand_numbers_of_the_mask(mask_score, chosen):
    first = torch.tensor([[1, 0.6, 0.1], [0, -0.2, 0.3]])
    second = torch.tensor([[-1, 0.6, 0.2], [0.1, -0.4, 0.3]])
    scores = [torch.zeros(2, 3)]
    for gradient in (first, second):
        accumulate(scores, [gradient], mask_score)
    assert support(scores[0], 2).tolist() == chosen


def test_a_large_negative_gradient_is_large():
    assert support(torch.tensor([[0.1, -5.0], [2.0, 0.0]]), 2).tolist() == [1, 2]


def test_of_every_entry_it_is_full_tuning():
    """One SGD step on the values equals one on the weight, exactly."""
    torch.manual_seed(0)
    weight, x, target = torch.randn(3, 4), torch.randn(5, 4), torch.randn(5, 3)
    model = layer(weight, 0.0)
    set_supports(model, [torch.rand(3, 4) + 1])
    dense = weight.clone().requires_grad_()
    for out, parameters in ((model(x), sparse_values(model)), (x @ dense.T, [dense])):
        nn.functional.mse_loss(out, target).backward()
        torch.optim.SGD(parameters, lr=0.1).step()
    (adapted,) = sparse_layers(model)
    tuned = adapted.get_base_layer().weight + adapted.get_delta_weight("default")
    torch.testing.assert_close(tuned, dense, atol=1e-7, rtol=1e-6)


def test_gradcheck_in_float64():
    torch.manual_seed(0)
    model = layer(torch.randn(3, 4, dtype=torch.float64), 0.5, r=2, lora_alpha=2)
    set_supports(model, [torch.rand(3, 4)])
    (adapted,) = sparse_layers(model)
    for half in (adapted.supertuning_lora_A, adapted.supertuning_lora_B):
        half["default"].double()
    values = nn.Parameter(torch.randn(6, dtype=torch.float64))
    x = torch.randn(2, 4, dtype=torch.float64, requires_grad=True)

    def run(values, x):
        return torch.func.functional_call(
            model, {"base_model.model.0.supertuning_values.default": values}, (x,)
        )

    assert torch.autograd.gradcheck(run, (values, x))


def test_the_gradient_of_the_whole_weight_is_that_of_outputs_times_inputs():
    torch.manual_seed(0)
    model = layer(torch.randn(3, 4), 0.5, r=2)
    (weight,) = base_weights(model)
    weight.requires_grad_(True)
    x, slope = torch.randn(5, 4), torch.randn(5, 3)
    (gradient,) = torch.autograd.grad((model(x) * slope).sum(), [weight])
    torch.testing.assert_close(gradient, slope.T @ x)
