"""Adaptive Prefix Tuning: numbers by hand, an attention written out, and what is saved."""

import copy
import json

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoConfig, AutoModelForSequenceClassification

from clear_peft import InputError
from clear_peft.routing import Router
from clear_peft.tuners import AptConfig, AptModel, build, load_adapter
from clear_peft.tuners.apt import PrefixGates
from clear_peft.tuners.loading import restore_adapter
from tiny_models import CHECKPOINTING, tiny

ARCHITECTURES = ("bert", "roberta", "electra", "gpt2", "llama", "qwen3", "opt")
PREFIX = "prompt_encoder.default.embedding.weight"
GATES = ("apt_token_gate", "apt_layer_gate")
LABELS = torch.tensor([0, 1, 2, 0])
every_architecture = pytest.mark.parametrize("architecture", ARCHITECTURES)


def moved(architecture="bert", **options):
    """An APT model in eval mode whose gates differ from token to token and layer to layer, and a batch."""
    base, batch = tiny(architecture)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(1)
        model = build(base, "apt", options={"num_virtual_tokens": 5, **options}).eval()
        with torch.no_grad():
            model.apt_token_gate.normal_(std=0.5)
            model.apt_layer_gate.normal_()
    return model, batch


@torch.no_grad()
def logits(model, batch, **more):
    return model(**{**batch, **more}).logits


# The formula


@pytest.mark.parametrize(
    ("gate", "weights", "output"),
    [
        (1.0, (0.575975, 0.140029, 0.283995), (1.867955, 2.295917)),
        (0.5, (0.401112, 0.197776, 0.401112), (0.799444, 1.403892)),
        (0.0, (0.248255, 0.248255, 0.503490), (0.248255, 1.006980)),
    ],
)
def test_numbers_by_hand(gate, weights, output):
    """A closed gate still takes a share of the attention: a prefix times 0 is not the model without it."""

    class Cached:
        keys = torch.tensor([2.0, 0.0]).view(1, 1, 1, 2)
        values = torch.tensor([3.0, 3.0]).view(1, 1, 1, 2)

    # α is ½, so that λ·α is the gate
    gates = PrefixGates(torch.zeros(1, 4, 1), torch.tensor([2 * gate]), "first", None)
    gates.scale(Cached, 0, torch.randn(1, 3, 4))
    query = torch.tensor([1.0, 0.0])
    keys = torch.cat([Cached.keys.view(1, 2), torch.tensor([[0.0, 1.0], [1.0, 1.0]])])
    values = torch.cat([Cached.values.view(1, 2), torch.tensor([[1.0, 0.0], [0.0, 2.0]])])
    shares = (keys @ query / 2**0.5).softmax(0)
    torch.testing.assert_close(shares, torch.tensor(weights), atol=1e-6, rtol=0)
    torch.testing.assert_close(shares @ values, torch.tensor(output), atol=2e-6, rtol=0)


@pytest.mark.parametrize("pool", ["first", "mean", "last"])
@pytest.mark.parametrize("index", [0, 1])
def test_an_attention_is_the_formula(pool, index):
    model, batch = moved(pool=pool)
    attention = model.get_base_model().bert.encoder.layer[index].attention.self
    seen = []
    attention.register_forward_hook(lambda _, args, output: seen.append((args[0], output[0])))
    logits(model, batch)
    (hidden, output), real = seen[0], batch["attention_mask"].bool()

    pooled = torch.stack(
        [
            {"first": states[0], "mean": states.mean(0), "last": states[-1]}[pool]
            for states in (row[mask] for row, mask in zip(hidden, real, strict=True))
        ]
    )
    alpha = 1 / (1 + torch.exp(-torch.einsum("bd,dm->bm", pooled, model.apt_token_gate[index])))
    gate = model.apt_layer_gate[index] * alpha
    raw = model.get_parameter(PREFIX).view(5, 2, 2, 2, 16)  # token, layer, keys or values, head, size
    prefix_keys, prefix_values = (torch.einsum("bm,mhs->bhms", gate, raw[:, index, i]) for i in (0, 1))
    query, key, value = (
        getattr(attention, name)(hidden).view(4, 9, 2, 16).transpose(1, 2)
        for name in ("query", "key", "value")
    )
    keys, values = torch.cat([prefix_keys, key], 2), torch.cat([prefix_values, value], 2)
    scores = torch.einsum("bhts,bhks->bhtk", query, keys) / 4
    visible = torch.cat([torch.ones(4, 5, dtype=torch.bool), real], 1)
    weights = scores.exp() * visible[:, None, None]
    weights = weights / weights.sum(-1, keepdim=True)
    expected = torch.einsum("bhtk,bhks->bths", weights, values).flatten(2)
    torch.testing.assert_close(output[real], expected[real], atol=2e-5, rtol=1e-4)


