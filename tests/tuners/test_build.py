import pytest
import torch
from transformers import AutoConfig, AutoModel, AutoModelForMaskedLM, AutoModelForSequenceClassification

from clear_peft import InputError
from clear_peft.tuners import available_methods, build, load_adapter
from clear_peft.tuners.anatomy import block_modules, head_names, pooler_names, projection_names
from tiny_models import ARCHITECTURES, SMALL, tiny

LABELS = torch.tensor([0, 1, 2, 0])
PREFIX = {"bert", "roberta", "electra", "gpt2", "llama", "qwen3", "opt"}
BITFIT = {"bert", "roberta", "distilbert", "electra", "mpnet", "deberta-v2", "opt", "vit"}
HEADS = {
    "distilbert": ["pre_classifier", "classifier"],
    "deberta-v2": ["pooler", "classifier"],
    "modernbert": ["head", "classifier"],
    "t5": ["classification_head"],
    **{architecture: ["score"] for architecture in ("gpt2", "llama", "qwen3", "opt")},
}
CASES = [
    *[(method, "bert") for method in available_methods()],
    *[(method, architecture) for method in ("lora", "adapter", "ia3") for architecture in ARCHITECTURES],
    *[("prefix", architecture) for architecture in sorted(PREFIX)],
    *[("bitfit", architecture) for architecture in sorted(BITFIT) if "bitfit" in available_methods()],
    *[
        (method, architecture)
        for method in ("ln_tuning", "dora")
        for architecture in ("llama", "mpnet", "vit")
    ],
]
pytestmark = [
    pytest.mark.filterwarnings("ignore:Failed to load the CUDA extension:UserWarning"),  # BOFT
    pytest.mark.filterwarnings("ignore:Setting boft_n_butterfly_factor:UserWarning"),
    pytest.mark.filterwarnings("ignore:Could not find a config file in  -:UserWarning"),  # peft 0.20
    pytest.mark.filterwarnings("ignore:Sparse invariant checks:UserWarning"),  # FRoD
]


@pytest.mark.parametrize(("method", "architecture"), sorted(set(CASES)))
def test_train_save_and_load(method, architecture, tmp_path):
    model, batch = tiny(architecture)
    with torch.no_grad():  # with gradients T5's attention runs another kernel
        pretrained = model(**batch).logits
    tuned = build(model, method, options=SMALL.get(method))
    tuned.eval()

    if method not in {"prefix", "apt"}:  # peft 0.21 raises UnboundLocalError for prefix on encoders
        with torch.no_grad(), tuned.disable_adapter():
            assert torch.equal(tuned(**batch).logits, pretrained)
    trainable = {name: p for name, p in tuned.named_parameters() if p.requires_grad}
    before = {name: p.detach().clone() for name, p in trainable.items()}
    optimizer = torch.optim.SGD(trainable.values(), lr=0.1)
    for _ in range(2):
        torch.nn.functional.cross_entropy(tuned(**batch).logits, LABELS).backward()
        optimizer.step()
    assert all(p.grad is not None for p in trainable.values())
    for head in head_names(tiny(architecture)[0]):
        assert any(f".{head}.modules_to_save." in f".{name}" for name in trainable)
    assert any(not torch.equal(before[name], p) for name, p in trainable.items() if "classif" not in name)

    tuned.save_pretrained(tmp_path)
    assert not [*tmp_path.glob("*.bin"), *tmp_path.glob("*.pt"), *tmp_path.glob(".*")]
    loaded = load_adapter(tiny(architecture)[0], tmp_path)
    with torch.no_grad():
        assert torch.equal(loaded(**batch).logits, tuned(**batch).logits)
    assert not any(p.requires_grad for p in loaded.parameters())
    assert not loaded.training


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_anatomy(architecture):
    model, _ = tiny(architecture)
    assert head_names(model) == HEADS.get(architecture, ["classifier"])
    assert pooler_names(model) == {"bert": ["bert.pooler"], "deberta-v2": ["pooler"]}.get(architecture, [])
    assert len(projection_names(model)) >= 3
    assert all(".0." in name or ".1." in name for name in block_modules(model))


def test_lora_is_the_papers():
    tuned = build(tiny("bert")[0], "lora")
    config = tuned.peft_config["default"]
    assert (config.r, config.lora_alpha, config.lora_dropout) == (4, 8, 0.0)
    assert config.target_modules == ["query", "value"]  # a list: a set is saved in any order
    assert build(tiny("bert")[0], "lora", options={"r": 8}).peft_config["default"].lora_alpha == 16


def test_prefix_is_the_papers():
    tuned = build(tiny("bert")[0], "prefix")
    assert tuned.peft_config["default"].num_virtual_tokens == 20
    assert any("pooler.modules_to_save" in name for name, p in tuned.named_parameters() if p.requires_grad)


