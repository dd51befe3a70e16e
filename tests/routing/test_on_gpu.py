"""Routed on a GPU, MiniLM gives what it gives on the CPU."""

import pytest
import torch
from torch.nn.functional import cross_entropy
from transformers import AutoModelForSequenceClassification

from clear_peft.pipeline.packages import minilm
from clear_peft.routing import Router
from clear_peft.tuners import build

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU"),
    pytest.mark.filterwarnings("ignore"),
]

DEVICE = "cuda"
# each is gated in its own way, prefixes in another one than on a CPU
PEFT = ("lora", "adapter", "prefix", "bitfit")


def results(model, ids, labels, gates):
    """Logits and the gradients of all tuned parameters in one vector, on the CPU."""
    model.zero_grad()
    router = Router(model)
    try:
        with router.hold(gates):
            logits = model(input_ids=ids, attention_mask=torch.ones_like(ids)).logits
            cross_entropy(logits, labels).backward()
    finally:
        router.detach()
    gradients = [p.grad.flatten() for p in model.parameters() if p.grad is not None]
    return logits.detach().cpu(), torch.cat(gradients).cpu()


def off_by(found, expected):
    return float((found - expected).norm() / expected.norm())


@pytest.mark.parametrize("attention", ["sdpa", "eager"])
@pytest.mark.parametrize("peft", PEFT)
def test_logits_and_gradients_are_those_of_the_cpu(peft, attention):
    torch.manual_seed(0)
    model = AutoModelForSequenceClassification.from_pretrained(
        minilm(), num_labels=5, attn_implementation=attention, dtype=torch.float32
    )
    model = build(model, peft).eval()
    for parameter in model.parameters():
        if parameter.requires_grad:
            parameter.data += 0.05 * torch.randn_like(parameter)
    ids, labels = torch.randint(1000, 20000, (12, 17)), torch.randint(0, 5, (12,))
    router = Router(model)
    some = torch.rand(12, router.num_blocks) < 0.5
    router.detach()
    batches = [(ids, labels, gates) for gates in (some, some | True, some & False)]
    expected = [results(model, *batch) for batch in batches]
    model.to(DEVICE)
    for batch, (logits, gradients) in zip(batches, expected, strict=True):
        found = results(model, *(part.to(DEVICE) for part in batch))
        assert off_by(found[0], logits) < 1e-5
        assert off_by(found[1], gradients) < 1e-4
