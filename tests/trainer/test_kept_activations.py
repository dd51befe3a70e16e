"""What a training step keeps for its backward."""

from collections import Counter
from contextlib import nullcontext

import pytest
import torch
from torch.autograd.graph import saved_tensors_hooks

from clear_peft.cpu import FasterCPU
from clear_peft.routing import Router
from clear_peft.tuners import build
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
