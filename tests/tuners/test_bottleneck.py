import copy
import json

import pytest
import torch
from peft.tuners.tuners_utils import BaseTunerLayer
from transformers import Trainer, TrainingArguments
from transformers.pytorch_utils import Conv1D

from clear_peft import InputError
from clear_peft.tuners import BottleneckConfig, BottleneckModel, build
from clear_peft.tuners.bottleneck import BottleneckLayer
from tiny_models import ARCHITECTURES, CHECKPOINTING, tiny

LABELS = torch.tensor([0, 1, 2, 0])


def randomized(architecture="bert"):
    """An adapted model in eval mode whose trained weights are random, and a batch."""
    model, batch = tiny(architecture)
    tuned = build(model, "adapter").eval()
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(3)
        for parameter in tuned.parameters():
            if parameter.requires_grad:
                torch.nn.init.normal_(parameter, std=0.2)
    return tuned, batch


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_two_adapters_per_block_and_starts_as_the_identity(architecture):
    model, batch = tiny(architecture)
    with torch.no_grad():
        pretrained = model(**batch).logits
    tuned = build(model, "adapter").eval()
    layers = [m for m in tuned.modules() if isinstance(m, BottleneckLayer)]
    # T5: 2 encoder blocks with 2, 2 decoder blocks with 3
    assert len(layers) == (10 if architecture == "t5" else 4)
    with torch.no_grad():
        assert torch.equal(tuned(**batch).logits, pretrained)


def test_layer_follows_the_formula():
    base = torch.nn.Linear(5, 7)
    layer = BottleneckLayer(base, width=3)
    down, up = layer.bottleneck_down["default"], layer.bottleneck_up["default"]
    torch.nn.init.normal_(up.weight)
    x = torch.randn(2, 4, 5)
    y = base(x)
    expected = y + torch.nn.functional.gelu(y @ down.weight.T + down.bias) @ up.weight.T + up.bias
    torch.testing.assert_close(layer(x), expected)
    layer._disable_adapters = True
    assert torch.equal(layer(x), y)
    assert isinstance(layer, BaseTunerLayer)
    assert layer.weight is base.weight
    assert layer.bias is base.bias
    assert not layer.merged
    assert layer.active_adapters == ["default"]


def test_layer_on_conv1d_and_half_precision():
    layer = BottleneckLayer(Conv1D(6, 5).to(torch.bfloat16), width=3)
    assert layer.bottleneck_up["default"].weight.dtype == torch.float32
    assert layer(torch.randn(2, 5, dtype=torch.bfloat16)).dtype == torch.bfloat16


def test_only_adapters_and_head_are_trained(capsys):
    tuned = build(tiny("bert")[0], "adapter")
    names = {name for name, p in tuned.named_parameters() if p.requires_grad}
    assert all(".bottleneck_" in name or "classifier.modules_to_save." in name for name in names)
    expected = 4 * (2 * 32 * 16 + 16 + 32) + 3 * 33
    assert tuned.get_nb_trainable_parameters() == (expected, sum(p.numel() for p in tuned.parameters()))
    tuned.print_trainable_parameters()
    assert f"trainable params: {expected:,d} ||" in capsys.readouterr().out


def test_disable_adapter_is_the_pretrained_model_and_leaves_gradients_alone():
    tuned, batch = randomized()
    pretrained = tiny("bert")[0](**batch).logits
    grads = [p.requires_grad for p in tuned.parameters()]
    adapted = tuned(**batch).logits
    with tuned.disable_adapter():
        assert torch.equal(tuned(**batch).logits, pretrained)
        with tuned.disable_adapter():
            pass
        assert torch.equal(tuned(**batch).logits, pretrained)
    assert torch.equal(tuned(**batch).logits, adapted)
    assert not torch.allclose(adapted, pretrained, atol=1e-3)
    assert [p.requires_grad for p in tuned.parameters()] == grads


def test_copies_are_independent():
    tuned, batch = randomized()
    twin = copy.deepcopy(tuned)
    before = tuned(**batch).logits
    assert torch.equal(twin(**batch).logits, before)
    with torch.no_grad():
        for parameter in twin.parameters():
            parameter.add_(1.0)
    assert torch.equal(tuned(**batch).logits, before)


def test_attributes_of_the_base_model():
    tuned, _ = randomized()
    assert tuned.config.model_type == "bert"
    assert tuned.get_input_embeddings().weight.shape == (99, 32)
    assert tuned.get_base_model() is tuned.base_model
    with pytest.raises(AttributeError, match="nothing"):
        _ = tuned.nothing


def test_width_and_place(tmp_path):
    config = BottleneckConfig(
        width=5, target_modules=("intermediate.dense",), modules_to_save=("classifier",)
    )
    tuned = BottleneckModel(tiny("bert")[0], config)
    layers = [m for m in tuned.modules() if isinstance(m, BottleneckLayer)]
    assert [m.bottleneck_down["default"].weight.shape for m in layers] == [(5, 48)] * 2
    tuned.save_pretrained(tmp_path)
    saved = json.loads((tmp_path / "bottleneck_config.json").read_text())
    assert saved["width"] == 5
    assert saved["target_modules"] == [f"bert.encoder.layer.{i}.intermediate.dense" for i in range(2)]


def test_unknown_architecture():
    model, _ = tiny("bert")
    model.config.model_type = "novel"
    with pytest.raises(InputError, match=r"'novel': name the output .* dense, key, query, value"):
        build(model, "adapter")


@pytest.mark.parametrize("reentrant", [True, False])
def test_gradient_checkpointing_changes_nothing(reentrant):
    gradients = []
    for checkpointing in (False, True):
        tuned, batch = randomized()
        tuned.train()
        if checkpointing:
            tuned.gradient_checkpointing_enable({"use_reentrant": reentrant})
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(5)
            tuned(**batch, labels=LABELS).loss.backward()
        gradients.append([p.grad for p in tuned.parameters() if p.requires_grad])
    assert all(torch.equal(a, b) for a, b in zip(*gradients, strict=True))


@pytest.mark.parametrize(
    ("architecture", "reentrant"),
    [(a, r) for a in ("bert", "opt", "vit") for r in (None, True, False)] + [("mpnet", None)],
)
def test_trainer(architecture, reentrant, tmp_path):
    model, batch = tiny(architecture)
    tuned = build(model, "adapter")
    rows = [{k: v[i] for k, v in batch.items()} | {"labels": LABELS[i]} for i in range(4)]
    checkpointing = {}
    if reentrant is not None:
        checkpointing = {CHECKPOINTING: True, f"{CHECKPOINTING}_kwargs": {"use_reentrant": reentrant}}
    arguments = TrainingArguments(
        output_dir=tmp_path,
        num_train_epochs=2,
        per_device_train_batch_size=2,
        learning_rate=0.01,
        report_to=[],
        save_strategy="no",
        use_cpu=True,
        disable_tqdm=True,
        dataloader_pin_memory=False,
        **checkpointing,
    )
    before = {name: p.detach().clone() for name, p in tuned.named_parameters()}
    trainer = Trainer(model=tuned, args=arguments, train_dataset=rows, eval_dataset=rows)
    trainer.train()
    assert "eval_loss" in trainer.evaluate()
    for name, parameter in tuned.named_parameters():
        assert torch.equal(before[name], parameter) != parameter.requires_grad, name
