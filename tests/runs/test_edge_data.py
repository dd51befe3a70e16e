"""Data at the edge of what makes sense: nothing breaks, whatever the method."""

import json

import numpy as np
import pandas as pd
import pytest

from clear_peft.runs import RunConfig, evaluate, train
from tiny_text import keyword_table, tiny_checkpoint

METHODS = [("clear", "recommended"), ("clear", "paper"), ("plain", "recommended")]


def _others(labels, seed=0):
    """Another label for each."""
    names = np.unique(labels)
    shift = np.random.default_rng(seed).integers(1, len(names), len(labels))
    return names[(np.searchsorted(names, labels) + shift) % len(names)]


def _two_classes(rows):
    table = keyword_table(2 * rows, seed=0)
    return table[table["label"] != "weaving"].head(rows)


def _imbalanced():
    table = keyword_table(120, seed=0)
    rare = table[table["label"] != "farming"].groupby("label").head(2)
    return pd.concat([table[table["label"] == "farming"], rare])


def _all_wrong(table):
    return table.assign(label=_others(table["clean_label"].to_numpy()))


TABLES = {
    "no noise": lambda: keyword_table(60, seed=0),
    "20 rows": lambda: keyword_table(20, seed=0, noise=0.2),
    "20 rows of two classes": lambda: _two_classes(20),
    "two classes, all wrong": lambda: _all_wrong(_two_classes(40)),
    "two rare classes": _imbalanced,
    "one text": lambda: keyword_table(40, seed=0).assign(text="wheat and barley"),
    "one text, of one class but for two rows": lambda: pd.DataFrame(
        {"text": "wheat", "label": ["a"] * 30 + ["b"] * 2, "clean_label": "a"}
    ),
    "all wrong": lambda: _all_wrong(keyword_table(60, seed=0)),
    "labels at random": lambda: keyword_table(60, seed=0, noise=1.0),
    "no known word": lambda: keyword_table(40, seed=0).assign(text=[f"zz{i}" for i in range(40)]),
}


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return str(tiny_checkpoint(tmp_path_factory.mktemp("edge") / "model"))


@pytest.mark.parametrize(("method", "preset"), METHODS)
@pytest.mark.parametrize("kind", TABLES)
def test_nothing_breaks(tmp_path, model, kind, method, preset):
    table = TABLES[kind]()
    data = str(tmp_path / "train.csv")
    table.to_csv(data, index=False)
    run = tmp_path / "run"
    config = RunConfig(
        model=model,
        data=data,
        output=str(run),
        clean_label_column="clean_label",
        method=method,
        preset=preset,
        epochs=4,
        batch_size=8,
        max_length=16,
        learning_rate=0.01,
    )
    metrics = train(config)
    assert 0 <= metrics["noise_rate_estimate"] <= 1
    assert 1 <= metrics["selected_epoch"] <= metrics["epochs"][-1]["epoch"]
    json.dumps(metrics["epochs"])
    issues = pd.read_csv(run / "label_issues.csv")
    assert sorted(issues["row"]) == list(range(len(table)))
    assert issues["clean_probability"].between(0, 1).all()
    assert issues["label_quality"].between(0, 1).all()
    assert issues["text"].tolist() == table["text"].iloc[issues["row"]].tolist()
    assert evaluate(run, data)["examples"] == len(table)


def test_without_noise_clear_is_plain_training(tmp_path, model):
    data = str(tmp_path / "train.csv")
    keyword_table(90, seed=0).to_csv(data, index=False)
    weights = {}
    for method in ("clear", "plain"):
        run = tmp_path / method
        config = RunConfig(
            model=model,
            data=data,
            output=str(run),
            method=method,
            epochs=8,
            batch_size=8,
            max_length=16,
            learning_rate=0.01,
        )
        weights[method] = train(config)["validation"]
    assert weights["clear"]["accuracy"] >= weights["plain"]["accuracy"]