@every_architecture
def test_with_gates_of_one_it_is_prefix_tuning_bit_for_bit(architecture):
    torch.manual_seed(0)
    base, batch = tiny(architecture)
    prefix = build(base, "prefix").eval()
    torch.manual_seed(0)
    model = build(tiny(architecture)[0], "apt").eval()
    assert not torch.equal(logits(model, batch), logits(prefix, batch))
    model.apt_layer_gate.data.fill_(2.0)  # times α = ½
    assert torch.equal(logits(model, batch), logits(prefix, batch))
    assert model.apt_config.num_virtual_tokens == 20


@pytest.mark.parametrize("architecture", ["bert", "gpt2"])
def test_gradients_in_float64(architecture):
    """Those of W flow through the hidden states too, which the prefixes of earlier layers have moved."""
    base, batch = tiny(architecture)
    model = build(base.double(), "apt", options={"num_virtual_tokens": 2}).double().eval()
    model.apt_token_gate.data.normal_(std=0.3, generator=torch.Generator().manual_seed(0))
    names = (*GATES, PREFIX)
    values = [model.get_parameter(name).detach().clone().requires_grad_() for name in names]
    rows = {name: x[1:3, :7] for name, x in batch.items()}

    def output(*values):
        return torch.func.functional_call(model, dict(zip(names, values, strict=True)), (), rows).logits

    assert torch.autograd.gradcheck(output, values, eps=1e-6, atol=1e-7, rtol=1e-4)


@every_architecture
def test_rows_do_not_touch_each_other(architecture):
    model, batch = moved(architecture)
    order = torch.tensor([2, 0, 3, 1])
    shuffled = logits(model, {name: x[order] for name, x in batch.items()})
    torch.testing.assert_close(shuffled, logits(model, batch)[order], atol=1e-5, rtol=1e-5)
    other = batch["input_ids"].clone()
    other[0, :2] = torch.tensor([7, 8])
    assert torch.equal(logits(model, batch, input_ids=other)[1:], logits(model, batch)[1:])


@pytest.mark.parametrize("pool", ["first", "mean", "last"])
def test_padding_on_either_side_and_of_any_length(pool):
    """OPT counts positions over what is not padding, so that padding may stand anywhere."""
    model, batch = moved("opt", pool=pool)
    on_the_right = logits(model, batch)

    def on_the_left(more):
        ids, mask = torch.ones(4, 9 + more, dtype=torch.long), torch.zeros(4, 9 + more, dtype=torch.long)
        for row, length in enumerate(batch["attention_mask"].sum(1)):
            ids[row, -length:], mask[row, -length:] = batch["input_ids"][row, :length], 1
        return logits(model, {"input_ids": ids, "attention_mask": mask})

    for more in (0, 4):
        torch.testing.assert_close(on_the_left(more), on_the_right, atol=1e-5, rtol=1e-5)


def test_without_a_mask_every_token_counts():
    model, batch = moved("gpt2", pool="mean")
    ids = batch["input_ids"][:1]
    expected = logits(model, {"input_ids": ids, "attention_mask": torch.ones_like(ids)})
    assert torch.equal(logits(model, {"input_ids": ids}), expected)


@every_architecture
def test_which_token_the_gates_read(architecture):
    model, _ = moved(architecture)
    assert model.apt_config.pool == ("first" if architecture in {"bert", "roberta", "electra"} else "last")


# Training


@every_architecture
def test_what_is_trained(architecture):
    prefix = build(tiny(architecture)[0], "prefix", options={"num_virtual_tokens": 8})
    model = build(tiny(architecture)[0], "apt", options={"num_virtual_tokens": 8})

    def sizes(model):
        trained = {name: p for name, p in model.named_parameters() if p.requires_grad}
        return {name: p.numel() for name, p in trained.items()}

    gates = {"apt_token_gate": 2 * 32 * 8, "apt_layer_gate": 2}
    assert sizes(model) == {**sizes(prefix), **gates}
    count = sizes(prefix)[PREFIX]
    if architecture not in {"llama", "qwen3"}:  # whose keys are narrower than their hidden states
        assert sum(size for name, size in sizes(model).items() if "modules_to_save" not in name) == (
            1.5 * count + 2
        )


@pytest.mark.parametrize("architecture", ["bert", "llama"])
def test_every_trained_parameter_learns(architecture):
    model = build(tiny(architecture)[0], "apt").train()
    batch = tiny(architecture)[1]
    model(**batch, labels=LABELS).loss.backward()
    for name, parameter in model.named_parameters():
        assert (parameter.grad is not None) == parameter.requires_grad, name
        assert parameter.grad is None or parameter.grad.any(), name


