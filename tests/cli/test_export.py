"""A run as one model of plain transformers."""

import json

import numpy as np
import pandas as pd
import pytest
import torch
from peft import LoraModel
from scipy.special import softmax
from transformers import AutoModelForSequenceClassification, AutoTokenizer, pipeline

from clear_peft.pipeline import onnx_model


@pytest.mark.parametrize(("method", "peft"), [("clear", "lora"), ("full", "lora")])
def test_plain_transformers_predicts_what_the_run_predicts(cli, finished, place, tmp_path, method, peft):
    run, model = finished(method, peft), tmp_path / "model"
    done = cli("export", "--run", run, "--output", model, "--format", "json")
    assert done.status == 0, done.err
    assert json.loads(done.out)["largest_difference"] < 1e-4
    predicted = tmp_path / "predicted.csv"
    assert cli("predict", "--run", run, "--data", place.test, "--output", predicted).status == 0
    classify = pipeline("text-classification", model=str(model), device="cpu")
    texts = pd.read_csv(place.test)["text"].tolist()
    said = [one["label"] for one in classify(texts, truncation=True, max_length=32)]
    assert said == pd.read_csv(predicted)["predicted_label"].tolist()


@pytest.mark.parametrize("peft", ["adapter", "prefix", "apt", "bitfit"])
def test_what_is_no_weight_of_the_model_is_not_merged(cli, finished, tmp_path, peft):
    refused = cli("export", "--run", finished("clear", peft), "--output", tmp_path / "model")
    assert refused.status == 2
    assert f"{peft} cannot be merged" in refused.err
    assert list(tmp_path.iterdir()) == []


def test_only_an_earlier_export_is_replaced(cli, finished, tmp_path):
    words = ["export", "--run", finished("clear", "lora"), "--output", tmp_path / "model"]
    assert cli(*words).status == 0
    again = cli(*words)
    assert again.status == 2
    assert "--overwrite" in again.err
    weights = tmp_path / "model" / "model.safetensors"
    weights.unlink()
    assert cli(*words, "--overwrite").status == 0
    assert weights.is_file()
    (tmp_path / "model" / ".git").mkdir()
    kept = cli(*words, "--overwrite")
    assert kept.status == 2
    assert "holds '.git' beside an exported model" in kept.err
    assert (tmp_path / "model" / ".git").is_dir()
    other = tmp_path / "other"
    other.mkdir()
    (other / "thesis.tex").touch()
    refused = cli(*words[:-1], other, "--overwrite")
    assert refused.status == 2
    assert "no exported model" in refused.err
    assert [entry.name for entry in other.iterdir()] == ["thesis.tex"]


def test_a_merge_that_changes_the_model_is_refused(cli, finished, tmp_path, monkeypatch):
    merge = LoraModel.merge_and_unload

    def wrong(self, *args, **kwargs):
        model = merge(self, *args, **kwargs)
        with torch.no_grad():
            model.classifier.bias += 1
        return model

    monkeypatch.setattr(LoraModel, "merge_and_unload", wrong)
    refused = cli("export", "--run", finished("clear", "lora"), "--output", tmp_path / "model")
    assert refused.status == 2
    assert "its logits differ by 1" in refused.err
    assert not (tmp_path / "model").exists()


def test_names_stand_in_the_config(cli, finished, tmp_path):
    assert cli("export", "--run", finished("clear", "lora"), "--output", tmp_path / "model").status == 0
    config = AutoModelForSequenceClassification.from_pretrained(tmp_path / "model").config
    names = json.loads((tmp_path / "model" / "labels.json").read_text(encoding="utf-8"))
    assert [config.id2label[i] for i in range(len(names))] == names


def _needs_onnx():
    for package in ("onnx", "onnxscript", "onnxruntime"):
        pytest.importorskip(package, reason="needs the extra onnx")


def test_onnxruntime_predicts_what_the_run_predicts(cli, finished, place, tmp_path):
    _needs_onnx()
    from onnxruntime import InferenceSession

    run, model = finished("clear", "lora"), tmp_path / "model"
    done = cli("export", "--run", run, "--output", model, "--onnx", "--format", "json")
    assert done.status == 0, done.err
    assert json.loads(done.out)["onnx_relative_difference"] < 1e-5
    predicted = tmp_path / "predicted.csv"
    assert cli("predict", "--run", run, "--data", place.test, "--output", predicted).status == 0
    names = json.loads((model / "labels.json").read_text(encoding="utf-8"))
    tokenizer, session = AutoTokenizer.from_pretrained(model), InferenceSession(model / "model.onnx")
    texts = pd.read_csv(place.test)["text"].tolist()
    batch = tokenizer(texts, padding=True, truncation=True, max_length=32, return_tensors="np")
    (logits,) = session.run(["logits"], dict(batch))
    assert [names[i] for i in logits.argmax(axis=1)] == pd.read_csv(predicted)["predicted_label"].tolist()
    probability = softmax(logits, axis=1).max(axis=1)
    # predict multiplies in bf16 where that is faster
    np.testing.assert_allclose(probability, pd.read_csv(predicted)["confidence"], atol=1e-2)


def test_onnx_without_its_packages_is_one_sentence(cli, finished, tmp_path, monkeypatch):
    monkeypatch.setattr(onnx_model, "find_spec", lambda name: None if name == "onnxruntime" else name)
    refused = cli("export", "--run", finished("clear", "lora"), "--output", tmp_path / "model", "--onnx")
    assert refused.status == 2
    assert "ONNX needs onnxruntime: pip install 'onnx>=1.19' 'onnxruntime" in refused.err
    assert list(tmp_path.iterdir()) == []


def test_an_onnx_model_that_is_another_one_is_refused(cli, finished, tmp_path, monkeypatch):
    monkeypatch.setattr(onnx_model, "find_spec", lambda name: name)
    monkeypatch.setattr(torch.onnx, "export", lambda *_, **__: None)
    monkeypatch.setattr(onnx_model, "_difference", lambda *_: 0.02)
    refused = cli("export", "--run", finished("clear", "lora"), "--output", tmp_path / "model", "--onnx")
    assert refused.status == 2
    assert "The ONNX model is another one: its logits differ by 0.02 of the largest" in refused.err
    assert list(tmp_path.iterdir()) == []


def test_what_torch_cannot_export_is_refused(cli, finished, tmp_path, monkeypatch):
    def fails(*_, **__):
        raise torch.onnx.OnnxExporterError("no")

    monkeypatch.setattr(onnx_model, "find_spec", lambda name: name)
    monkeypatch.setattr(torch.onnx, "export", fails)
    refused = cli("export", "--run", finished("clear", "lora"), "--output", tmp_path / "model", "--onnx")
    assert refused.status == 2
    assert "torch cannot export BertForSequenceClassification" in refused.err
    assert list(tmp_path.iterdir()) == []
