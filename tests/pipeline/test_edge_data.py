"""Data at the edge of what makes sense: nothing breaks, whatever the method."""

import json

import numpy as np
import pandas as pd
import pytest

from clear_peft.pipeline import evaluate, train
from clear_peft.run_folder import RunConfig
from tiny_text import keyword_table, tiny_checkpoint

METHODS = [("clear", "recommended"), ("clear", "paper"), ("plain", "recommended")]


def _others(labels, seed):
    """Another label for each."""
    names = np.unique(labels)
    shift = np.random.default_rng(seed).integers(1, len(names), len(labels))
    return names[(np.searchsorted(names, labels) + shift) % len(names)]


def _two_classes(rows, seed):
    table = keyword_table(2 * rows, seed=seed)
    return table[table["label"] != "weaving"].head(rows)


def _imbalanced(seed):
    table = keyword_table(120, seed=seed)
    rare = table[table["label"] != "farming"].groupby("label").head(2)
    return pd.concat([table[table["label"] == "farming"], rare])


def _all_wrong(table, seed):
    return table.assign(label=_others(table["clean_label"].to_numpy(), seed))


def _one_text(seed):
    return keyword_table(40, seed=seed).assign(text="wheat and barley")


def _but_two(seed):
    return pd.DataFrame({"text": "wheat", "label": ["a"] * 30 + ["b"] * 2, "clean_label": "a"})


def _unknown(seed):
    return keyword_table(40, seed=seed).assign(text=[f"zz{i}" for i in range(40)])


# of a seed; benchmarks/edge_data.py compares clean routing with plain PEFT on them
TABLES = {
    "no noise": lambda seed: keyword_table(60, seed=seed),
    "20 rows": lambda seed: keyword_table(20, seed=seed, noise=0.2),
    "20 rows of two classes": lambda seed: _two_classes(20, seed),
    "two classes, all wrong": lambda seed: _all_wrong(_two_classes(40, seed), seed),
    "two rare classes": _imbalanced,
    "one text": _one_text,
    "one text, of one class but for two rows": _but_two,
    "all wrong": lambda seed: _all_wrong(keyword_table(60, seed=seed), seed),
    "labels at random": lambda seed: keyword_table(60, seed=seed, noise=1.0),
    "no known word": _unknown,
}


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return str(tiny_checkpoint(tmp_path_factory.mktemp("edge") / "model"))


@pytest.mark.parametrize(("method", "preset"), METHODS)
@pytest.mark.parametrize("kind", TABLES)
def test_nothing_breaks(tmp_path, model, kind, method, preset):
    table = TABLES[kind](0)
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
