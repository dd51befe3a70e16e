"""``predict`` and ``evaluate`` on a finished run."""

import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from sklearn.metrics import classification_report, confusion_matrix

from clear_peft.data import read_table, write_table
from clear_peft.pipeline.metrics import evaluation
from clear_peft.run_folder import RunConfig


@pytest.mark.parametrize("ending", ["csv", "tsv", "jsonl", "parquet"])
def test_predict_adds_two_columns_in_every_format(cli, finished, tmp_path, place, ending):
    data, output = tmp_path / f"in.{ending}", tmp_path / f"out.{ending}"
    frame = read_table(place.test).assign(note=["007", ""] * 15)
    write_table(frame, data)
    end = cli(
        "predict", "--run", finished("clear", "lora"), "--data", data, "--output", output, "--format", "json"
    )
    assert end.status == 0
    assert json.loads(end.out) == {"rows": 30, "output": str(output)}
    assert end.err == ""
    predicted = read_table(output)
    assert list(predicted.columns) == [*frame.columns, "predicted_label", "confidence"]
    pd.testing.assert_frame_equal(
        predicted[frame.columns.tolist()], frame, check_dtype=False, check_column_type=False
    )
    assert set(predicted["predicted_label"]) <= {"farming", "sailing", "weaving"}
    assert pd.to_numeric(predicted["confidence"]).between(1 / 3, 1).all()


@pytest.mark.parametrize(
    ("method", "peft"),
    [("clear", "lora"), ("clear", "adapter"), ("clear", "prefix"), ("clear", "bitfit"), ("full", "lora")],
)
def test_evaluate_measures_what_train_measured(cli, finished, place, method, peft):
    run = finished(method, peft)
    end = cli("evaluate", "--run", run, "--data", place.test, "--format", "json")
    assert end.status == 0
    measured = json.loads((run / "metrics.json").read_text())["test"]
    scores = json.loads(end.out)
    assert {name: scores[name] for name in (*measured, "examples")} == {**measured, "examples": 30}


def test_evaluate_has_the_figures_of_scikit_learn(cli, finished, place, tmp_path):
    run, output = finished("clear", "lora"), tmp_path / "out.csv"
    scores = json.loads(cli("evaluate", "--run", run, "--data", place.train, "--format", "json").out)
    cli("predict", "--run", run, "--data", place.train, "--output", output)
    table = pd.read_csv(output)
    right, predicted = table["label"], table["predicted_label"]
    report = classification_report(right, predicted, output_dict=True, zero_division=0)
    assert scores["accuracy"] == pytest.approx(report["accuracy"])
    assert scores["macro_f1"] == pytest.approx(report["macro avg"]["f1-score"])
    for one in scores["classes"]:
        theirs = report[one["label"]]
        assert (one["precision"], one["recall"], one["f1"], one["support"]) == pytest.approx(
            (theirs["precision"], theirs["recall"], theirs["f1-score"], theirs["support"])
        )
    names = [one["label"] for one in scores["classes"]]
    assert scores["confusion_matrix"] == confusion_matrix(right, predicted, labels=names).tolist()


def test_evaluate_knows_classes_that_the_table_lacks(cli, finished, place, tmp_path):
    data = tmp_path / "some.csv"
    table = pd.read_csv(place.test)
    table[table["label"] != "weaving"].to_csv(data, index=False)
    end = cli("evaluate", "--run", finished("clear", "lora"), "--data", data, "--format", "json")
    *_, weaving = json.loads(end.out)["classes"]
    assert (weaving["label"], weaving["support"], weaving["recall"]) == ("weaving", 0, 0)


def test_evaluate_shows_a_person_every_class(cli, finished, place):
    said = cli("evaluate", "--run", finished("clear", "lora"), "--data", place.test).out
    assert all(word in said for word in ("Classes", "precision", "Confusion matrix", "2 sailing", "macro-F1"))
    assert "--format json" not in said


@pytest.mark.parametrize(("classes", "first"), [(12, "Classes"), (30, "The 20 classes of lowest F1")])
def test_of_many_classes_a_person_sees_the_worst(cli, monkeypatch, classes, first):
    labels = np.repeat(np.arange(classes), 2)
    predicted = np.where(np.arange(len(labels)) < 6, 1, labels)
    names = ["[bold]a\x1b[31m", *(f"class {i}" for i in range(1, classes))]
    scores = evaluation(predicted, labels, names)
    monkeypatch.setattr("clear_peft.pipeline.commands.evaluate", lambda *_, **__: scores)
    said = cli("evaluate", "--run", "r", "--data", "d").out
    assert first in said
    assert "[bold]a\\x1b[31m" in said
    assert "Largest confusions" in said
    assert "--format json has everything" in said
    assert ("class 2 " in said, "class 29" in said) == (True, False)


def _predicted(cli, run, data, output, *words):
    end = cli("predict", "--run", run, "--data", data, "--output", output, *words)
    assert (end.status, end.out) == (0, f"30 predictions: {output}\n")
    return pd.read_csv(output)