@pytest.mark.parametrize("architecture", ["bert", "qwen3"])
def test_half_precision(architecture):
    base, batch = tiny(architecture)
    model = build(base.bfloat16(), "apt").eval()
    assert all(model.get_parameter(name).dtype == torch.float32 for name in GATES)
    loss = model(**batch, labels=LABELS).loss
    assert loss.dtype == torch.float32  # the head is in float32, too
    loss.backward()
    assert all(model.get_parameter(name).grad.isfinite().all() for name in (*GATES, PREFIX))

    exact, batch = moved(architecture)
    with torch.autocast("cpu", torch.bfloat16):
        rounded = logits(exact, batch)
    torch.testing.assert_close(rounded.float(), logits(exact, batch), atol=0.05, rtol=0.05)


@pytest.mark.parametrize("routed", [False, True])
def test_a_copy_has_gates_of_its_own(routed):
    model, batch = moved()
    if routed:
        Router(model)
    before = logits(model, batch)
    twin = copy.deepcopy(model)
    assert torch.equal(logits(twin, batch), before)
    for name in GATES:
        twin.get_parameter(name).data.add_(1.0)
    assert torch.equal(logits(model, batch), before)
    assert not torch.equal(logits(twin, batch), before)


def test_a_model_of_the_same_class_is_left_alone():
    """Also where it is given a cache of its own."""
    base, batch = tiny("gpt2")
    expected = base(**batch, use_cache=True).logits
    build(tiny("gpt2")[0], "apt")
    assert torch.equal(base(**batch, use_cache=True).logits, expected)


# What is saved


@every_architecture
def test_saved_and_loaded(architecture, tmp_path):
    model, batch = moved(architecture)
    model.save_pretrained(tmp_path / "deep" / "folder")
    folder = tmp_path / "deep" / "folder"
    assert sorted(path.name for path in folder.iterdir()) == ["apt_config.json", "apt_model.safetensors"]
    trained = {name: p for name, p in model.named_parameters() if p.requires_grad}
    weights = load_file(folder / "apt_model.safetensors")
    assert weights.keys() == trained.keys()
    assert all(torch.equal(weights[name], p) for name, p in trained.items())
    settings = json.loads((folder / "apt_config.json").read_text())
    assert (settings["num_virtual_tokens"], settings["pool"]) == (5, model.apt_config.pool)

    loaded = load_adapter(tiny(architecture)[0], folder)
    assert isinstance(loaded, AptModel)
    assert loaded.apt_config == model.apt_config
    assert torch.equal(logits(loaded, batch), logits(model, batch))
    assert not loaded.training
    assert not any(p.requires_grad for p in loaded.parameters())


@pytest.fixture
def saved(tmp_path):
    moved()[0].save_pretrained(tmp_path)
    return tmp_path


def refused(folder, words, **sizes):
    model = tiny("bert")[0]
    if sizes:
        model.config.update(sizes)
        model = AutoModelForSequenceClassification.from_config(model.config)
    with pytest.raises(InputError, match=words):
        load_adapter(model, folder)


@pytest.mark.parametrize(
    "values",
    [
        {"num_virtual_tokens": 0},
        {"num_virtual_tokens": -5},
        {"num_virtual_tokens": 4},
        {"num_virtual_tokens": 10**12},
        {"num_virtual_tokens": 10**40},
        {"num_virtual_tokens": True},
        {"num_virtual_tokens": 5.0},
        {"num_virtual_tokens": "5"},
        {"num_virtual_tokens": None},
        {"pool": "median"},
        {"pool": ["first"]},
        {"pool": {"first": 1}},
        {"modules_to_save": ["nowhere"]},
        {"modules_to_save": [""]},
        {"modules_to_save": ["(a+)+$"]},
        {"modules_to_save": ["classifier"]},
        {"modules_to_save": [3]},
        {"modules_to_save": "classifier"},
        {"modules_to_save": {"classifier": 1}},
        {"base_model_name_or_path": 3},
        {"unknown": 1},
    ],
)
def test_settings_that_cannot_be(saved, values):
    path = saved / "apt_config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **values}))
    refused(saved, r"save it again|does not fit|choose from|lacks|at least 1")


@pytest.mark.parametrize("content", [b"", b"[]", b"3", b"null", b"[" * 200_000, b'{"pool"', b"\xff\xfe"])
def test_settings_that_are_none(saved, content):
    (saved / "apt_config.json").write_bytes(content)
    refused(saved, r"apt_config\.json is not the configuration of a")


@pytest.mark.parametrize("sizes", [{"hidden_size": 64}, {"num_hidden_layers": 1}, {"num_hidden_layers": 3}])
def test_another_base_model(saved, sizes):
    refused(saved, r"apt_model\.safetensors does not fit this base model", **sizes)


