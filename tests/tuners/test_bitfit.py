import pytest
import torch
from peft import PeftModel, get_peft_model_state_dict, set_peft_model_state_dict
from peft.tuners.tuners_utils import BaseTunerLayer
from peft.utils.other import ModulesToSaveWrapper

from clear_peft.tuners import available_methods, build
from clear_peft.tuners.anatomy import block_modules, head_names, pooler_names
from tiny_models import tiny

LABELS = torch.tensor([0, 1, 2, 0])
ARCHITECTURES = ["bert", "roberta", "distilbert", "electra", "mpnet", "deberta-v2", "opt", "vit"]
pytestmark = [
    pytest.mark.skipif("bitfit" not in available_methods(), reason="peft has BEFT since 0.20"),
    pytest.mark.filterwarnings("ignore:Could not find a config file in  -:UserWarning"),  # peft 0.20
]


def with_random_biases(architecture):
    """A tiny model whose biases are not zero, as pretrained ones are not."""
    model, batch = tiny(architecture)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(1)
        for name, parameter in model.named_parameters():
            if name.endswith("bias"):
                torch.nn.init.normal_(parameter, std=0.1)
    return model, batch


def train_biases_in_place(model):
    """BitFit by its definition."""
    model.requires_grad_(False)
    for module in block_modules(model).values():
        if module._parameters.get("bias") is not None:
            module.bias.requires_grad_(True)
    for name in {*head_names(model), *pooler_names(model)}:
        model.get_submodule(name).requires_grad_(True)
    return model


def trainable(model):
    return [p for p in model.parameters() if p.requires_grad]


def step(model, batch, optimizer):
    optimizer.zero_grad()
    torch.nn.functional.cross_entropy(model(**batch).logits, LABELS).backward()
    optimizer.step()


@pytest.mark.parametrize("architecture", ARCHITECTURES)
@pytest.mark.parametrize("optimizer", [torch.optim.SGD, torch.optim.AdamW])
def test_equals_training_the_biases_in_place(architecture, optimizer, tmp_path):
    reference, batch = with_random_biases(architecture)
    reference = train_biases_in_place(reference.double())
    batch = {k: v.double() if v.is_floating_point() else v for k, v in batch.items()}
    tuned = build(with_random_biases(architecture)[0].double(), "bitfit")
    pretrained = with_random_biases(architecture)[0].double()(**batch).logits
    sizes = [sum(p.numel() for p in trainable(model)) for model in (reference, tuned)]
    assert sizes[0] == sizes[1]

    # No weight decay: it would pull a bias towards zero, but the trained difference towards the old bias.
    optimizers = [optimizer(trainable(model), lr=0.01, weight_decay=0) for model in (reference, tuned)]
    for _ in range(4):
        step(reference, batch, optimizers[0])
        step(tuned, batch, optimizers[1])
        torch.testing.assert_close(tuned(**batch).logits, reference(**batch).logits, rtol=1e-6, atol=1e-6)
    assert not torch.allclose(tuned(**batch).logits, pretrained, atol=1e-3)
    with tuned.disable_adapter():
        assert torch.equal(tuned(**batch).logits, pretrained)

    tuned.save_pretrained(tmp_path)
    loaded = PeftModel.from_pretrained(with_random_biases(architecture)[0].double(), tmp_path)
    assert torch.equal(loaded(**batch).logits, tuned(**batch).logits)
    assert loaded.peft_config["default"].peft_type == "BEFT"

    resumed = build(with_random_biases(architecture)[0].double(), "bitfit")
    set_peft_model_state_dict(resumed, get_peft_model_state_dict(tuned))
    assert torch.equal(resumed(**batch).logits, tuned(**batch).logits)


def test_the_weights_of_the_norms_stay_frozen():
    tuned = build(tiny("bert")[0], "bitfit")
    before = {name for name, p in tuned.named_parameters() if p.requires_grad}
    with tuned.disable_adapter():
        pass
    assert {name for name, p in tuned.named_parameters() if p.requires_grad} == before
    assert not any("LayerNorm" in name and name.endswith("weight") for name in before)


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_every_biased_module_in_the_blocks_and_no_other_is_wrapped(architecture):
    model, _ = tiny(architecture)
    blocks = block_modules(model)
    biased = {name for name, module in blocks.items() if module._parameters.get("bias") is not None}
    saved = {*head_names(model), *pooler_names(model)}
    base = build(model, "bitfit").get_base_model()
    wrapped = {
        name
        for name, module in base.named_modules()
        if isinstance(module, (BaseTunerLayer, ModulesToSaveWrapper))
    }
    assert wrapped == biased | saved
