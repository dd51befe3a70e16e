"""Layers that are gated inside: what they add is zero where a gate is closed, whatever is computed before."""

import peft
import pytest
import torch
from cases import Case

from clear_peft.errors import InputError
from clear_peft.routing import Router
from clear_peft.routing.gate_points import find_gate_points
from tiny_models import tiny

pytestmark = pytest.mark.filterwarnings("ignore")


def places(model):
    """Ends of the names of the gated modules, of the layer on."""
    names = {module: name for name, module in model.named_modules()}
    return {
        names[point.module].removeprefix(f"base_model.model.{point.name}").split(f"{point.name}.")[-1]
        for point in find_gate_points(model)[0]
        if point.kind == "term"
    }


@pytest.mark.parametrize(
    ("name", "place"),
    [
        ("lora-bert", "lora_A.default"),
        ("lora_bias-bert", "lora_B.default"),
        ("dora-bert", "lora_magnitude_vector.default"),
        ("adapter-bert", "bottleneck_up.default"),
        ("metapeft-llama", "lora_A.default"),
    ],
)
def test_the_smallest_module_is_gated_without_which_nothing_is_added(name, place):
    assert places(Case(name).model) == {place}


@pytest.mark.parametrize("name", ["adalora-bert", "vera-bert", "bitfit-bert", "prefix-bert"])
def test_other_layers_are_gated_as_a_whole(name):
    assert places(Case(name).model) == set()


def spoilt(kind, value):
    """A class of modules whose output for the second example is not finite."""

    def forward(self, *args, **kwargs):
        output = kind.forward(self, *args, **kwargs)
        return torch.where(torch.arange(len(output)).view(-1, *[1] * (output.dim() - 1)) == 1, value, output)

    return type(kind.__name__, (kind,), {"forward": forward})


@pytest.mark.parametrize("name", ["lora-bert", "lora_bias-llama", "dora-bert", "adapter-bert"])
@pytest.mark.parametrize("value", [torch.inf, torch.nan])
def test_what_is_not_finite_stays_out_where_the_gate_is_closed(name, value):
    case = Case(name)
    router = Router(case.model)
    gates = torch.ones(case.size, router.num_blocks, dtype=torch.bool)
    gates[1] = False
    for module in case.model.modules():
        gate = module.__dict__.get("_clear_gate")
        if gate is not None and gate.kind == "term":
            gate.original = spoilt(gate.original, value)
    with torch.no_grad(), router.hold(gates):
        logits = case.logits(case.model)
    assert torch.equal(logits[1], case.frozen_logits()[1])
    assert torch.equal(logits[0], case.logits(case.plain)[0])


def test_each_of_several_adapters_is_gated_and_no_later_one_goes_ungated():
    model, batch = tiny("bert")
    frozen = model(**batch).logits
    config = {"task_type": "SEQ_CLS", "target_modules": ["query"], "init_lora_weights": False}
    model = peft.get_peft_model(model, peft.LoraConfig(**config))
    model.add_adapter("other", peft.LoraConfig(**config, use_dora=True))
    router = Router(model)
    closed = torch.zeros(4, router.num_blocks, dtype=torch.bool)
    for active in (["default"], ["other"], ["default", "other"]):
        model.base_model.set_adapter(active[0])
        for module in model.modules():
            if isinstance(module, peft.tuners.lora.LoraLayer):
                module.set_adapter(active)
        with torch.no_grad():
            assert not torch.equal(model(**batch).logits, frozen)
            with router.hold(closed):
                assert torch.equal(model(**batch).logits, frozen)
    model.add_adapter("third", peft.LoraConfig(**config))
    with pytest.raises(InputError, match="make a new one"), router.hold(closed):
        pass
