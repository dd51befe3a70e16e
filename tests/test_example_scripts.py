"""The examples run, on small tables and with a tiny model."""

import json
import runpy
import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from datasets import ClassLabel, Dataset, Value
from datasets import Image as ImageColumn
from peft import PeftModel
from PIL import Image
from transformers import (
    AutoModelForSequenceClassification,
    AutoTokenizer,
    GPT2Config,
    GPT2LMHeadModel,
    ViTConfig,
    ViTForImageClassification,
    ViTImageProcessor,
)

from pages import ROOT
from tiny_text import keyword_table, tiny_checkpoint

# of transformers and peft
pytestmark = pytest.mark.filterwarnings("ignore")


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return str(tiny_checkpoint(tmp_path_factory.mktemp("model"), positions=128))


@pytest.fixture
def run(tmp_path, monkeypatch, model, capsys):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("CLEAR_PEFT_CACHE", str(tmp_path / "cache"))
    keyword_table(120, seed=0, noise=0.3).to_csv("train.csv", index=False)
    keyword_table(30, seed=1).to_csv("test.csv", index=False)

    def example(name, *words):
        runpy.run_path(str(ROOT / "examples" / name))["main"](["--model", model, *words])
        return capsys.readouterr().out

    return example


def test_every_example_is_listed_and_run_here():
    names = {path.name for path in (ROOT / "examples").glob("*.py")}
    listed, here = (
        (ROOT / "examples" / "README.md").read_text(),
        (ROOT / "tests" / "test_example_scripts.py").read_text(),
    )
    for name in names:
        assert f"({name})" in listed
        assert f'"{name}"' in here


def test_audit_only(run):
    said = run("audit_only.py", "--data", "train.csv")
    found, table = pd.read_csv("label_issues.csv"), pd.read_csv("train.csv")
    wrong = table["label"] != table["clean_label"]
    assert wrong[found["row"].head(20)].mean() > 0.9
    assert f"of {len(table)} labels are more likely wrong than right" in said


def test_classify_csv(run):
    table = pd.read_csv("train.csv")
    table.loc[::3, "label"] = "  " + table["label"].str.upper()
    table.loc[:4, "label"] = ""
    table.loc[5, "label"] = "alone"
    table.to_csv("messy.csv", index=False)
    said = run("classify_csv.py", "--data", "messy.csv", "--epochs", "2", "--output", "classifier")
    assert "Left out: 5 rows without text or label, 1 rows of rare classes" in said
    assert "of 114 labels look wrong" in said


@pytest.mark.parametrize("form", ["folders", "column", "column of names"])
def test_classify_images(run, tmp_path, form):
    pixels, rng = tmp_path / "vit", np.random.default_rng(0)
    ViTImageProcessor(size={"height": 16, "width": 16}).save_pretrained(pixels)
    sizes = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 48}
    torch.manual_seed(0)
    config = ViTConfig(**sizes, image_size=16, patch_size=4, initializer_range=0.2)
    ViTForImageClassification(config).save_pretrained(pixels)
    wrong, photos = set(), []
    for i in range(90):
        truly, given = i % 3, (i + (i % 5 == 0)) % 3
        values = rng.integers(0, 80, size=(16, 16, 3))
        values[..., truly] += 150
        file = tmp_path / "photos" / ("red", "green", "blue")[given] / f"{i}.png"
        file.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(values.astype(np.uint8)).save(file)
        photos.append(file)
        if truly != given:
            wrong.add(f"{i}.png")
    data = "photos"
    if form != "folders":
        data = "photos.parquet"
        labels = ClassLabel(names=["blue", "green", "red"]) if form == "column" else Value("string")
        columns = {
            "image": [{"bytes": file.read_bytes(), "path": file.name} for file in photos],
            "label": [file.parent.name for file in photos],
        }
        table = Dataset.from_dict(columns).cast_column("image", ImageColumn()).cast_column("label", labels)
        table.to_parquet(data)
        shutil.rmtree("photos")
    said = run("classify_images.py", "--data", data, "--model", str(pixels), "--epochs", "3")
    issues = pd.read_csv("images/label_issues.csv")
    listed = {Path(file).name for file in issues["file"].head(len(wrong))}
    assert len(listed & wrong) > 0.8 * len(wrong)
    assert f"{issues['is_label_issue'].sum()} of 90 labels look wrong" in said
    assert (tmp_path / "images" / "adapter_model.safetensors").is_file()


def test_correct_and_train_again(run):
    said = run(
        "correct_and_train_again.py",
        "--data",
        "train.csv",
        "--test",
        "test.csv",
        "--rows",
        "20",
        "--epochs",
        "2",
    )
    assert said.count("Test accuracy") == 2


def test_custom_loop(run, tmp_path):
    said = run("custom_loop.py", "--data", "train.csv", "--epochs", "2", "--output", "adapter")
    losses = [float(line.rpartition(" ")[2]) for line in said.splitlines() if line.startswith("epoch")]
    assert losses[1] < losses[0]
    assert (tmp_path / "adapter" / "adapter_model.safetensors").is_file()


def test_sft_with_trl(run, model, tmp_path):
    pytest.importorskip("trl")
    causal = tmp_path / "causal"
    tokenizer = AutoTokenizer.from_pretrained(model)
    tokenizer.eos_token = "[SEP]"
    tokenizer.save_pretrained(causal)
    sizes = {"vocab_size": len(tokenizer), "n_positions": 256, "n_embd": 32, "n_layer": 2, "n_head": 2}
    config = GPT2Config(**sizes, bos_token_id=2, eos_token_id=3)
    GPT2LMHeadModel(config).save_pretrained(causal)
    table = pd.read_csv("train.csv")
    pairs = {
        "prompt": table["text"] + ": what is it about?",
        "completion": " " + table["clean_label"] + " and " + table["text"],
    }
    pd.DataFrame(pairs).to_csv("pairs.csv", index=False)
    said = run("sft_with_trl.py", "--data", "pairs.csv", "--encoder", model, "--model", str(causal))
    assert "of 120 responses look wrong" in said
    assert "Gates for 2 blocks" in said
    assert (tmp_path / "sft" / "adapter_model.safetensors").is_file()
    assert sorted(pd.read_csv(tmp_path / "sft" / "response_issues.csv")["row"]) == list(range(120))


def test_train_sharded(run, model):
    said = run("train_sharded.py", "--data", "train.csv", "--epochs", "3")
    assert "labels look wrong" in said
    found, table = pd.read_csv("sharded/label_issues.csv"), pd.read_csv("train.csv")
    assert json.loads(Path("sharded/labels.json").read_text()) == sorted(table["label"].unique())
    assert sorted(found["row"]) == list(range(len(table)))
    base = AutoModelForSequenceClassification.from_pretrained(
        model, num_labels=table["label"].nunique(), ignore_mismatched_sizes=True
    )
    adapter = PeftModel.from_pretrained(base, "sharded")
    assert any("lora_" in name for name, _ in adapter.named_parameters())
    checkpoints = {path: path.stat().st_mtime_ns for path in Path("sharded").glob("checkpoint-*/*")}
    run("train_sharded.py", "--data", "train.csv", "--epochs", "3", "--resume")
    assert checkpoints == {p: p.stat().st_mtime_ns for p in Path("sharded").glob("checkpoint-*/*")}
    pd.testing.assert_frame_equal(pd.read_csv("sharded/label_issues.csv"), found)
