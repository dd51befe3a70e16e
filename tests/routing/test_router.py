"""The router's contract: what it refuses, and gradients under checkpointing, compilation, DDP, bf16."""

import copy
import textwrap
from pathlib import Path

import peft
import pytest
import torch
from cases import Case, is_head

from clear_peft.errors import InputError
from clear_peft.routing import Router, detach
from processes import run_ranks
from tiny_models import tiny

pytestmark = pytest.mark.filterwarnings("ignore")


def lora(architecture="bert", **options):
    model, batch = tiny(architecture)
    targets = options.pop("target_modules", "all-linear")
    config = peft.LoraConfig(task_type="SEQ_CLS", target_modules=targets, **options)
    return peft.get_peft_model(model, config), batch


def gradients(model):
    return {n: p.grad.clone() for n, p in model.named_parameters() if p.grad is not None}


def gates_for(router, size=4, seed=3):
    return torch.rand(size, router.num_blocks, generator=torch.Generator().manual_seed(seed)) < 0.5


LILY = {"task_type": "SEQ_CLS", "target_modules": ["query"], "r": 4, "num_B": 2}


@pytest.mark.parametrize(
    ("config", "words"),
    [
        *[(getattr(peft, name)(**LILY), "LILY averages") for name in ("LilyConfig",) if hasattr(peft, name)],
        (peft.LoraConfig(task_type="SEQ_CLS", init_lora_weights="pissa"), "rewrites the base weights"),
        (peft.LoraConfig(task_type="SEQ_CLS", init_lora_weights="olora"), "rewrites the base weights"),
        (peft.LoraConfig(task_type="SEQ_CLS", bias="all"), "trained in place"),
        (peft.PromptTuningConfig(task_type="SEQ_CLS", num_virtual_tokens=2), "before the first block"),
    ],
)
def test_what_cannot_be_gated_is_refused_with_advice(config, words):
    model = peft.get_peft_model(tiny("bert")[0], config)
    with pytest.raises(InputError, match=words):
        Router(model)


def test_refuses_models_without_peft_and_prefix_without_masks():
    with pytest.raises(InputError, match="no PEFT module"):
        Router(tiny("bert")[0])


def test_refuses_merged_second_router_bad_gates_and_use_after_detach():
    model, _ = lora()
    router = Router(model)
    with pytest.raises(InputError, match="has a router already"):
        Router(model)
    with (
        pytest.raises(InputError, match="bool tensor of shape"),
        router.hold(torch.ones(4, 99, dtype=torch.bool)),
    ):
        pass
    with pytest.raises(InputError, match="one entry per example"):
        router.draw(torch.ones(4), example_ids=torch.arange(3))
    model.merge_adapter()
    with pytest.raises(InputError, match="merged"), router.route(torch.ones(4)):
        pass
    model.unmerge_adapter()
    with (
        router.route(torch.ones(4)),
        pytest.raises(InputError, match="routed already"),
        router.route(torch.ones(4)),
    ):
        pass
    detach(model)
    with pytest.raises(InputError, match="detached"), router.route(torch.ones(4)):
        pass


def test_refuses_a_patched_forward():
    model, _ = lora(target_modules=["query"])
    layer = next(m for m in model.modules() if isinstance(m, peft.tuners.lora.LoraLayer))
    layer.forward = layer.forward
    with pytest.raises(InputError, match="patched"):
        Router(model)


def test_packed_batches_and_unknown_leading_dimensions_are_refused():
    model, batch = lora("opt")
    router = Router(model)
    with pytest.raises(RuntimeError, match="sequence_length"), router.route(torch.ones(4)):
        model(**batch)
    packed = {k: v.reshape(1, -1) for k, v in batch.items()}
    with pytest.raises(RuntimeError, match="packing"), router.route(torch.ones(4)):
        model(**packed)


def test_routing_uses_ceiling_probability_seed_and_step():
    model, _ = lora(target_modules=["query"])
    router = Router(model, max_gate_prob=0.5, seed=1)
    p, ids = torch.full((4000,), 0.6), torch.arange(4000)
    gates = router.draw(p, example_ids=ids, step=3)
    assert abs(gates.float().mean() - 0.3) < 0.02
    assert torch.equal(gates, router.draw(p, example_ids=ids, step=3))
    assert not torch.equal(gates, router.draw(p, example_ids=ids, step=4))
    first = [g.clone() for g in (router.draw(p),)]
    with router.route(p):
        pass
    assert not torch.equal(first[0], router.draw(p)), "every batch gets gates of its own"


@pytest.mark.parametrize("architecture", ["bert", "llama", "deberta-v2"])
@pytest.mark.parametrize("reentrant", [False, True])
def test_gradient_checkpointing_changes_nothing(architecture, reentrant):
    torch.manual_seed(0)
    plain, batch = lora(architecture, lora_dropout=0.1)
    with torch.no_grad():
        for name, parameter in plain.named_parameters():
            if parameter.requires_grad and not is_head(name):
                parameter.normal_(std=0.05)
    checkpointed = copy.deepcopy(plain)
    checkpointed.enable_input_require_grads()
    checkpointed.gradient_checkpointing_enable({"use_reentrant": reentrant})
    results = []
    for model in (plain, checkpointed):
        router = Router(model.train())
        torch.manual_seed(1)
        with router.hold(gates_for(router)):
            model(**batch).logits.square().sum().backward()
        results.append(gradients(model))
    assert results[0].keys() == results[1].keys()
    for name, gradient in results[0].items():
        assert torch.equal(gradient, results[1][name]), name


