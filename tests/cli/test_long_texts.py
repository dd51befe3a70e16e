"""Which tokens of long texts are read: in training, in what predicts afterwards, and in a scan."""

import json

import pandas as pd
import pytest
import torch
from peft import PeftModel
from transformers import AutoModelForSequenceClassification, AutoTokenizer

from clear_peft import CleaRClassifier
from tiny_text import keyword_table


def _buried(table, path, before=40):
    """What tells the class comes after so many words that do not."""
    table["text"] = " ".join(["the"] * before) + " " + table["text"]
    table.to_csv(path, index=False)
    return str(path)


@pytest.mark.filterwarnings("ignore:.* longer than --max-length")
def test_a_run_on_tails_reads_tails_ever_after(cli, place, tmp_path):
    data = _buried(keyword_table(96, seed=0), tmp_path / "train.csv")
    test = _buried(keyword_table(30, seed=1), tmp_path / "test.csv")
    run, predicted, merged = tmp_path / "run", tmp_path / "predicted.csv", tmp_path / "merged"
    words = place.options(run, data=data, epochs=4, batch_size=8, max_length=12, long_texts="tail")
    done = cli("train", *words)
    assert done.status == 0, done.err
    assert cli("predict", "--run", run, "--data", test, "--output", predicted).status == 0
    table = pd.read_csv(predicted)
    assert (table["predicted_label"] == table["label"]).mean() > 0.9
    names = json.loads((run / "adapter" / "labels.json").read_text(encoding="utf-8"))
    tokenizer = AutoTokenizer.from_pretrained(run / "adapter")
    assert tokenizer.truncation_side == "left"
    base = AutoModelForSequenceClassification.from_pretrained(
        place.model, num_labels=len(names), ignore_mismatched_sizes=True
    )
    model = PeftModel.from_pretrained(base, run / "adapter").eval()
    batch = tokenizer(
        table["text"].tolist(), truncation=True, max_length=12, padding=True, return_tensors="pt"
    )
    with torch.no_grad():
        plain = [names[i] for i in model(**batch).logits.argmax(dim=1)]
    assert plain == table["predicted_label"].tolist()
    assert "the last of longer texts" in (run / "adapter" / "README.md").read_text(encoding="utf-8")
    assert cli("export", "--run", run, "--output", merged).status == 0
    assert AutoTokenizer.from_pretrained(merged).truncation_side == "left"


def test_windows_are_not_for_training(cli, place, tmp_path):
    refused = cli("train", *place.options(tmp_path / "run", long_texts="windows"))
    assert refused.status == 2
    assert "choose from head, tail" in refused.err
    assert not (tmp_path / "run").exists()


@pytest.mark.filterwarnings("ignore:.* longer than --max-length")
def test_a_scan_sees_the_end_of_a_text_where_it_is_told_to(cli, place, tmp_path):
    data = _buried(keyword_table(90, seed=2, noise=0.1), tmp_path / "table.csv")
    right = {}
    for long_texts in ("head", "tail", "windows"):
        output = tmp_path / long_texts
        done = cli(
            *("scan", "--data", data, "--model", place.model, "--max-length", 12, "--no-cache"),
            *("--long-texts", long_texts, "--output", output),
        )
        assert done.status == 0, done.err
        table = pd.read_csv(data)
        issues = pd.read_csv(output / "label_issues.csv").set_index("row").sort_index()
        right[long_texts] = (issues["predicted_label"] == table["clean_label"]).mean()
        assert ("were cut" in done.err) == (long_texts != "windows")
    assert right["head"] < 0.6
    assert min(right["tail"], right["windows"]) > 0.9


@pytest.mark.filterwarnings("ignore:.* longer than --max-length")
def test_a_classifier_keeps_tails_when_it_is_saved(place, tmp_path):
    table = pd.read_csv(_buried(keyword_table(60, seed=3), tmp_path / "table.csv"))
    made = CleaRClassifier(
        place.model, long_texts="tail", max_length=12, epochs=3, batch_size=8, learning_rate=0.01
    ).fit(table["text"], table["label"])
    assert (made.predict(table["text"]) == table["label"]).mean() > 0.9
    made.save(tmp_path / "saved")
    loaded = CleaRClassifier.load(tmp_path / "saved")
    assert loaded.long_texts == "tail"
    assert (loaded.predict_proba(table["text"]) == made.predict_proba(table["text"])).all()
