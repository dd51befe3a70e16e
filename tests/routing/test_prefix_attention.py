"""An attention with a prefix: each way of gating it does what running it twice does."""

import contextlib

import pytest
import torch
from cases import Case
from torch.nn.functional import scaled_dot_product_attention

from clear_peft.routing import Router
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
    monkeypatch.setattr(PrefixGate, "_by_example", PrefixGate._both)
    both, both_gradients = routed(case, gates)
    # as if the attention were none of torch's
    monkeypatch.setattr(
        PrefixGate,
        "__torch_function__",
        lambda self, func, types, args=(), kwargs=None: func(*args, **kwargs or {}),
    )
    twice, twice_gradients = routed(case, gates)
    torch.testing.assert_close(by_example, twice, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(both, twice, atol=1e-5, rtol=1e-5)
    for a, b, expected in zip(by_example_gradients, both_gradients, twice_gradients, strict=True):
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


def test_on_an_accelerator_what_follows_draws_as_if_the_attention_had_run_once():
    way = PrefixGate(torch.nn.Linear(2, 2), torch.tensor([True, False]), 1)
    way._by_example = way._both
    query, key = torch.randn(2, 1, 3, 4), torch.randn(2, 1, 4, 4)

    def attend(gated):
        torch.manual_seed(0)
        with gated:
            out = scaled_dot_product_attention(query, key, key, attn_mask=None, dropout_p=0.5)
        return out, torch.rand(1)

    plain, plain_next = attend(contextlib.nullcontext())
    gated, gated_next = attend(way)
    assert way.passed
    assert torch.equal(gated[0], plain[0])
    assert not torch.equal(gated[1], plain[1])
    assert torch.equal(gated_next, plain_next)
