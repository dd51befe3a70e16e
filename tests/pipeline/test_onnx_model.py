"""ONNX models of the usual architectures, beside torch."""

import pytest
from transformers import AutoTokenizer

from clear_peft.pipeline import onnx_model
from clear_peft.pipeline.onnx_model import write_onnx
from tiny_models import tiny
from tiny_text import KEYWORDS, tiny_checkpoint

for package in ("onnx", "onnxscript", "onnxruntime"):
    pytest.importorskip(package, reason="needs the extra onnx")


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory):
    tokenizer = AutoTokenizer.from_pretrained(tiny_checkpoint(tmp_path_factory.mktemp("model")))
    tokenizer.model_input_names = ["input_ids", "attention_mask"]
    tokenizer.pad_token = "[UNK]"  # the models' padding id is 1
    return tokenizer


@pytest.mark.parametrize("architecture", ["roberta", "qwen3"])
def test_it_is_the_same_function_of_any_batch(architecture, tokenizer, tmp_path):
    model, _ = tiny(architecture)
    path, names = tmp_path / "model.onnx", list(KEYWORDS)
    assert write_onnx(model, tokenizer, names, 24, path) < 1e-4
    assert [entry.name for entry in tmp_path.iterdir()] == ["model.onnx"]
    other, _ = tiny(architecture, seed=1)
    assert onnx_model._difference(other, path, onnx_model._batches(tokenizer, names, 24)) > 0.1
