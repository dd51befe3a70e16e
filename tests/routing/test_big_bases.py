"""Bases in half precision and quantized ones: routing is exact there too, and what is trained is float32."""

import warnings
from importlib.util import find_spec

import peft
import pytest
import torch
from cases import CASES, Case, is_head

from clear_peft.errors import InputError
from clear_peft.routing import Router
from clear_peft.tuners import build, load_adapter
from clear_peft.tuners.catalogue import ON_QUANTIZED

pytestmark = pytest.mark.filterwarnings("ignore")  # peft and transformers on tiny models

# every PEFT type on two architectures, LoRA on all; BitFit would train weights in bf16, and is refused
BF16 = [
    pytest.param((name, torch.bfloat16, None), id=f"bf16-{name}")
    for name in CASES
    if name.startswith("lora-") or name.endswith(("-bert", "-llama"))
    if not name.startswith("bitfit-")
]
QUANTIZED = [
    pytest.param(
        (f"{tuner}-{architecture}", dtype, quantization),
        id=f"{quantization}-{tuner}-{architecture}",
        marks=pytest.mark.skipif(find_spec("bitsandbytes") is None, reason="needs bitsandbytes"),
    )
    for quantization, tuners in ON_QUANTIZED.items()
    for tuner in tuners
    for architecture, dtype in (("bert", torch.float32), ("llama", torch.bfloat16))
]


@pytest.fixture(params=[*BF16, *QUANTIZED])
def case(request):
    return Case(*request.param)


def adapter_gradients(case, router, gates):
    case.model.zero_grad()
    with router.hold(gates, sequence_length=case.sequence_length):
        case.logits(case.model).square().sum().backward()
    return [p.grad for n, p in case.model.named_parameters() if p.requires_grad and not is_head(n)]


def test_gates_are_exact(case):
    router = Router(case.model)
    closed = torch.zeros(case.size, router.num_blocks, dtype=torch.bool)
    mixed = torch.rand(closed.shape, generator=torch.Generator().manual_seed(7)) < 0.5
    other = mixed.clone()
    other[2] = ~other[2]

    def logits(gates):
        with router.hold(gates, sequence_length=case.sequence_length):
            return case.logits(case.model)

    with torch.no_grad():
        plain, frozen = case.logits(case.plain), case.frozen_logits()
        assert plain.dtype == torch.float32
        assert not torch.equal(plain, frozen)
        assert torch.equal(case.logits(case.model), plain)
        assert torch.equal(logits(~closed), plain)
        assert torch.equal(logits(closed), frozen)
        before, after = logits(mixed), logits(other)
    unchanged = [0, 1, 3]
    assert torch.equal(before[unchanged], after[unchanged])
    assert not torch.equal(before[2], after[2])


def test_closed_examples_give_no_gradient_and_open_ones_do(case):
    router = Router(case.model)
    closed = torch.zeros(case.size, router.num_blocks, dtype=torch.bool)
    assert not any(g is not None and g.any() for g in adapter_gradients(case, router, closed))
    assert any(g is not None and g.any() for g in adapter_gradients(case, router, ~closed))


def test_saved_it_is_the_same_on_the_same_base(case, tmp_path):
    case.model.save_pretrained(tmp_path)
    fresh, _ = case.fresh()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        if type(case.plain).__module__.startswith("clear_peft."):  # what peft lacks
            loaded = load_adapter(fresh, tmp_path)
        else:
            loaded = peft.PeftModel.from_pretrained(fresh, tmp_path)
    with torch.no_grad():
        assert torch.equal(case.logits(loaded.eval()), case.logits(case.plain))


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("method", ["lora", "adapter", "prefix", "apt", "adalora", "bitfit", "ln_tuning"])
def test_what_is_trained_is_float32_and_what_is_not_stays_so(method, dtype):
    options = {"total_step": 10} if method == "adalora" else {}
    wide, half = Case("lora-bert").fresh()[0], Case("lora-bert", dtype).fresh()[0]
    if method in ("bitfit", "ln_tuning"):  # weights of the base, or copies of them
        with pytest.raises(InputError, match="small steps are lost: load the model in float32"):
            build(half, method)
        return

    def trained(model):
        return {
            n: p.dtype for n, p in build(model, method, options=options).named_parameters() if p.requires_grad
        }

    found = trained(half)
    assert found == trained(wide)
    assert {*found.values()} == {torch.float32}


@pytest.mark.parametrize(("method", "quantization"), [("glora", "4bit"), ("oft", "8bit"), ("dora", "8bit")])
def test_methods_that_compute_with_the_weights_are_refused(method, quantization):
    pytest.importorskip("bitsandbytes")
    base, _ = Case("lora-bert", quantization=quantization).fresh()
    with pytest.raises(
        InputError, match=f"{method} does not go with {quantization} weights: choose from lora"
    ):
        build(base, method)


@pytest.mark.parametrize("mode", ["train", "eval"])
@pytest.mark.parametrize("quantization", ON_QUANTIZED)
def test_a_pass_without_gradients_changes_no_later_gradient(quantization, mode):
    """bitsandbytes' own 4-bit layers lose theirs then, on CPUs with AVX-512 BF16."""
    pytest.importorskip("bitsandbytes")
    case = Case("adapter-bert", quantization=quantization)
    case.model.train(mode == "train")
    router = Router(case.model)
    gates = torch.ones(case.size, router.num_blocks, dtype=torch.bool)
    torch.manual_seed(0)
    first = [g.clone() for g in adapter_gradients(case, router, gates)]
    with torch.no_grad():
        case.logits(case.model.eval())
    case.model.train(mode == "train")
    torch.manual_seed(0)
    again = adapter_gradients(case, router, gates)
    assert all(torch.equal(a, b) for a, b in zip(first, again, strict=True))
