"""What is computed in another way on a CPU, against torch."""

import math
import sys
from contextlib import nullcontext

import numpy as np
import peft
import pytest
import torch
from torch.nn import functional

from clear_peft import cpu
from clear_peft.cpu import FasterCPU, attention, dropped, faster, in_training
from clear_peft.tuners import available_methods, build
from tiny_models import ARCHITECTURES, SMALL, tiny

pytestmark = pytest.mark.filterwarnings("ignore")


def tuned(architecture="bert", method="lora"):
    model, batch = tiny(architecture)
    torch.manual_seed(1)
    return build(model, method, options=SMALL.get(method)), batch


def step(model, batch):
    """Logits and gradients of a step in bf16."""
    model.zero_grad()
    with torch.autocast("cpu", torch.bfloat16):
        logits = model(**batch).logits
    functional.cross_entropy(logits.float(), torch.arange(len(logits)) % logits.shape[1]).backward()
    return {"logits": logits, **{name: p.grad for name, p in model.named_parameters() if p.grad is not None}}


def assert_same(found, expected):
    assert found.keys() == expected.keys()
    for name, tensor in expected.items():
        assert torch.equal(found[name], tensor), name


@pytest.mark.parametrize(
    ("architecture", "method"),
    [(architecture, "lora") for architecture in ARCHITECTURES if architecture != "vit"]
    + [("bert", method) for method in available_methods() if method != "lora"],
)
def test_frozen_weights_that_are_rounded_once_change_no_bit(monkeypatch, architecture, method):
    monkeypatch.setattr(cpu, "_LONGEST", 0)  # attention is torch's
    model, batch = tuned(architecture, method)
    model.eval()
    before = {name: p.clone() for name, p in model.named_parameters()}
    expected, quick = step(model, batch), FasterCPU()
    for _ in range(2):
        with quick:
            assert_same(step(model, batch), expected)
    assert all(p.dtype == torch.float32 for p in model.parameters())
    assert_same(dict(model.named_parameters()), before)


def test_a_weight_that_changes_or_is_trained_is_rounded_anew(monkeypatch):
    monkeypatch.setattr(cpu, "_LONGEST", 0)
    model, batch = tuned()
    model.eval()
    weight = next(m for m in model.modules() if isinstance(m, peft.tuners.lora.Linear)).base_layer.weight
    quick = FasterCPU()
    with quick:
        step(model, batch)
    with torch.no_grad():
        weight *= 2
    expected = step(model, batch)
    with quick:
        assert_same(step(model, batch), expected)
    weight.requires_grad_(True)
    expected = step(model, batch)
    with quick:
        found = step(model, batch)
    assert_same(found, expected)
    assert any(gradient is weight.grad for gradient in found.values())


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("p", [0.1, 0.5, 0.9])
def test_dropout_zeroes_its_share_and_scales_the_rest(dtype, p):
    torch.manual_seed(0)
    inputs = torch.randn(333, 301).to(dtype).requires_grad_()
    found = dropped(inputs, p)
    found.sum().backward()
    kept, size = inputs.grad != 0, inputs.numel()
    assert abs(kept.sum().item() - (1 - p) * size) < 5 * math.sqrt(p * (1 - p) * size)
    assert torch.equal(found == 0, ~kept)
    scale = functional.dropout(torch.ones(99, dtype=dtype), p).max().expand_as(inputs[kept])
    torch.testing.assert_close(inputs.grad[kept], scale, atol=0, rtol=2e-4)
    torch.testing.assert_close(found, inputs * inputs.grad, atol=0, rtol=0)
    # neighbours, and rows, are independent
    for shift in (1, 4, 301):
        both = (kept.flatten()[shift:] & kept.flatten()[:-shift]).double().mean()
        assert abs(both - (1 - p) ** 2) < 0.01


def test_dropout_is_decided_by_16_bits_of_a_generator_of_numpy():
    torch.manual_seed(4)
    found = dropped(torch.ones(3, 7), 0.25)
    torch.manual_seed(4)
    generator = np.random.Generator(np.random.SFC64(int(torch.randint(2**63 - 1, ()))))
    bits = generator.integers(0, 1 << 64, 6, np.uint64).view(np.uint16)[:21].reshape(3, 7)
    assert torch.equal(found != 0, torch.from_numpy(bits >= 1 << 14))


def test_dropout_is_a_function_of_the_state_of_torchs_generator():
    inputs = torch.ones(5, 7)
    state = torch.get_rng_state()
    first, second = dropped(inputs, 0.5), dropped(inputs, 0.5)
    torch.set_rng_state(state)
    assert torch.equal(dropped(inputs, 0.5), first)
    assert torch.equal(dropped(inputs, 0.5), second)
    assert not torch.equal(first, second)


@pytest.mark.parametrize("masked", [False, True])
@pytest.mark.parametrize(("dtype", "error"), [(torch.float32, 1e-5), (torch.bfloat16, 0.03)])
def test_attention_is_that_of_torch(dtype, error, masked):
    torch.manual_seed(0)
    parts = [torch.randn(3, 2, 6, 8) for _ in range(3)]
    mask = torch.ones(3, 1, 6, 6, dtype=torch.bool)
    mask[1, ..., 4:] = False
    mask = mask if masked else None

    def with_gradients(function, dtype):
        made = [part.detach().to(dtype, copy=True).requires_grad_() for part in parts]
        out = function(*made, attn_mask=mask)
        out.float().square().sum().backward()
        return [out, *(tensor.grad for tensor in made)]

    expected = with_gradients(functional.scaled_dot_product_attention, torch.float32)
    for found, right in zip(with_gradients(attention, dtype), expected, strict=True):
        assert found.dtype == dtype
        assert (found.float() - right).norm() < error * right.norm()


