"""A run as one model of plain transformers."""

import json

import pandas as pd
import pytest
import torch
from peft import LoraModel
from transformers import AutoModelForSequenceClassification, pipeline


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


@pytest.mark.parametrize("peft", ["adapter", "prefix", "bitfit"])
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