@pytest.mark.parametrize("reentrant", [False, True])
def test_backward_after_the_gates_are_gone_is_refused(reentrant):
    model, batch = lora()
    model.enable_input_require_grads()
    model.gradient_checkpointing_enable({"use_reentrant": reentrant})
    router = Router(model.train())
    with router.hold(gates_for(router)):
        loss = model(**batch).logits.sum()
    with pytest.raises(RuntimeError, match="call backward"):
        loss.backward()
    with router.hold(gates_for(router)):
        loss = model(**batch).logits.sum()
    with (
        router.hold(gates_for(router, seed=9)),
        pytest.raises(RuntimeError, match="call backward"),
    ):
        loss.backward()
    model(**batch).logits.sum().backward()  # an unrouted pass is nobody's fault


@pytest.mark.compiled
@pytest.mark.slow
def test_compiled_after_a_plain_model_of_the_same_class():
    """Forward hooks would be ignored silently here: closed gates must still close."""
    plain, batch = lora("bert")
    with torch.no_grad():
        for name, parameter in plain.named_parameters():
            if parameter.requires_grad and not is_head(name):
                parameter.normal_(std=0.05)
    gated, eager = copy.deepcopy(plain), copy.deepcopy(plain)
    frozen = tiny("bert")[0](**batch).logits
    torch.compile(plain)(**batch)
    router, eager_router = Router(gated), Router(eager)
    compiled = torch.compile(gated)
    with router.hold(torch.zeros(4, router.num_blocks, dtype=torch.bool)):
        torch.testing.assert_close(compiled(**batch).logits, frozen, atol=1e-5, rtol=1e-4)
    for seed in range(3):
        gates = gates_for(router, seed=seed)
        for model, held in ((compiled, router), (eager, eager_router)):
            model.zero_grad()
            with held.hold(gates):
                model(**batch).logits.square().sum().backward()
        for name, gradient in gradients(eager).items():
            torch.testing.assert_close(gradients(gated)[name], gradient, atol=1e-4, rtol=1e-3, msg=name)
    torch._dynamo.reset()


@pytest.mark.parametrize(
    "name", ["lora-bert", "dora-llama", "adalora-bert", "prefix-bert", "adapter-bert", "lora-deberta-v2"]
)
@pytest.mark.parametrize("mode", ["pure", "autocast", "base"])
def test_bf16_is_exact(name, mode):
    case = Case(name)
    models = (case.model, case.plain, case.pristine)
    for model in models:
        if mode == "pure":
            model.bfloat16()
        elif mode == "base":
            for parameter in model.parameters():
                if not parameter.requires_grad or model is case.pristine:
                    parameter.data = parameter.data.bfloat16()
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16, enabled=mode != "pure"):
        plain = case.logits(case.plain)
        router = Router(case.model)
        shape = (case.size, router.num_blocks)
        with router.hold(torch.ones(shape, dtype=torch.bool)):
            assert torch.equal(case.logits(case.model), plain)
        with router.hold(torch.zeros(shape, dtype=torch.bool)):
            closed = case.logits(case.model)
        assert not torch.equal(closed, plain)
        assert torch.equal(closed, case.frozen_logits())


DDP = """
import os, sys, torch, torch.distributed as dist
sys.path[:0] = {path!r}
from test_router import lora, gates_for
from clear_peft.routing import Router
dist.init_process_group("gloo")
rank = dist.get_rank()
torch.manual_seed(0)
model, batch = lora()
with torch.no_grad():
    for p in model.parameters():
        if p.requires_grad:
            p.copy_(torch.linspace(-0.05, 0.05, p.numel()).reshape(p.shape))
router = Router(model)
ids, p = torch.tensor([5, 2, 9, 4]), torch.full((4,), 0.5)
wrapped = torch.nn.parallel.DistributedDataParallel(model)
rows = slice(2 * rank, 2 * rank + 2)
with router.route(p[rows], example_ids=ids[rows], step=1):
    (wrapped(**{{k: v[rows] for k, v in batch.items()}}).logits.square().sum() * 2).backward()
shared = {{n: q.grad.clone() for n, q in model.named_parameters() if q.grad is not None}}
model.zero_grad()
with router.route(p, example_ids=ids, step=1):
    model(**batch).logits.square().sum().backward()
for n, q in model.named_parameters():
    if q.grad is not None:
        assert torch.allclose(shared[n], q.grad, atol=1e-5, rtol=1e-4), n
        assert not q.grad.isnan().any()
print("equal", len(shared), flush=True)
dist.barrier()
os._exit(0)  # see clear_peft.pipeline.distributed.shutdown
"""


@pytest.mark.slow
def test_two_processes_give_the_gradients_of_one(tmp_path):
    script = tmp_path / "ddp.py"
    here = Path(__file__).parent
    script.write_text(textwrap.dedent(DDP.format(path=[str(here), str(here.parent)])))
    assert run_ranks(script).count("equal") == 2
