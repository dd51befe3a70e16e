"""``train``, ``predict``, ``evaluate`` and what follows, on tables with several labels a row."""

import json
import re
import shutil

import numpy as np
import pandas as pd
import pytest
from sklearn.metrics import (
    accuracy_score,
    average_precision_score,
    f1_score,
    precision_recall_fscore_support,
)

from clear_peft.data import read_table
from clear_peft.pipeline import train
from clear_peft.pipeline.metrics import label_set_evaluation
from clear_peft.pipeline.progress import Silent
from clear_peft.pipeline.splits import read_tables
from clear_peft.run_folder import RunConfig
from tiny_text import KEYWORDS

NAMES = list(KEYWORDS)
FORMS = {
    "cells.csv": {"label_separator": "|"},
    "columns.csv": {"label_columns": ",".join(NAMES)},
    "lists.jsonl": {},
}
OF_SCAN = ["row", "text", "label", "given", "suggested", "clean_probability", "label_quality"]
OF_SCAN += ["is_label_issue", "row_clean_probability", "group"]


def label_sets(rows, seed, noise=0.0):
    """Texts with keywords of each of their labels, and which labels they are given, (N, 3) bool."""
    rng = np.random.default_rng(seed)
    true = rng.random((rows, len(NAMES))) < 0.4
    true[0] = False
    texts = []
    for row in true:
        of_labels = [rng.choice(KEYWORDS[name], 2) for name, has in zip(NAMES, row, strict=True) if has]
        words = np.concatenate([*of_labels, rng.choice(("the", "a", "of", "old", "new", "small"), 4)])
        texts.append(" ".join(rng.permutation(words)))
    return texts, true ^ (rng.random(true.shape) < noise)


def written(folder, name, texts, given):
    """A table in the form that its name says."""
    lists = [[label for label, has in zip(NAMES, row, strict=True) if has] for row in given]
    frame = pd.DataFrame({"text": texts})
    if name == "lists.jsonl":
        frame.assign(label=lists).to_json(folder / name, orient="records", lines=True)
    elif name == "columns.csv":
        frame[NAMES] = given.astype(int)
        frame.to_csv(folder / name, index=False)
    else:
        cells = ["|".join(labels) for labels in lists]
        frame.assign(label=cells, id=[f"no. {i}" for i in range(len(cells))]).to_csv(
            folder / name, index=False
        )
    return folder / name


@pytest.fixture(scope="module")
def tables(tmp_path_factory):
    """A folder for each form, with the same training table; the test table is beside it."""
    folder = tmp_path_factory.mktemp("tables")
    for name in FORMS:
        written(folder, name, *label_sets(72, seed=0, noise=0.15))
        (folder / "test").mkdir(exist_ok=True)
        written(folder / "test", name, *label_sets(30, seed=1))
    return folder


@pytest.fixture
def run_on(finished, tables):
    """Run folders that tests may read, but not change, each made when it is first asked for."""

    def run(name, method="clear"):
        columns = {"clean_label_column": None, "id_column": "id" if name == "cells.csv" else None}
        where = {"data": tables / name, "test": tables / "test" / name}
        return finished(method, "lora", **columns, **where, **FORMS[name])

    return run