@pytest.mark.parametrize("keys", [1, 12, 31, 32, 33, 63, 64, 65])
@pytest.mark.parametrize(("dtype", "error"), [(torch.float32, 1e-6), (torch.bfloat16, 0.005)])
def test_softmax_of_rows_that_are_filled_up_is_softmax(dtype, error, keys):
    torch.manual_seed(0)
    scores = torch.randn(3, 2, 5, keys).to(dtype)
    scores[1, ..., 1:] = torch.finfo(dtype).min
    towards = torch.randn(scores.shape).to(dtype)

    def with_gradient(function, dtype):
        given = scores.detach().to(dtype, copy=True).requires_grad_()
        weights = function(given)
        weights.backward(towards.to(dtype))
        return weights.double(), given.grad.double()

    expected = with_gradient(lambda given: given.softmax(dim=-1), torch.float64)
    for found, right in zip(with_gradient(cpu._softmax, dtype), expected, strict=True):
        assert found.shape == right.shape
        torch.testing.assert_close(found, right, atol=error, rtol=error)


def test_attention_takes_its_arguments_in_torchs_order():
    torch.manual_seed(0)
    parts = [torch.randn(1, 2, 6, 8).bfloat16().requires_grad_() for _ in range(3)]
    with FasterCPU():
        by_name = functional.scaled_dot_product_attention(*parts, is_causal=False, scale=0.3)
        by_position = functional.scaled_dot_product_attention(*parts, None, 0.0, False, scale=0.3)
        without_scale = functional.scaled_dot_product_attention(*parts, None, 0.0, False)
    assert torch.equal(by_position, by_name)
    torch.testing.assert_close(
        without_scale, functional.scaled_dot_product_attention(*parts), atol=0.02, rtol=0.02
    )


def test_attention_without_gradients_is_torchs_but_for_few_tokens():
    for tokens, ours in ((24, True), (25, False)):
        parts = [torch.randn(1, 2, tokens, 8).bfloat16() for _ in range(3)]
        with FasterCPU(), torch.no_grad():
            found = functional.scaled_dot_product_attention(*parts)
            expected = attention(*parts) if ours else functional.scaled_dot_product_attention(*parts)
        assert torch.equal(found, expected)


@pytest.mark.parametrize("scale", [1, 8])
def test_attention_without_gradients_is_about_as_exact_as_torchs(scale):
    torch.manual_seed(0)
    parts = [torch.randn(8, 4, 24, 32).bfloat16() for _ in range(3)]
    parts[0] = parts[0] * scale  # of large scores, bf16 keeps little
    exact = functional.scaled_dot_product_attention(*(part.double() for part in parts))
    with torch.no_grad():
        errors = [
            (function(*parts).double() - exact).abs().mean()
            for function in (attention, functional.scaled_dot_product_attention)
        ]
    assert errors[0] < 1.3 * errors[1]


def test_attention_where_no_key_is_seen_is_finite():
    parts = [torch.randn(1, 1, 2, 4).bfloat16() for _ in range(3)]
    found = attention(*parts, attn_mask=torch.zeros(1, 1, 2, 2, dtype=torch.bool))
    torch.testing.assert_close(
        found, parts[2].mean(dim=2, keepdim=True).expand_as(found), atol=0.02, rtol=0.02
    )


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_attention_drops_weights(dtype):
    query, key, value = (torch.randn(2, 2, 5, 4).to(dtype) for _ in range(3))
    torch.manual_seed(3)
    with FasterCPU():
        found = functional.scaled_dot_product_attention(query, key, value, dropout_p=0.5)
    torch.manual_seed(3)
    weights = ((query * 0.5) @ key.transpose(-1, -2)).softmax(dim=-1)
    torch.testing.assert_close(found, dropped(weights, 0.5) @ value)


@pytest.mark.parametrize(
    "options",
    [
        {"is_causal": True, "dropout_p": 0.5},
        {"attn_mask": torch.zeros(5, 5), "dropout_p": 0.5},
        {"enable_gqa": True},
        {},
    ],
)
def test_what_it_does_not_know_is_left_to_torch(options):
    parts = [torch.randn(2, 2, 5, 4) for _ in range(3)]
    torch.manual_seed(0)
    expected = functional.scaled_dot_product_attention(*parts, **options), functional.dropout(parts[0], 0.0)
    torch.manual_seed(0)
    with FasterCPU():
        found = functional.scaled_dot_product_attention(*parts, **options), functional.dropout(parts[0], 0.0)
    assert all(torch.equal(*pair) for pair in zip(found, expected, strict=True))


def test_a_checkpointed_model_is_left_to_torch():
    model, batch = tuned()
    model.train().gradient_checkpointing_enable({"use_reentrant": False})
    found = []
    for quick in (nullcontext(), FasterCPU()):
        torch.manual_seed(5)
        with in_training(quick, model):
            found.append(step(model, batch))
    assert_same(found[1], found[0])


def test_is_for_the_cpu_alone():
    assert isinstance(faster("cpu"), FasterCPU)
    assert not isinstance(faster("cuda"), FasterCPU)


@pytest.mark.skipif(sys.platform != "linux", reason="of glibc")
def test_memory_that_is_freed_is_kept():
    import resource

    def page_faults():
        before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
        blocks = [torch.ones(2 << 20) for _ in range(8)]  # 64 MiB: 16,384 pages
        del blocks
        return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before

    faster("cpu")
    page_faults()
    assert min(page_faults() for _ in range(3)) < 1000