def test_predict_writes_the_probability_of_every_class(cli, finished, place, tmp_path):
    run, data = finished("clear", "lora"), tmp_path / "in.csv"
    table = pd.read_csv(place.test)
    table.loc[3, "text"] = None
    table = pd.concat([table, table.head(1)])
    table.to_csv(data, index=False)
    found = _predicted(cli, run, data, tmp_path / "out.csv", "--probabilities", "--top", 3)
    of_classes = ["probability_farming", "probability_sailing", "probability_weaving"]
    ranks = ["", "_2", "_3"]
    new = [f"{what}{rank}" for rank in ranks for what in ("predicted_label", "confidence")]
    assert list(found.columns) == [*table.columns, *new, *of_classes]
    assert found.loc[3, new + of_classes].isna().all()
    found = found.drop(index=3)
    probabilities = found[of_classes].to_numpy()
    np.testing.assert_allclose(probabilities.sum(axis=1), 1, atol=3e-6)
    confidences = found[[f"confidence{rank}" for rank in ranks]].to_numpy()
    np.testing.assert_array_equal(confidences, -np.sort(-probabilities, axis=1))
    for rank in ranks:
        names = "probability_" + found[f"predicted_label{rank}"]
        own = [row[name] for (_, row), name in zip(found.iterrows(), names, strict=True)]
        np.testing.assert_array_equal(own, found[f"confidence{rank}"])
    plain = _predicted(cli, run, data, tmp_path / "plain.csv").drop(index=3)
    pd.testing.assert_frame_equal(found[list(plain.columns)], plain)


@pytest.mark.parametrize("top", [0, 4, -1])
def test_predict_has_no_more_places_than_classes(cli, finished, place, tmp_path, top):
    output = tmp_path / "out.csv"
    words = ("--run", finished("clear", "lora"), "--data", place.test, "--output", output, "--top", top)
    end = cli("predict", *words)
    assert (end.status, f"top is {top}: give a whole number from 1 to 3" in end.err) == (2, True)
    assert not output.exists()


@pytest.mark.parametrize(
    ("column", "words"),
    [
        ("confidence", []),
        ("predicted_label_2", ["--top", 2]),
        ("probability_sailing", ["--probabilities"]),
    ],
)
def test_predict_refuses_columns_that_are_taken(cli, finished, place, tmp_path, column, words):
    data, output = tmp_path / "in.csv", tmp_path / "out.csv"
    pd.read_csv(place.test).assign(**{column: 1}).to_csv(data, index=False)
    end = cli("predict", "--run", finished("clear", "lora"), "--data", data, "--output", output, *words)
    assert (end.status, f"has '{column}' among its columns already: rename" in end.err) == (2, True)
    assert not output.exists()


def test_where_a_model_that_has_moved_is_to_be_written(cli, finished, place, tmp_path):
    run = shutil.copytree(finished("clear", "lora"), tmp_path / "run")
    replace(RunConfig.load(run), model=str(tmp_path / "gone")).save(run)
    end = cli("evaluate", "--run", run, "--data", place.test)
    assert end.status == 2
    assert f"if the model has moved, write its place into {run / 'config.yaml'}." in end.err
    replace(RunConfig.load(run), model=RunConfig.load(finished("clear", "lora")).model).save(run)
    assert cli("evaluate", "--run", run, "--data", place.test).status == 0


def test_what_is_predicted_from_is_never_overwritten(cli, finished, place, tmp_path):
    data = tmp_path / "in.csv"
    data.write_bytes(Path(place.test).read_bytes())
    options = ("--run", finished("clear", "lora"), "--data", data, "--output", data, "--overwrite")
    end = cli("predict", *options)
    assert (end.status, "is the input itself" in end.err) == (2, True)
    assert data.read_bytes() == Path(place.test).read_bytes()
    end = cli("predict", *options[:-2], tmp_path / ("a" * 300 + ".csv"))
    assert (end.status, "name too long" in end.err) == (2, True)


def test_predictions_are_never_overwritten_unasked(cli, finished, place, tmp_path):
    output = tmp_path / "out.csv"
    output.write_text("mine")
    words = ("predict", "--run", finished("clear", "lora"), "--data", place.test, "--output", output)
    assert cli(*words, "--format", "quiet").status == 2
    assert output.read_text() == "mine"
    end = cli(*words, "--format", "quiet", "--overwrite")
    assert (end.status, end.out, end.err) == (0, "", "")
    assert len(pd.read_csv(output)) == 30


@pytest.mark.parametrize("command", ["predict", "evaluate", "scan", "review", "train"])
def test_a_device_that_is_not_here_is_refused_before_anything_is_read(
    cli, finished, place, tmp_path, monkeypatch, command
):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    output = tmp_path / "out.csv"
    words = {
        "predict": ("--run", finished("clear", "lora"), "--output", output),
        "evaluate": ("--run", finished("clear", "lora")),
        "scan": ("--output", output),
        "review": ("--output", output, "--no-browser"),
        "train": ("--output", output, "--model", place.model),
    }
    end = cli(command, "--data", tmp_path / "nowhere.csv", "--device", "cuda", *words[command])
    assert (end.status, end.out) == (2, "")
    assert "device is 'cuda', and torch" in end.err.splitlines()[-1]
    assert not output.exists()
    end = cli(command, "--data", tmp_path / "nowhere.csv", "--device", "gpu", *words[command])
    assert (end.status, "no device 'gpu': choose from auto, cpu, cuda, mps, xpu" in end.err) == (2, True)


def test_the_cpu_may_be_named(cli, finished, place):
    words = ("evaluate", "--run", finished("clear", "lora"), "--data", place.test, "--format", "json")
    assert cli(*words, "--device", "cpu").out == cli(*words).out