@pytest.mark.parametrize(
    ("name", "method"), [("cells.csv", "clear"), ("lists.jsonl", "plain"), ("columns.csv", "full")]
)
def test_the_run_folder_holds_what_is_promised(run_on, tables, name, method):
    run = run_on(name, method)
    assert {path.name for path in run.iterdir() if not path.name.startswith("checkpoint-")} == {
        *("adapter", "config.yaml", "data.sha256", "epochs.json", "label_issues.csv", "metrics.json")
    }
    metrics = json.loads((run / "metrics.json").read_text())
    figures = {"micro_f1", "macro_f1", "mean_average_precision"}
    assert set(metrics["test"]) == set(metrics["validation"]) == figures
    assert metrics["several_labels"]
    assert {"validation_micro_f1", "validation_loss", "train_loss"} <= set(metrics["epochs"][-1])
    assert {"wrong_estimate", "missing_estimate", "labels", "confused"} <= set(metrics)
    if method == "clear":
        assert metrics["test"]["mean_average_precision"] > 0.8, "it learns"
    assert json.loads((run / "adapter" / "labels.json").read_text()) == {
        "problem_type": "multi_label_classification",
        "labels": NAMES,
    }
    issues = pd.read_csv(run / "label_issues.csv")
    assert list(issues.columns) == OF_SCAN + (["id"] if name == "cells.csv" else [])
    if "id" in issues:
        assert issues["id"].tolist() == [f"no. {row}" for row in issues["row"]]
    texts, given = label_sets(72, seed=0, noise=0.15)
    listed = issues[issues["given"]]
    found = np.zeros_like(given)
    found[listed["row"], listed["label"].map(NAMES.index)] = True
    np.testing.assert_array_equal(found, given)
    assert issues["text"].tolist() == [texts[row] for row in issues["row"]]


def test_all_forms_of_a_table_are_one(place, tables, tmp_path):
    digests = set()
    for name, form in FORMS.items():
        columns = {key: value.split(",") if key == "label_columns" else value for key, value in form.items()}
        config = RunConfig(model=place.model, data=str(tables / name), output=str(tmp_path), **columns)
        read = read_tables(config)
        digests.add(read.digest)
    assert len(digests) == 1
    assert read.names.several
    # as many as are to be held out, and of each label
    assert len(read.validation) == 7
    assert read.validation.labels.any(axis=0).all()


def test_evaluate_has_the_figures_of_scikit_learn(cli, run_on, tables, tmp_path):
    run, data = run_on("cells.csv"), tables / "test" / "cells.csv"
    end = cli("evaluate", "--run", run, "--data", data, "--format", "json")
    assert end.status == 0, end.err
    scores = json.loads(end.out)
    output = tmp_path / "predicted.csv"
    words = ("--run", run, "--data", data, "--output", output, "--probabilities")
    assert cli("predict", *words).status == 0
    table = pd.read_csv(output, keep_default_na=False)
    new = ["predicted_labels", *(f"probability_{name}" for name in NAMES)]
    assert list(table.columns) == ["text", "label", "id", *new]
    truth = np.array([[name in cell.split("|") for name in NAMES] for cell in table["label"]])
    said = np.array([[name in cell.split("|") for name in NAMES] for cell in table["predicted_labels"]])
    probabilities = table[[f"probability_{name}" for name in NAMES]].to_numpy()
    np.testing.assert_array_equal(said, probabilities > 0.5)
    expected = {
        "micro_f1": f1_score(truth, said, average="micro"),
        "macro_f1": f1_score(truth, said, average="macro"),
        "mean_average_precision": average_precision_score(truth, probabilities),
        "exact_match": accuracy_score(truth, said),
        "examples": 30,
    }
    assert {name: scores[name] for name in expected} == pytest.approx(expected)
    measured = json.loads((run / "metrics.json").read_text())["test"]
    assert {name: scores[name] for name in measured} == measured
    of_labels = np.transpose(precision_recall_fscore_support(truth, said, average=None, zero_division=0))
    assert [one["label"] for one in scores["classes"]] == NAMES
    for one, figures in zip(scores["classes"], of_labels, strict=True):
        assert [one[name] for name in ("precision", "recall", "f1", "support")] == pytest.approx(figures)
    assert "all labels right" in cli("evaluate", "--run", run, "--data", data).out


