"""What is remembered of predictions, and how far that may be from them."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from clear_peft.trainer.teacher import Teacher

SIZES = st.integers(1, 5), st.integers(2, 90), st.floats(0.1, 30), st.integers(0, 2**31)
ROUNDING = 2e-2  # of float16 at logits of a hundred


def logits_of(rows, classes, scale, seed):
    return scale * torch.randn(rows, classes, generator=torch.Generator().manual_seed(seed))


@settings(max_examples=60, deadline=None)
@given(*SIZES)
def test_few_classes_are_kept_as_they_are(rows, classes, scale, seed):
    logits = logits_of(rows, classes, scale, seed)
    teacher = Teacher.of(logits, kept=45)
    assert teacher.classes is None
    assert torch.equal(teacher.logits(), logits.half().float())
    assert torch.equal(teacher.predicted, logits.half().argmax(dim=1))


@settings(max_examples=60, deadline=None)
@given(*SIZES, st.sampled_from([1.0, 1.0, 0.5, 0.25]))
def test_of_many_classes_the_error_stays_within_its_bounds(rows, classes, scale, seed, temperature):
    kept = (classes - 1) // 2
    if kept == 0:
        return
    exact = logits_of(rows, classes, scale, seed).half().float()
    teacher = Teacher.of(exact, kept)
    true, ours = (torch.softmax(logits / temperature, dim=1) for logits in (exact, teacher.logits()))
    largest, places = exact.topk(kept, dim=1)
    dropped = 1 - true.gather(1, places).sum(dim=1)
    assert (((true - ours).abs().sum(dim=1) / 2) <= dropped + ROUNDING).all()
    assert torch.equal(teacher.logits().gather(1, places), largest)
    if temperature == 1:
        assert ((true - ours).abs() <= 1 / (kept + 1) + ROUNDING).all()
        torch.testing.assert_close(true.gather(1, places), ours.gather(1, places), atol=ROUNDING, rtol=0)
    assert torch.equal(teacher.predicted, places[:, 0])
    torch.testing.assert_close(teacher.confidence, teacher.probabilities().amax(dim=1))


@settings(max_examples=30, deadline=None)
@given(*SIZES)
def test_remembering_twice_is_remembering_once(rows, classes, scale, seed):
    once = Teacher.of(logits_of(rows, classes, scale, seed), kept=8)
    twice = Teacher.of(once.logits(), kept=8)
    torch.testing.assert_close(once.logits(), twice.logits(), atol=0.1, rtol=2e-3)


@pytest.mark.parametrize("classes", [5, 300])
def test_examples_can_be_remembered_one_by_one(classes):
    logits = torch.randn(6, classes)
    teacher = Teacher.unknown(6, classes, torch.device("cpu"))
    assert torch.equal(teacher.probabilities(), torch.full((6, classes), 1 / classes))
    for ids in ([3, 0], [5], [1, 2, 4]):
        teacher.put(torch.tensor(ids), logits[ids])
    assert torch.equal(teacher.logits(), Teacher.of(logits).logits())
    assert torch.equal(teacher.logits(torch.tensor([4, 1])), teacher.logits()[[4, 1]])


def test_a_thousand_classes_take_130_bytes_an_example():
    teacher = Teacher.of(torch.randn(3, 1000))
    assert sum(t[0].nbytes for t in teacher.tensors().values()) == 130


def test_logits_beyond_half_precision_stay_finite():
    assert Teacher.of(torch.tensor([[1e6, -1e6, 0.0]])).values.isfinite().all()