def test_a_prefix_without_effect_is_refused():
    """RemBERT's classifier hands no cache on; before transformers 5.24 peft goes past the classifier."""
    sizes = {"vocab_size": 99, "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2}
    model = AutoModelForSequenceClassification.from_config(AutoConfig.for_model("rembert", **sizes)).eval()
    ids = torch.arange(5, 13).view(2, 4)
    with torch.no_grad():
        pretrained = model(ids, attention_mask=torch.ones_like(ids)).logits
        tuned = build(model, "prefix").eval()
        if type(tuned).__name__ == "PrefixModel":
            with pytest.raises(InputError, match="no effect on RemBert"):
                tuned(ids, attention_mask=torch.ones_like(ids))
        else:
            assert not torch.equal(tuned(ids, attention_mask=torch.ones_like(ids)).logits, pretrained)


def test_targets_and_modules_to_save_are_ours_to_choose():
    tuned = build(
        tiny("bert")[0], "lora", target_modules=["key"], options={"modules_to_save": ["bert.pooler"]}
    )
    trainable = {name for name, p in tuned.named_parameters() if p.requires_grad}
    assert all("key.lora" in name or "modules_to_save" in name for name in trainable)
    assert any("pooler.modules_to_save" in name for name in trainable)
    assert any("classifier.modules_to_save" in name for name in trainable)


@pytest.mark.parametrize(
    ("architecture", "method", "arguments", "sentence"),
    [
        ("bert", "lroa", {}, "no PEFT method 'lroa': choose from lora, adapter"),
        ("bert", "lora", {"options": {"rank": 4}}, "lora has no option rank: choose from .*lora_alpha.* r,"),
        ("bert", "lora", {"options": {"task_type": "CAUSAL_LM"}}, "no option task_type"),
        ("bert", "lora", {"target_modules": ["nope"]}, "names nope, which .* dense, key, query, value"),
        ("bert", "lora", {"target_modules": ["query", "nope"]}, "target_modules names nope, which"),
        ("bert", "lora", {"options": {"modules_to_save": ["nope"]}}, "modules_to_save names nope, which"),
        ("bert", "lora", {"target_modules": "nope"}, "peft cannot put lora .* dense, key, query, value"),
        ("bert", "adapter", {"target_modules": ["nope"]}, "names nope, which .* dense, key, query, value"),
        ("bert", "adapter", {"target_modules": ["LayerNorm"]}, "no linear layer .* dense, key, query, value"),
        ("bert", "adapter", {"target_modules": "all-linear"}, "as a list of names"),
        ("bert", "adapter", {"options": {"width": 0}}, "at least 1"),
        ("bert", "adapter", {"options": {"r": 4}}, "adapter has no option r: choose from"),
        (
            "bert",
            "bitfit",
            {"target_modules": ["query"]},
            "bitfit has no option target_modules: it takes none",
        ),
        ("bert", "prefix", {"target_modules": ["query"]}, "prefix has no option target_modules"),
        ("bert", "prefix", {"options": {"prefix_projection": True}}, "leave it out"),
        ("bert", "adalora", {}, "total_step"),
        (
            "bert",
            "adalora",
            {"options": {"total_step": 9, "orth_reg_weight": 0.5}},
            "leave orth_reg_weight out",
        ),
        ("gpt2", "loha", {}, "peft cannot put loha on GPT2"),
        ("gpt2", "bitfit", {}, "Conv1D"),
        ("llama", "bitfit", {}, "no biases"),
        ("modernbert", "bitfit", {}, "no biases"),
        ("t5", "prefix", {}, "prefix does not work with T5"),
        ("distilbert", "prefix", {}, "prefix does not work with DistilBert"),
        ("vit", "prefix", {}, "prefix does not work with ViT"),
    ],
)
def test_wrong_input(architecture, method, arguments, sentence):
    if method == "bitfit" and method not in available_methods():
        sentence = "bitfit needs peft 0.20: choose from lora"
    with pytest.raises(InputError, match=sentence):
        build(tiny(architecture)[0], method, **arguments)


@pytest.mark.parametrize("auto", [AutoModel, AutoModelForMaskedLM])
def test_a_model_without_head(auto):
    config = AutoConfig.for_model(
        "bert", vocab_size=9, hidden_size=8, num_hidden_layers=1, num_attention_heads=2, intermediate_size=8
    )
    with pytest.raises(InputError, match="no classification head with 2 outputs"):
        build(auto.from_config(config), "lora")


def test_no_transformers_model():
    with pytest.raises(InputError, match="this is a Linear"):
        build(torch.nn.Linear(2, 2), "lora")


@pytest.mark.parametrize("method", ["lora", "adapter"])
def test_an_adapter_already(method):
    model = tiny("bert")[0]
    build(model, method)
    with pytest.raises(InputError, match="adapter already"):
        build(model, "lora")
