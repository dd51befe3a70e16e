"""Decoders as classifiers: a text is read off its last token that is no padding, alone or in a batch."""

import json

import numpy as np
import pytest
import torch
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer, PreTrainedTokenizerFast

from clear_peft import CleaRClassifier
from clear_peft.data import LabelNames, load_examples
from clear_peft.pipeline import train
from clear_peft.pipeline.inference import load_run, logits_of
from clear_peft.pipeline.models import load_classifier, load_tokenizer
from clear_peft.run_folder import RunConfig
from pages import ROOT, blocks
from tiny_models import CONFIGS
from tiny_text import KEYWORDS, keyword_table

pytestmark = pytest.mark.filterwarnings("ignore::FutureWarning", "ignore::UserWarning")

END = "</s>"
NAMES = LabelNames(("farming", "sailing", "weaving"))
# of very unlike lengths, one with an unknown word at its end
TEXTS = [
    "wheat",
    "the old anchor and the great small rudder under a mast",
    "loom with yarn",
    "a keel nowhere",
]


def checkpoint(folder, architecture, *, pad=None, config_pad=None, side="left"):
    """A tiny random language model, as they come: without a padding token, or padded on the left."""
    words = ["<unk>", "<pad>", END, "the", "a", "of", "and", "old", "new", "with", "under", "great", "small"]
    words += [word for group in KEYWORDS.values() for word in group]
    core = Tokenizer(models.WordLevel({word: i for i, word in enumerate(words)}, unk_token="<unk>"))
    core.normalizer, core.pre_tokenizer = normalizers.Lowercase(), pre_tokenizers.Whitespace()
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=core,
        unk_token="<unk>",
        eos_token=END,
        pad_token=pad,
        padding_side=side,
        model_max_length=64,
        model_input_names=["input_ids", "attention_mask"],
    )
    options = {**CONFIGS[architecture], "pad_token_id": config_pad, "eos_token_id": 2, "bos_token_id": None}
    config = AutoConfig.for_model(architecture, **options, initializer_range=0.2)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        AutoModelForCausalLM.from_config(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return str(folder)


def one_by_one(model, tokenizer, texts):
    """Logits of texts without any padding, by plain transformers."""
    with torch.no_grad():
        rows = [model(**tokenizer([text], return_tensors="pt")).logits[0].float() for text in texts]
    return torch.stack(rows).numpy()


def examples_of(tmp_path, texts):
    (tmp_path / "texts.jsonl").write_text("".join(json.dumps({"text": text}) + "\n" for text in texts))
    return load_examples(str(tmp_path / "texts.jsonl"), label_column=None).examples


@pytest.fixture(autouse=True)
def _no_autocast(monkeypatch):
    for module in ("trainer.config", "pipeline.inference"):
        monkeypatch.setattr(f"clear_peft.{module}.bf16_pays", lambda device: False)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize(
    ("pad", "config_pad", "expected"),
    [
        (None, None, END),
        (None, 1, END),
        ("<pad>", None, "<pad>"),
        ("<pad>", 2, "<pad>"),
        ("<pad>", 1, "<pad>"),
    ],
)
@pytest.mark.parametrize("architecture", ["llama", "qwen3", "gpt2", "opt"])
def test_a_batch_gives_what_each_text_gives_alone(tmp_path, architecture, pad, config_pad, expected, dtype):
    if architecture == "opt" and config_pad is None:
        config_pad = 1  # OPT always has one
    name = checkpoint(tmp_path / "model", architecture, pad=pad, config_pad=config_pad)
    tokenizer = load_tokenizer(name)
    model = load_classifier(name, NAMES, tokenizer, dtype=dtype).eval()
    assert (tokenizer.pad_token, tokenizer.padding_side) == (expected, "right")
    assert model.config.pad_token_id == tokenizer.pad_token_id
    alone = one_by_one(model, tokenizer, TEXTS)
    assert np.abs(alone - alone[0]).max() > 0.05
    found = logits_of(model, tokenizer, examples_of(tmp_path, TEXTS), 32)
    np.testing.assert_allclose(found, alone, atol=1e-5 if dtype == "float32" else 0.05)


@pytest.fixture
def table():
    return keyword_table(60, seed=0, noise=0.1)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_a_run_saves_its_padding(tmp_path, table, dtype):
    name = checkpoint(tmp_path / "model", "llama")
    table.to_csv(tmp_path / "train.csv", index=False)
    options = {"epochs": 3, "max_length": 32, "batch_size": 8, "dtype": dtype}
    train(RunConfig(model=name, data=str(tmp_path / "train.csv"), output=str(tmp_path / "run"), **options))
    saved = AutoTokenizer.from_pretrained(tmp_path / "run" / "adapter")
    assert (saved.pad_token, saved.padding_side) == (END, "right")
    run = load_run(tmp_path / "run", device="cpu")
    alone = one_by_one(run.model, run.tokenizer, TEXTS)
    tolerance = 1e-4 if dtype == "float32" else 0.2
    np.testing.assert_allclose(run.logits(examples_of(tmp_path, TEXTS)), alone, atol=tolerance)


def test_the_code_of_the_docs_serves_batches(tmp_path, table, monkeypatch):
    monkeypatch.chdir(tmp_path)
    name = checkpoint(tmp_path / "model", "llama")
    table.to_csv("train.csv", index=False)
    options = {"epochs": 1, "max_length": 32, "batch_size": 8}
    train(RunConfig(model=name, data="train.csv", output="runs/news", **options))
    known = {}
    for code in blocks(ROOT / "docs" / "serving.md", "python")[:2]:
        exec(code, known)
    batch = known["tokenizer"](TEXTS, padding=True, return_tensors="pt")
    with torch.no_grad():
        alone = one_by_one(known["model"], known["tokenizer"], TEXTS)
        for model in (known["model"], known["auto"]):
            np.testing.assert_allclose(model(**batch).logits, alone, atol=1e-4)
    said = [one["label"] for one in known["classify"](TEXTS, batch_size=4)]
    assert said == [known["names"][i] for i in alone.argmax(axis=1)]


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_a_classifier_predicts_a_text_as_in_a_batch(tmp_path, table, dtype):
    name = checkpoint(tmp_path / "model", "llama")
    made = CleaRClassifier(name, epochs=3, max_length=32, batch_size=8, device="cpu", dtype=dtype)
    made.fit(table["text"], table["label"])
    alone = np.concatenate([made.predict_proba([text]) for text in TEXTS])
    tolerance = 1e-4 if dtype == "float32" else 0.03
    np.testing.assert_allclose(made.predict_proba(TEXTS), alone, atol=tolerance)
    made.save(tmp_path / "saved")
    again = CleaRClassifier.load(tmp_path / "saved", device="cpu")
    assert again.dtype == dtype
    np.testing.assert_array_equal(again.predict_proba(TEXTS), made.predict_proba(TEXTS))
