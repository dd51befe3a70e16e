"""What a training step keeps for its backward."""

from collections import Counter
from contextlib import nullcontext

import pytest
import torch
from torch.autograd.graph import saved_tensors_hooks

from clear_peft.cpu import FasterCPU
from clear_peft.routing import Router
from clear_peft.tuners import available_methods, build
from tiny_models import tiny


def kept_by_layer(model, batch, layers, step):
    """Bytes that a step keeps, by the last layer that has begun: 0 is the embeddings."""
    kept, place = Counter(), 0

    def pack(tensor):
        kept[place] += tensor.numel() * tensor.element_size()
        return tensor

    def begin(number):
        def hook(*_):
            nonlocal place
            place = number

        return hook

    hooks = [layer.register_forward_pre_hook(begin(i + 1)) for i, layer in enumerate(layers)]
    try:
        with step, saved_tensors_hooks(pack, lambda tensor: tensor):
            with torch.autocast("cpu", torch.bfloat16):
                logits = model(**batch).logits
            torch.nn.functional.cross_entropy(logits.float(), torch.tensor([0, 1, 2, 0])).backward()
    finally:
        for hook in hooks:
            hook.remove()
    return kept


@pytest.mark.parametrize("routed", [False, True])
@pytest.mark.parametrize("quick", [False, True])
@pytest.mark.parametrize("tuned_layer", [0, 1])
@pytest.mark.parametrize(
    ("architecture", "layers_of"),
    [("bert", lambda base: base.bert.encoder.layer), ("llama", lambda base: base.model.layers)],
)
def test_nothing_below_the_first_tuned_block_is_kept(architecture, layers_of, tuned_layer, quick, routed):
    base, batch = tiny(architecture)
    layers = layers_of(base)
    model = build(base, "lora", options={"r": 4, "layers_to_transform": [tuned_layer]}).train()
    gates = Router(model).hold(torch.tensor([[True], [False], [True], [True]])) if routed else nullcontext()
    with gates:
        kept = kept_by_layer(model, batch, layers, FasterCPU() if quick else nullcontext())
    below = {place: size for place, size in kept.items() if place <= tuned_layer}
    assert not below
    assert kept[tuned_layer + 1] > 0


def kept_in_all(model, batch, step):
    """Bytes that a step keeps; what several operators keep counts once, and weights do not."""
    weights, kept = {p.untyped_storage().data_ptr() for p in model.parameters()}, {}

    def pack(tensor):
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in weights:
            kept[storage.data_ptr()] = storage.nbytes()
        return tensor

    with step, saved_tensors_hooks(pack, lambda tensor: tensor):
        with torch.autocast("cpu", torch.bfloat16):
            logits = model(**batch).logits
        loss = torch.nn.functional.cross_entropy(logits.float(), torch.tensor([0, 1, 2, 0]))
    size = sum(kept.values())  # as long as the graph is there, no address is used again
    loss.backward()
    return size


@pytest.mark.parametrize("quick", [False, True])
@pytest.mark.parametrize("method", ["lora", "dora", "adapter", "bitfit", "prefix"])
def test_gates_keep_next_to_nothing_more(method, quick):
    if method not in available_methods():
        pytest.skip("BitFit needs peft 0.20")
    base, batch = tiny("bert")
    model = build(base, method).train()
    router = Router(model)
    gates = torch.rand(4, router.num_blocks, generator=torch.Generator().manual_seed(0)) < 0.5

    def kept():
        return kept_in_all(model, batch, FasterCPU() if quick else nullcontext())

    plain = kept()
    with router.hold(gates, sequence_length=batch["input_ids"].shape[1]):
        routed = kept()
    assert 0 < routed <= 1.02 * plain
