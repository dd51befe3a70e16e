"""``predict`` and ``evaluate`` on a finished run."""

import json
import shutil
from dataclasses import replace
from pathlib import Path

import pandas as pd
import pytest

from clear_peft.data import read_table, write_table
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
    assert json.loads(end.out) == {**measured, "examples": 30}


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
