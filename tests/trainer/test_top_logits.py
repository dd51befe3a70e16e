"""What is predicted, as logits in little room, and how far they may be from it."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from clear_peft.label_quality import TopProbs
from clear_peft.label_quality.quality import TOP_CLASSES
from clear_peft.trainer.top_logits import TopLogits

CPU = torch.device("cpu")
MANY = 2 * TOP_CLASSES + 1
SCALES, SEEDS = st.floats(0.1, 30), st.integers(0, 2**31)
ROUNDING = 2e-2  # of float16 at logits of a few tens


def probs_of(rows, classes, scale, seed):
    logits = scale * torch.randn(rows, classes, generator=torch.Generator().manual_seed(seed))
    return torch.softmax(logits.double(), dim=1).numpy()


def kept(pred_probs):
    top = TopProbs.of(pred_probs)
    return top, TopLogits(top, CPU)


@settings(max_examples=60, deadline=None)
@given(st.integers(1, 5), st.integers(2, MANY - 1), SCALES, SEEDS)
def test_few_classes_are_all_kept(rows, classes, scale, seed):
    """Probabilities are rounded to float32, and their logarithms, at least log 1e-12, to float16."""
    probs = probs_of(rows, classes, scale, seed)
    _, logits = kept(probs)
    ids = torch.arange(rows)
    exact = torch.from_numpy(probs.astype(np.float32)).clamp(min=1e-12).log()
    assert torch.equal(logits.logits(ids), exact.half().float())
    assert logits.probs(ids).dtype == torch.float32
    np.testing.assert_allclose(logits.probs(ids), probs, atol=ROUNDING)
    np.testing.assert_allclose(logits.probs(ids).sum(dim=1), 1, atol=1e-5)


@settings(max_examples=60, deadline=None)
@given(st.integers(1, 5), st.integers(MANY, 200), SCALES, SEEDS, st.sampled_from([1.0, 1.0, 0.5, 0.25]))
def test_of_many_classes_the_error_stays_within_its_bounds(rows, classes, scale, seed, temperature):
    probs = probs_of(rows, classes, scale, seed)
    exact = torch.from_numpy(probs).clamp(min=1e-12).log()
    top, logits = kept(probs)
    ids = torch.arange(rows)
    true, ours = (torch.softmax(values / temperature, dim=1) for values in (exact, logits.logits(ids)))
    places = torch.from_numpy(top.classes).long()
    dropped = 1 - true.gather(1, places).sum(dim=1)
    assert (((true - ours).abs().sum(dim=1) / 2) <= dropped + ROUNDING / temperature).all()
    largest = exact.gather(1, places).float().half().float()
    torch.testing.assert_close(logits.logits(ids).gather(1, places), largest, atol=1e-3, rtol=1e-3)
    if temperature == 1:
        assert ((true - ours).abs() <= 1 / (TOP_CLASSES + 1) + ROUNDING).all()
        torch.testing.assert_close(
            true.gather(1, places).float(), ours.gather(1, places), atol=ROUNDING, rtol=0
        )
        np.testing.assert_allclose(logits.probs(ids), ours, atol=1e-6)
    # the rest is spread evenly
    others = torch.ones(rows, classes, dtype=torch.bool).scatter_(1, places, False)
    spread = logits.logits(ids)[others].view(rows, -1)
    assert torch.equal(spread, spread[:, :1].expand_as(spread))


@settings(max_examples=30, deadline=None)
@given(st.integers(1, 5), st.sampled_from([5, MANY + 20]), SCALES, SEEDS)
def test_remembering_twice_is_remembering_once(rows, classes, scale, seed):
    _, once = kept(probs_of(rows, classes, scale, seed))
    ids = torch.arange(rows)
    _, twice = kept(once.probs(ids).numpy())
    torch.testing.assert_close(once.probs(ids), twice.probs(ids), atol=ROUNDING, rtol=0)


@pytest.mark.parametrize("classes", [5, 300])
def test_rows_are_read_in_the_order_in_which_they_are_asked_for(classes):
    _, logits = kept(probs_of(6, classes, 1.0, 0))
    every = logits.logits(torch.arange(6))
    assert every.shape == (6, classes)
    assert torch.equal(logits.logits(torch.tensor([4, 1, 4])), every[[4, 1, 4]])
    assert logits.logits(torch.tensor([], dtype=torch.int64)).shape == (0, classes)


@pytest.mark.parametrize(("classes", "size"), [(5, 10), (64, 128), (1000, 130), (40_000, 194)])
def test_how_many_bytes_a_row_takes(classes, size):
    _, logits = kept(probs_of(3, classes, 1.0, 0))
    held = [value for value in vars(logits).values() if isinstance(value, torch.Tensor)]
    assert sum(tensor[0].nbytes for tensor in held) == size


def test_what_is_certain_stays_finite():
    certain = np.eye(3)[[0, 2]]
    _, logits = kept(certain)
    assert logits.logits(torch.arange(2)).isfinite().all()
    np.testing.assert_allclose(logits.probs(torch.arange(2)), certain, atol=1e-6)
    _, many = kept(np.eye(100)[[7]])
    assert many.logits(torch.tensor([0])).isfinite().all()
    np.testing.assert_allclose(many.probs(torch.tensor([0])), np.eye(100)[[7]], atol=1e-6)
