"""What others read of an adapter or a merged model: names of classes, and the files that vLLM asks for."""

import json
import re

import pandas as pd
import pytest
import torch
from peft import AutoPeftModelForSequenceClassification
from safetensors import safe_open
from transformers import AutoModelForSequenceClassification, AutoTokenizer, pipeline

from clear_peft.tuners import build
from tiny_models import tiny


@pytest.fixture
def predicted(cli, finished, place, tmp_path):
    table = tmp_path / "predicted.csv"
    run = finished("clear", "lora")
    assert cli("predict", "--run", run, "--data", place.test, "--output", table).status == 0
    return pd.read_csv(table)


@pytest.fixture
def named(finished):
    """The adapter, and what has to be said of its classes."""
    adapter = finished("clear", "lora") / "adapter"
    labels = dict(enumerate(json.loads((adapter / "labels.json").read_text(encoding="utf-8"))))
    classes = {"id2label": labels, "label2id": {name: i for i, name in labels.items()}}
    return adapter, classes | {"ignore_mismatched_sizes": True}


def test_auto_classes_of_peft_know_what_they_are_told(named, predicted):
    adapter, classes = named
    with pytest.raises(RuntimeError, match="size mismatch"):  # once it works, the docs can be shorter
        AutoPeftModelForSequenceClassification.from_pretrained(adapter)
    model = AutoPeftModelForSequenceClassification.from_pretrained(adapter, **classes).eval()
    tokenizer = AutoTokenizer.from_pretrained(adapter)
    batch = tokenizer(predicted["text"].tolist(), padding=True, return_tensors="pt")
    with torch.no_grad():
        said = [model.config.id2label[i] for i in model(**batch).logits.argmax(dim=1).tolist()]
    assert said == predicted["predicted_label"].tolist()


def test_a_pipeline_of_an_adapter_names_the_classes(named, predicted):
    adapter, classes = named
    classify = pipeline("text-classification", model=str(adapter), device="cpu", model_kwargs=classes)
    said = [one["label"] for one in classify(predicted["text"].tolist())]
    assert said == predicted["predicted_label"].tolist()


def test_a_merged_model_has_the_files_of_plain_transformers(cli, finished, place, tmp_path):
    assert cli("export", "--run", finished("clear", "lora"), "--output", tmp_path / "model").status == 0
    config = json.loads((tmp_path / "model" / "config.json").read_text(encoding="utf-8"))
    names = json.loads((tmp_path / "model" / "labels.json").read_text(encoding="utf-8"))
    assert config["architectures"] == ["BertForSequenceClassification"]
    assert config["id2label"] == {str(i): name for i, name in enumerate(names)}
    assert config["label2id"] == {name: i for i, name in enumerate(names)}
    plain = AutoModelForSequenceClassification.from_pretrained(
        place.model, num_labels=len(names), ignore_mismatched_sizes=True
    ).state_dict()
    with safe_open(tmp_path / "model" / "model.safetensors", "pt") as weights:
        held = {name: weights.get_slice(name).get_shape() for name in weights.keys()}  # noqa: SIM118
        kinds = {weights.get_slice(name).get_dtype() for name in held}
    assert held == {name: list(weight.shape) for name, weight in plain.items() if name in held}
    assert kinds == {"F32"}
    assert [name for name in plain if name not in held and "position_ids" not in name] == []
    assert (tmp_path / "model" / "tokenizer.json").is_file()


@pytest.mark.parametrize(("architecture", "head"), [("bert", "classifier"), ("llama", "score")])
def test_a_lora_adapter_is_what_vllm_takes(tmp_path, architecture, head):
    build(tiny(architecture)[0], "lora").save_pretrained(tmp_path)
    config = json.loads((tmp_path / "adapter_config.json").read_text(encoding="utf-8"))
    assert config["peft_type"] == "LORA"
    assert set(config["modules_to_save"]) <= {"classifier", "score"}
    assert config["bias"] == "none"
    assert config["init_lora_weights"] is True
    assert not [key for key in ("use_dora", "lora_bias", "use_qalora", "layer_replication") if config[key]]
    assert config["r"] <= 16  # --max-lora-rank by default
    with safe_open(tmp_path / "adapter_model.safetensors", "pt") as weights:
        held = list(weights.keys())
    layers = "|".join(config["target_modules"])
    wanted = rf"base_model\.model\.(.+\.({layers})\.lora_[AB]\.weight|{head}\.(weight|bias))"
    assert [name for name in held if not re.fullmatch(wanted, name)] == []
    assert [name for name in held if f".{head}." in name]