def test_a_label_that_no_row_has_is_left_out_of_means():
    logits = np.random.default_rng(0).normal(size=(20, 2))
    labels = np.stack([logits[:, 0] > 0.2, np.zeros(20, bool)], axis=1)
    scores = label_set_evaluation(logits, labels, ["a", "b"])
    assert scores["mean_average_precision"] == 1
    assert scores["macro_f1"] == pytest.approx(f1_score(labels[:, 0], logits[:, 0] > 0))
    assert scores["classes"][1]["average_precision"] is None
    assert len(label_set_evaluation(logits[:, :1], labels[:, :1], ["a"])["classes"]) == 1


@pytest.mark.parametrize(("name", "method"), [("cells.csv", "clear"), ("columns.csv", "full")])
def test_the_code_of_the_model_card_says_what_predict_says(
    cli, run_on, place, tables, tmp_path, name, method
):
    run, output = run_on(name, method), tmp_path / "out.jsonl"
    data = tables / "test" / name
    assert cli("predict", "--run", run, "--data", data, "--output", output).status == 0
    table = read_table(output)
    card = (run / "adapter" / "README.md").read_text()
    assert "micro-F1" in card
    assert "accuracy" not in card
    code = re.search(r"```python\n(.*?)```", card, re.DOTALL)[1]
    code = code.replace("path/to/this/folder", str(run / "adapter")).replace(
        "path/to/the/base/model", place.model
    )
    said = []
    texts = table["text"].tolist()
    code = code.replace('["a text"]', "texts").replace("print(", "said.extend(")
    exec(code, {"texts": texts, "said": said})
    separator = "|" if name == "cells.csv" else ";"
    theirs = [separator.join(labels) for labels in said]
    assert np.mean([a == b for a, b in zip(theirs, table["predicted_labels"], strict=True)]) > 0.9, "but bf16"
    merged = tmp_path / "merged"
    assert cli("export", "--run", run, "--output", merged).status == 0
    assert json.loads((merged / "config.json").read_text())["problem_type"] == "multi_label_classification"


class _Interrupt(Silent):
    """Ctrl-C when an epoch is over."""

    def epoch(self, figures):
        if figures["epoch"] == 2:
            raise KeyboardInterrupt


def test_a_resumed_run_ends_bit_for_bit_as_another(place, tables, tmp_path):
    def config(name):
        return RunConfig(
            model=place.model,
            data=str(tables / "lists.jsonl"),
            output=str(tmp_path / name),
            epochs=3,
            batch_size=16,
            max_length=32,
            learning_rate=0.01,
        )

    train(config("a"))
    with pytest.raises(KeyboardInterrupt):
        train(config("b"), reporter=_Interrupt())
    assert not (tmp_path / "b" / "metrics.json").exists()
    train(config("b"), resume=True)
    for file in ("label_issues.csv", "adapter/adapter_model.safetensors"):
        assert (tmp_path / "a" / file).read_bytes() == (tmp_path / "b" / file).read_bytes()
    metrics = [json.loads((tmp_path / name / "metrics.json").read_text()) for name in "ab"]
    for values in metrics:
        del values["train_seconds"], values["peak_memory_bytes"]
    assert metrics[0] == metrics[1]


