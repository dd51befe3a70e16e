"""Per-example losses against torch.nn.functional and hand computation."""

import math

import pytest
import torch
from torch.nn import functional

from clear_peft.errors import InputError
from clear_peft.losses import (
    BinaryCrossEntropy,
    binary_cross_entropy,
    consistency,
    cross_entropy,
    soft_cross_entropy,
)

DTYPES = [torch.float32, torch.float16, torch.bfloat16]


def draw(batch, classes, seed, dtype=torch.float32):
    return (4 * torch.randn(batch, classes, generator=torch.Generator().manual_seed(seed))).to(dtype)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(("batch", "classes"), [(0, 3), (1, 2), (9, 77)])
def test_losses_equal_torch_in_float32(batch, classes, dtype):
    logits, teacher = draw(batch, classes, 0, dtype), draw(batch, classes, 1, dtype)
    labels = torch.arange(batch) % classes
    target = torch.softmax(teacher.float() / 0.5, dim=1)
    results = {
        "cross_entropy": cross_entropy(logits, labels),
        "soft_cross_entropy": soft_cross_entropy(logits, target),
        "consistency": consistency(logits, teacher, 0.5),
    }
    references = {
        "cross_entropy": functional.cross_entropy(logits.float(), labels, reduction="none"),
        "soft_cross_entropy": functional.cross_entropy(logits.float(), target, reduction="none"),
        "consistency": functional.cross_entropy(logits.float() / 0.5, target, reduction="none"),
    }
    for name, result in results.items():
        assert result.dtype == torch.float32
        torch.testing.assert_close(result, references[name], msg=name)


@pytest.mark.parametrize("dtype", DTYPES)
def test_binary_cross_entropy_is_that_of_torch(dtype):
    logits, targets = draw(9, 4, 0, dtype), torch.sigmoid(draw(9, 4, 1))
    found = binary_cross_entropy(logits, targets)
    assert found.dtype == torch.float32
    expected = functional.binary_cross_entropy_with_logits(logits.float(), targets)
    torch.testing.assert_close(found.mean(), expected)
    labels = (targets > 0.5).long()
    loss = BinaryCrossEntropy(20, 4)
    torch.testing.assert_close(
        loss(logits, labels, torch.arange(9), epoch=0.0), binary_cross_entropy(logits, labels)
    )
    with pytest.raises(InputError, match=r"give \(B, 4\), \(B, 4\) and \(B,\)"):
        loss(logits, labels[:, 0], torch.arange(9), epoch=0.0)


def test_values_by_hand():
    logits = torch.tensor([[math.log(3.0), 0.0]])
    assert cross_entropy(logits, torch.tensor([0])).item() == pytest.approx(-math.log(3 / 4))
    half = soft_cross_entropy(logits, torch.tensor([[0.5, 0.5]])).item()
    assert half == pytest.approx(-0.5 * math.log(3 / 4) - 0.5 * math.log(1 / 4))
    # T = 0.5 squares the odds: teacher and student are both (9/10, 1/10).
    assert consistency(logits, logits, 0.5).item() == pytest.approx(
        -0.9 * math.log(0.9) - 0.1 * math.log(0.1)
    )


def test_hard_labels_are_one_hot_targets():
    logits, labels = draw(5, 4, 2), torch.tensor([0, 1, 2, 3, 0])
    one_hot = functional.one_hot(labels, 4)
    torch.testing.assert_close(cross_entropy(logits, labels), soft_cross_entropy(logits, one_hot))


@pytest.mark.parametrize("temperature", [0.5, 1.0, 3.0])
def test_consistency_has_no_gradient_at_the_teacher_nor_into_it(temperature):
    student = draw(6, 5, 3).requires_grad_()
    teacher = student.detach().clone().requires_grad_()
    consistency(student, teacher, temperature).sum().backward()
    torch.testing.assert_close(student.grad, torch.zeros_like(student), atol=1e-6, rtol=0)
    assert teacher.grad is None


def test_consistency_gradient_is_student_minus_teacher_over_temperature():
    student, teacher = draw(6, 5, 3).requires_grad_(), draw(6, 5, 4)
    consistency(student, teacher, 2.0).sum().backward()
    expected = (torch.softmax(student.detach() / 2, 1) - torch.softmax(teacher / 2, 1)) / 2
    torch.testing.assert_close(student.grad, expected)


def test_gradients_come_back_in_the_dtype_of_the_logits():
    logits = draw(3, 4, 5, torch.bfloat16).requires_grad_()
    cross_entropy(logits, torch.tensor([0, 1, 2])).sum().backward()
    assert logits.grad.dtype == torch.bfloat16


def test_extreme_logits_stay_finite():
    logits = torch.tensor([[1e4, -1e4]])
    assert cross_entropy(logits, torch.tensor([1])).item() == pytest.approx(2e4)
    assert consistency(logits, logits, 0.5).item() == 0


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda f: cross_entropy(f, torch.zeros(2, 1, dtype=torch.long)), r"labels \(2, 1\)"),
        (lambda f: cross_entropy(f[0], torch.tensor([0, 0, 0])), r"logits have shape \(3,\)"),
        (lambda f: soft_cross_entropy(f, f[0]), r"target_probabilities \(3,\)"),
        (lambda f: consistency(f, f[:1], 1.0), r"teacher_logits \(1, 3\)"),
        (lambda f: consistency(f, f, 0.0), "temperature is 0.0"),
        (lambda f: consistency(f, f, float("nan")), "temperature is nan"),
    ],
)
def test_wrong_input_is_refused_with_a_remedy(call, message):
    with pytest.raises(InputError, match=message):
        call(torch.zeros(2, 3))
