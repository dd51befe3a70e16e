"""Gates on weights of which each of two processes holds half: torch's fully_shard (FSDP2)."""

import json
import os
import textwrap
from pathlib import Path

import pytest
import torch
from cases import CASES, Case
from torch import nn

from clear_peft.routing import Router
from processes import run_ranks

pytestmark = pytest.mark.slow

# torch does not shard a parameter that several layers share
SHARED = ("vblora", "tinylora", "unilora")
CELLS = [name for name in CASES if name.endswith("-bert") and not name.startswith(SHARED)]
CELLS += ["lora-llama", "prefix-llama", "adapter-llama", "lora-gpt2", "lora-deberta-v2", "adapter-opt"]
# it projects its gradients: those of a mean are not the mean of those
PROJECTED = "osf-bert"

SCRIPT = """
import sys, warnings
sys.path[:0] = {path!r}
warnings.simplefilter("ignore")
from test_sharded_gates import shard_and_compare
shard_and_compare({out!r})
"""


def halves(case):
    half = case.size // 2
    return slice(0, half), slice(half, case.size)


def outputs(case, router, gates):
    with torch.no_grad(), router.hold(gates, sequence_length=case.sequence_length):
        return case.logits(case.model)


def gradients(case, router, gates, rows):
    case.model.zero_grad()
    with router.hold(gates[rows], sequence_length=case.sequence_length):
        case.logits(case.model, rows).square().sum().backward()
    grads = {n: p.grad for n, p in case.model.named_parameters() if p.grad is not None}
    return {n: g.full_tensor() if hasattr(g, "full_tensor") else g.clone() for n, g in grads.items()}


def shard(model, mesh):
    from torch.distributed.fsdp import fully_shard

    for stack in [module for module in model.modules() if isinstance(module, nn.ModuleList)]:
        if not any(isinstance(part, nn.ModuleList) for part in stack):
            for layer in stack:
                fully_shard(layer, mesh=mesh)
    fully_shard(model, mesh=mesh)


def compared(case, mesh, rank):
    """What is as it was before the weights were sharded."""
    router = Router(case.model)
    gates = torch.rand(case.size, router.num_blocks, generator=torch.Generator().manual_seed(7)) < 0.5
    gates[0], gates[1] = True, False
    kinds = {"closed": torch.zeros_like(gates), "open": torch.ones_like(gates), "mixed": gates}
    before = {kind: outputs(case, router, each) for kind, each in kinds.items()}
    grads = [gradients(case, router, gates, rows) for rows in halves(case)]
    case.model.zero_grad()
    shard(case.model, mesh)
    same = {kind: torch.equal(outputs(case, router, each), before[kind]) for kind, each in kinds.items()}
    same["frozen"] = torch.equal(before["closed"], case.frozen_logits())
    own = gradients(case, router, gates, halves(case)[rank])
    same["gradients"] = own.keys() == grads[0].keys() and all(
        torch.equal(own[name], (grads[0][name] + grads[1][name]) / 2) for name in own
    )
    return same


def shard_and_compare(out):
    """In each of two processes."""
    import torch.distributed as dist
    from torch.distributed.device_mesh import init_device_mesh

    dist.init_process_group("gloo")
    mesh, rank = init_device_mesh("cpu", (2,)), dist.get_rank()
    found = {name: compared(Case(name), mesh, rank) for name in CELLS}
    Path(out, f"{rank}.json").write_text(json.dumps(found))
    dist.barrier()
    os._exit(0)


def test_gates_of_sharded_weights_are_exact(tmp_path):
    here = Path(__file__).parent
    script = tmp_path / "script.py"
    script.write_text(textwrap.dedent(SCRIPT.format(path=[str(here), str(here.parent)], out=str(tmp_path))))
    run_ranks(script)
    for rank in (0, 1):
        for name, same in json.loads((tmp_path / f"{rank}.json").read_text()).items():
            differs = {part for part, exact in same.items() if not exact}
            assert differs <= ({"gradients"} if name == PROJECTED else set()), name
