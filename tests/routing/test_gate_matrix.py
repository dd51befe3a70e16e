"""The invariants of routing on every cell of the matrix of tuners and architectures."""

import copy
import warnings

import peft
import pytest
import torch
from cases import CASES, Case, is_head

from clear_peft.routing import Router
from clear_peft.routing.gate_points import OUTSIDE
from clear_peft.tuners import load_adapter
from tiny_models import tiny

pytestmark = pytest.mark.filterwarnings("ignore")  # peft and transformers on tiny models


@pytest.fixture(params=CASES)
def case(request):
    return Case(request.param)


def some_gates(case, router):
    generator = torch.Generator().manual_seed(7)
    gates = torch.rand(case.size, router.num_blocks, generator=generator) < 0.5
    gates[0], gates[1] = True, False
    return gates


def adapter_gradients(case, router, gates, rows=slice(None)):
    case.model.zero_grad()
    with router.hold(gates[rows], sequence_length=case.sequence_length):
        case.logits(case.model, rows).square().sum().backward()
    return {n: p.grad.clone() for n, p in case.model.named_parameters() if p.requires_grad}


def test_idle_open_and_closed_gates_are_exact(case):
    with torch.no_grad():
        plain = case.logits(case.plain)
        frozen = case.frozen_logits()
        assert not torch.equal(plain, frozen), "the adapter must do something, or nothing is tested"
        router = Router(case.model)
        shape = (case.size, router.num_blocks)
        assert torch.equal(case.logits(case.model), plain)
        with router.hold(torch.ones(shape, dtype=torch.bool), sequence_length=case.sequence_length):
            assert torch.equal(case.logits(case.model), plain)
        with router.hold(torch.zeros(shape, dtype=torch.bool), sequence_length=case.sequence_length):
            assert torch.equal(case.logits(case.model), frozen)
        assert torch.equal(case.logits(case.model), plain)
        router.detach()
        assert torch.equal(case.logits(case.model), plain)
        assert type(case.model) is type(case.plain)


def test_mixed_gates_equal_one_example_at_a_time(case):
    router = Router(case.model)
    gates = some_gates(case, router)
    with torch.no_grad():
        with router.hold(gates, sequence_length=case.sequence_length):
            mixed = case.logits(case.model)
        for i in range(case.size):
            with router.hold(gates[i : i + 1], sequence_length=case.sequence_length):
                alone = case.logits(case.model, slice(i, i + 1))
            torch.testing.assert_close(mixed[i : i + 1], alone, atol=2e-5, rtol=1e-4)
        # one example's gates never touch another's output, bit for bit
        flipped = gates.clone()
        flipped[2] = ~flipped[2]
        with router.hold(flipped, sequence_length=case.sequence_length):
            other = case.logits(case.model)
    unchanged = [0, 1, 3]
    assert torch.equal(other[unchanged], mixed[unchanged])
    assert not torch.equal(other[2], mixed[2])


def test_gate_of_a_block_is_that_block_without_its_tuners(case):
    if case.prefix_length:
        pytest.skip("a prefix has no tuner layers to switch off")
    router = Router(case.model)
    gates = torch.ones(1, router.num_blocks, dtype=torch.bool)
    closed = max(i for i, name in enumerate(router.blocks) if name != OUTSIDE)
    gates[0, closed] = False
    row = slice(0, 1)
    with torch.no_grad():
        with router.hold(gates, sequence_length=case.sequence_length):
            routed = case.logits(case.model, row)
        block = router.blocks[closed]
        for name, module in case.plain.named_modules():
            if hasattr(module, "_disable_adapters") and name.startswith(f"{block}."):
                module._disable_adapters = True
        assert torch.equal(routed, case.logits(case.plain, row))


def test_gradients_are_the_sum_over_examples(case):
    router = Router(case.model)
    gates = some_gates(case, router)
    together = adapter_gradients(case, router, gates)
    apart = [adapter_gradients(case, router, gates, slice(i, i + 1)) for i in range(case.size)]
    for name, gradient in together.items():
        expected = sum(a[name] for a in apart)
        assert (gradient - expected).norm() <= 1e-4 * (1 + expected.norm()), name
    assert any(g.abs().sum() > 0 for n, g in together.items() if not is_head(n))
    closed = adapter_gradients(case, router, torch.zeros_like(gates))
    for name, gradient in closed.items():
        if not is_head(name):
            assert not gradient.any(), f"{name} learns from an example whose gates are closed"


def test_saved_adapter_loads_without_the_router(case, tmp_path):
    Router(case.model)
    case.model.save_pretrained(tmp_path)
    fresh, _ = tiny(case.architecture)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        if type(case.plain).__module__.startswith("clear_peft."):  # what peft lacks
            loaded = load_adapter(fresh, tmp_path)
        else:
            loaded = peft.PeftModel.from_pretrained(fresh, tmp_path)
    with torch.no_grad():
        assert torch.equal(case.logits(loaded.eval()), case.logits(case.plain))


def test_deep_copy_has_gates_of_its_own(case):
    router = Router(case.model)
    twin = copy.deepcopy(case.model)
    with torch.no_grad():
        plain = case.logits(case.plain)
        with router.hold(
            torch.zeros(case.size, router.num_blocks, dtype=torch.bool), sequence_length=case.sequence_length
        ):
            assert torch.equal(case.logits(twin), plain)