@pytest.mark.parametrize(
    ("name", "options", "expected"),
    [
        ("cells.csv", {"method": "gce"}, "method is 'gce', which is for tables with one label a row: choose"),
        ("lists.jsonl", {"method": "cleanlab"}, "choose from clear, plain, early_stopping, full, full_early"),
        ("columns.csv", {"preset": "paper"}, "preset is 'paper', which is for tables with one label a row"),
        ("cells.csv", {"class_weights": "balanced"}, "class_weights is 'balanced', which is for"),
        ("cells.csv", {"select_by": "accuracy"}, "select_by is 'accuracy', which is for"),
        ("cells.csv", {"opinion_column": "rule"}, "--opinion-column is for tables with one label a row"),
        ("cells.csv", {"verified": "x.csv"}, "--verified is for tables with one label a row: leave it out"),
        ("cells.csv", {"clean_label_column": "text2"}, "--clean-label-column is for tables with one label"),
        ("lists.jsonl", {"unlabelled": "NA"}, "--unlabelled is for tables with one label a row"),
        ("cells.csv", {"label_separator": ""}, "--label-separator is empty"),
        ("columns.csv", {"label_separator": ";"}, "are two ways to give labels: choose one"),
        ("columns.csv", {"label_columns": "farming,text"}, "cannot be both the text and the label column"),
        ("columns.csv", {"label_columns": None}, "scan and train read them by --label-columns"),
        ("columns.csv", {"normalize_labels": True}, "--normalize-labels joins names in cells"),
        ("lists.jsonl", {"peft": "metapeft"}, "rosa, metapeft and glora are trained with one label a row"),
        ("lists.jsonl", {"test": "cells.csv"}, "is no list"),
    ],
)
def test_what_does_not_fit_is_refused_in_a_sentence(cli, place, tables, tmp_path, name, options, expected):
    options = {**FORMS[name], **options}
    if "test" in options:
        options["test"] = tables / options["test"]
    end = cli("train", *place.options(tmp_path / "run", data=tables / name, **options))
    assert end.status == 2, end.err
    assert expected in " ".join(end.err.split())
    assert not (tmp_path / "run").exists()


def test_a_figure_of_several_labels_is_refused_of_one(cli, place, tmp_path):
    end = cli("train", *place.options(tmp_path / "run", select_by="micro_f1"))
    assert end.status == 2
    assert (
        "select_by is 'micro_f1', which is for tables with several labels a row: choose accuracy" in end.err
    )


@pytest.mark.parametrize(
    ("command", "expected"),
    [
        (("audit", "--run"), "a run of several labels a row, of which there is no audit and no report"),
        (("report", "--run"), "a run of several labels a row, of which there is no audit and no report"),
        (("predict", "--top", 2, "--data", "DATA", "--output", "OUT", "--run"), "top is 2, which is for one"),
        (("evaluate", "--label-column", "x", "--data", "DATA", "--run"), "leave --label-column out"),
    ],
)
def test_commands_for_one_label_a_row_are_refused(cli, run_on, tables, tmp_path, command, expected):
    run, out = run_on("columns.csv", "full"), tmp_path / "out.csv"
    places = {"DATA": tables / "test" / "columns.csv", "OUT": out}
    end = cli(*(places.get(word, word) for word in command), run)
    assert end.status == 2
    assert expected in end.err
    assert not out.exists()
    assert not (run / "report.html").exists()


def test_rows_with_labels_that_the_run_does_not_know(cli, run_on, tables, tmp_path):
    run = run_on("cells.csv")
    table = pd.read_csv(tables / "test" / "cells.csv", keep_default_na=False)
    table.loc[3, "label"] += "|beekeeping"
    table.to_csv(tmp_path / "test.csv", index=False)
    end = cli("evaluate", "--run", run, "--data", tmp_path / "test.csv", "--format", "json")
    assert "no model can predict classes that the training table lacks ('beekeeping')" in end.err
    assert json.loads(end.out)["examples"] == 29
    table.loc[4, "label"] = "Farmings"
    table.to_csv(tmp_path / "test.csv", index=False)
    end = cli("evaluate", "--run", run, "--data", tmp_path / "test.csv")
    assert (end.status, "did you mean 'farming'?" in end.err) == (2, True)


def test_a_label_that_holds_the_separator_is_noted(cli, run_on, tables, tmp_path):
    run = shutil.copytree(run_on("lists.jsonl", "plain"), tmp_path / "run")
    path = run / "adapter" / "labels.json"
    path.write_text(path.read_text().replace("farming", "farm;ing"))
    words = ("--run", run, "--data", tables / "test" / "lists.jsonl", "--output", tmp_path / "out.csv")
    end = cli("predict", *words)
    assert end.status == 0
    assert "';' stands between predicted labels, and in 'farm;ing' too" in " ".join(end.err.split())
