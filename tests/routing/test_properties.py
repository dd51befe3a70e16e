"""For any gates whatever: a row of the output is a function of that row's gates alone."""

import functools

import pytest
import torch
from cases import CASES, Case
from hypothesis import given, settings
from hypothesis import strategies as st

from clear_peft.routing import Router

pytestmark = pytest.mark.filterwarnings("ignore")


@functools.cache
def routed(name):
    case = Case(name)
    return case, Router(case.model)


@pytest.mark.parametrize(
    "name",
    sorted(
        {"lora-bert", "prefix-bert", "bitfit-bert", "adapter-llama", "lora-deberta-v2"}.intersection(CASES)
    ),
)
@settings(max_examples=15, deadline=None)
@given(data=st.data())
def test_rows_depend_on_their_own_gates_alone(name, data):
    case, router = routed(name)
    bits = st.lists(st.booleans(), min_size=router.num_blocks, max_size=router.num_blocks)
    gates = torch.tensor([data.draw(bits) for _ in range(case.size)])
    row = data.draw(st.integers(0, case.size - 1))
    with torch.no_grad():
        with router.hold(gates):
            mixed = case.logits(case.model)
        with router.hold(gates[row].expand(case.size, -1)):
            alike = case.logits(case.model)
        if gates[row].all():
            assert torch.equal(mixed[row], case.logits(case.plain)[row])
        if not gates[row].any():
            assert torch.equal(mixed[row], case.frozen_logits()[row])
    assert torch.equal(mixed[row], alike[row])