def test_another_number_of_labels(saved):
    refused(saved, "does not fit", num_labels=5)


@pytest.mark.parametrize("name", [*GATES, PREFIX, "base_model.classifier.modules_to_save.default.weight"])
@pytest.mark.parametrize("change", ["missing", "longer", "renamed"])
def test_weights_that_do_not_fit(saved, name, change):
    path = saved / "apt_model.safetensors"
    weights = load_file(path)
    weight = weights.pop(name)
    if change == "longer":
        weights[name] = torch.cat([weight, weight])
    elif change == "renamed":
        weights[f"{name}.other"] = weight
    save_file(weights, path)
    refused(saved, r"apt_model\.safetensors does not fit this base model")


def test_weights_that_are_none(saved):
    path = saved / "apt_model.safetensors"
    content = path.read_bytes()
    path.write_bytes(content[:-10])
    refused(saved, "not a whole safetensors file")
    path.unlink()
    torch.save({}, saved / "apt_model.bin")
    refused(saved, r"apt_model\.safetensors does not exist")


def test_a_checkpoint_is_restored(saved):
    expected, batch = moved()
    model = build(tiny("bert")[0], "apt", options={"num_virtual_tokens": 5}).eval()
    trained = [p.requires_grad for p in model.parameters()]
    restore_adapter(model, saved)
    assert torch.equal(logits(model, batch), logits(expected, batch))
    assert [p.requires_grad for p in model.parameters()] == trained


def test_weights_of_another_checkpoint(saved):
    model = moved(num_virtual_tokens=6)[0]
    with pytest.raises(InputError, match="does not fit"):
        model.load_weights(saved)


# What cannot be


@pytest.mark.parametrize(
    ("architecture", "options", "sentence"),
    [
        (
            "bert",
            {"length": 4},
            "apt has no option length: choose from modules_to_save, num_virtual_tokens, po",
        ),
        ("bert", {"num_virtual_tokens": 0}, "num_virtual_tokens is 0: give a whole number"),
        ("bert", {"num_virtual_tokens": 2.0}, r"num_virtual_tokens is 2\.0: give a whole number"),
        ("bert", {"num_virtual_tokens": 10**30}, "peft cannot put apt on Bert"),
        ("bert", {"pool": "median"}, "pool is 'median': choose from first, mean, last"),
        ("bert", {"pool": ["first"]}, "choose from first, mean, last"),
        ("bert", {"modules_to_save": ["nope"]}, "modules_to_save names nope, which"),
        ("bert", {"modules_to_save": "bert"}, "modules_to_save is 'bert': give a list of names"),
        *(
            (architecture, {}, "apt does not work with")
            for architecture in ("distilbert", "mpnet", "modernbert", "t5", "vit")
        ),
    ],
)
def test_wrong_input(architecture, options, sentence):
    with pytest.raises(InputError, match=sentence):
        build(tiny(architecture)[0], "apt", options=options)


def test_target_modules_are_no_option():
    with pytest.raises(InputError, match="apt has no option target_modules"):
        build(tiny("bert")[0], "apt", target_modules=["query"])


def test_an_attention_that_is_patched():
    model = tiny("bert")[0]
    attention = model.bert.encoder.layer[0].attention.self
    attention.forward = attention.forward
    with pytest.raises(InputError, match="load the model on one device"):
        build(model, "apt")


def test_a_model_that_drops_its_cache():
    """RemBERT's classifier hands no cache on."""
    sizes = {"vocab_size": 99, "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2}
    model = AutoModelForSequenceClassification.from_config(AutoConfig.for_model("rembert", **sizes)).eval()
    tuned = build(model, "apt")
    with pytest.raises(InputError, match="apt has no effect on RemBert"):
        tuned(torch.arange(5, 13).view(2, 4))


@pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing`:FutureWarning")
def test_gradient_checkpointing():
    """As with a prefix: a checkpointed layer is given no cache."""
    enable = f"{CHECKPOINTING}_enable"
    model = tiny("bert")[0]
    getattr(model, enable)()
    with pytest.raises(InputError, match=r"peft cannot put apt on .* gradient checkpointing"):
        build(model, "apt")
    tuned = build(tiny("bert")[0], "apt")
    with pytest.raises(InputError, match="apt does not work with gradient checkpointing: leave it off"):
        getattr(tuned, enable)({"use_reentrant": False})


def test_saved_ends_of_names_are_spelt_out():
    model = AptModel.added_to(tiny("bert")[0], AptConfig(modules_to_save=("classifier", "pooler.dense")))
    assert model.apt_config.modules_to_save == ("bert.pooler.dense", "classifier")
    default = AptModel.added_to(tiny("bert")[0], AptConfig())
    assert default.apt_config.modules_to_save == ("bert.pooler", "classifier")
