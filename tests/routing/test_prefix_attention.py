"""An attention with a prefix: each way of gating it does what running it twice does."""

import pytest
import torch
from cases import Case

from clear_peft.routing import Router, gated
from clear_peft.routing.prefix_attention import PrefixGate

pytestmark = pytest.mark.filterwarnings("ignore")


def routed(case, gates):
    """Logits and gradients of the prefix (which are rounded differently in each way)."""
    case.model.zero_grad()
    router = Router(case.model)
    try:
        with router.hold(gates, sequence_length=case.sequence_length):
            logits = case.logits(case.model)
            logits.square().sum().backward()
    finally:
        router.detach()
    prefix = [p.grad for n, p in case.model.named_parameters() if "prompt_encoder" in n]
    return logits.detach(), prefix


def some_gates(case):
    router = Router(case.model)
    router.detach()
    return torch.rand(case.size, router.num_blocks, generator=torch.Generator().manual_seed(1)) < 0.5


@pytest.mark.parametrize("name", ["prefix-bert", "prefix-llama"])
def test_all_ways_are_the_same(name, monkeypatch):
    case = Case(name)
    gates = some_gates(case)
    by_example, by_example_gradients = routed(case, gates)
    # as on an accelerator
    monkeypatch.setattr(gated, "is_accelerated", lambda gates: True)
    masked, masked_gradients = routed(case, gates)
    # as if the attention were none of torch's
    monkeypatch.undo()
    monkeypatch.setattr(
        PrefixGate,
        "__torch_function__",
        lambda self, func, types, args=(), kwargs=None: func(*args, **kwargs or {}),
    )
    twice, twice_gradients = routed(case, gates)
    torch.testing.assert_close(by_example, twice, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(masked, twice, atol=1e-5, rtol=1e-5)
    for a, b, expected in zip(by_example_gradients, masked_gradients, twice_gradients, strict=True):
        assert expected.any()
        torch.testing.assert_close(a, expected, atol=1e-5, rtol=1e-4)
        torch.testing.assert_close(b, expected, atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("name", ["prefix-bert", "prefix-llama"])
def test_closed_gates_leave_a_gradient_of_zeros(name):
    """None, and DDP would wait for it for ever."""
    case = Case(name)
    _, gradients = routed(case, torch.zeros_like(some_gates(case)))
    assert gradients
    for gradient in gradients:
        assert gradient is not None
        assert not gradient.any()


@pytest.mark.parametrize(("attention", "runs"), [("sdpa", 1), ("eager", 2)])
def test_an_attention_of_torch_runs_once_and_others_twice(attention, runs):
    case = Case("prefix-bert")
    case.model.set_attn_implementation(attention)
    layer = next(m for n, m in case.model.named_modules() if n.endswith("attention.self"))
    calls = []
    layer.query.register_forward_hook(lambda *_: calls.append(1))
    routed(case, some_gates(case))
    assert len(calls) == runs


@pytest.mark.parametrize("attention", ["sdpa", "eager"])
@pytest.mark.parametrize("padded", [False, True])
@pytest.mark.parametrize("name", ["prefix-bert", "prefix-llama", "apt-bert"])
def test_on_an_accelerator_an_attention_runs_once(name, padded, attention, monkeypatch):
    monkeypatch.setattr(gated, "is_accelerated", lambda gates: True)
    monkeypatch.setattr(gated, "without_prefix", None)
    case = Case(name)
    case.batch["attention_mask"][0, 3:] = not padded
    case.model.set_attn_implementation(attention)
    case.plain.set_attn_implementation(attention)
    closed = torch.zeros_like(some_gates(case))
    torch.testing.assert_close(routed(case, closed)[0], case.frozen_logits(), atol=1e-5, rtol=1e-5)
    torch.manual_seed(0)
    plain = case.logits(case.plain.train())
    case.model.train()
    torch.manual_seed(0)
    opened, gradients = routed(case, ~closed)
    torch.testing.assert_close(opened, plain, atol=1e-5, rtol=1e-5)
    assert all(gradient.any() for gradient in gradients)
    assert not any(gradient.any() for gradient in routed(case, closed)[1])
