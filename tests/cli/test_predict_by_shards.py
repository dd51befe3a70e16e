"""``predict --engine ray`` with the shards in this process, without Ray."""

import json
import shutil
import warnings
from contextlib import nullcontext

import pandas as pd
import pyarrow.parquet as pq
import pytest

from clear_peft.data import LabelNames, read_table
from clear_peft.errors import RunFailedError
from clear_peft.pipeline import big_table, ray_predict

SHARD_ROWS = 8


@pytest.fixture
def shards(monkeypatch):
    """Settings of the stand-in for Ray: the number of shards after which it dies."""
    settings = {"dies_after": None}

    def by_models(shards, load, **_):
        work = load()
        for done, shard in enumerate(shards):
            if done == settings["dies_after"]:
                raise RunFailedError("The power is gone.")
            with warnings.catch_warnings(action="ignore"):  # as Ray shows none of a worker
                found = json.dumps(work(shard))
            yield shard, json.loads(found)

    monkeypatch.setattr(big_table, "SHARD_ROWS", SHARD_ROWS)
    monkeypatch.setattr(ray_predict, "cluster", lambda *_: nullcontext())
    monkeypatch.setattr(ray_predict, "by_models", by_models)
    # in half precision, what a text is padded to changes the third decimal
    monkeypatch.setattr("clear_peft.pipeline.inference.bf16_pays", lambda _: False)
    return settings


@pytest.fixture
def tables(place, tmp_path):
    """Writes the test table in two files, the texts of some rows replaced."""

    def write(texts=None):
        table = read_table(place.test)[["text", "label"]]
        for row, text in (texts or {}).items():
            table.loc[row, "text"] = text
        folder = tmp_path / "data"
        folder.mkdir()
        table[:20].to_parquet(folder / "a.parquet", index=False)
        table[20:].to_parquet(folder / "b.parquet", index=False)
        return folder

    return write


def predicted(folder):
    return pd.concat([read_table(path) for path in sorted(folder.glob("*.parquet"))], ignore_index=True)


def test_predictions_of_another_model_are_not_gone_on_with(cli, place, shards, tables, tmp_path):
    run, data, out = tmp_path / "run", tables(), tmp_path / "out"
    train = ["train", *place.options(run, method="plain", epochs=1, overwrite=True)]
    assert cli(*train).status == 0
    words = ["predict", "--run", run, "--data", data, "--output", out, "--engine", "ray"]
    shards["dies_after"] = 2
    assert cli(*words).status != 0
    assert len(list(out.glob("part-*"))) == 2
    shards["dies_after"] = None
    assert cli(*train).status == 0
    refused = cli(*words)
    assert refused.status == 2
    assert "was begun with other values of 'model of the run': give another" in " ".join(refused.err.split())
    assert cli(*train, "--seed", 1).status == 0
    refused = cli(*words)
    assert "other values of 'model of the run', 'config.yaml': give" in " ".join(refused.err.split())
    assert cli(*words, "--overwrite").status == 0
    assert len(predicted(out)) == 30


def test_predictions_of_the_same_model_are_gone_on_with(cli, finished, shards, tables, tmp_path):
    out = tmp_path / "out"
    words = ["predict", "--run", finished("plain", "lora"), "--data", tables(), "--output", out]
    words += ["--engine", "ray"]
    shards["dies_after"] = 2
    assert cli(*words).status != 0
    times = {path: path.stat().st_mtime_ns for path in out.glob("part-*")}
    assert len(times) == 2
    shards["dies_after"] = None
    assert cli(*words).status == 0
    assert all(path.stat().st_mtime_ns == time for path, time in times.items())
    assert len(predicted(out)) == 30


@pytest.mark.parametrize(
    "more",
    [["--top", 2, "--probabilities"], ["--text-column", "text", "--text-column", "label"]],
    ids=["columns", "pairs"],
)
def test_a_shard_of_empty_texts_is_written_as_predict_does(cli, finished, shards, tables, tmp_path, more):
    data = tables(dict.fromkeys(range(SHARD_ROWS, 2 * SHARD_ROWS), "") | {3: None})
    words = ["predict", "--run", finished("plain", "lora"), "--data", data, *more]
    assert cli(*words, "--output", tmp_path / "whole.parquet").status == 0
    done = cli(*words, "--output", tmp_path / "out", "--engine", "ray")
    assert done.status == 0
    assert ("the text is empty in 9 rows" in done.err) == ("--top" in more)
    whole = read_table(tmp_path / "whole.parquet")
    pd.testing.assert_frame_equal(predicted(tmp_path / "out"), whole, atol=2e-6)
    schemas = [pq.read_schema(path) for path in (tmp_path / "out").glob("*.parquet")]
    assert len(schemas) == 5
    assert all(schema.equals(pq.read_schema(tmp_path / "whole.parquet")) for schema in schemas)


def test_rows_are_named_as_they_stand_in_the_file(cli, finished, shards, tables, tmp_path):
    words = ["predict", "--run", finished("plain", "lora"), "--data", tables({18: "a\0b"})]
    done = cli(*words, "--output", tmp_path / "out", "--engine", "ray")
    assert done.status == 2
    said = "a.parquet', column 'text': the text holds a NUL character in 1 row (18;"
    assert said in " ".join(done.err.split())


def test_texts_that_are_cut_are_counted_once_over_all_shards(cli, finished, shards, tables, tmp_path):
    data = tables({1: "the old " * 40, 19: "a very " * 40, 4: ""})
    words = ["predict", "--run", finished("plain", "lora"), "--data", data]
    notes = [
        " ".join(cli(*words, "--output", tmp_path / output, *more).err.split())
        for output, more in (("whole.parquet", []), ("out", ["--engine", "ray"]))
    ]
    assert all(note.count("2 of 29 texts are longer than --max-length, 32 tokens") == 1 for note in notes)
    assert [note.count("were cut") for note in notes] == [1, 1]


def test_several_labels_a_row_are_as_predict_writes_them(cli, finished, shards, tables, tmp_path):
    run = shutil.copytree(finished("plain", "lora"), tmp_path / "run")
    LabelNames(("farm;ing", "sailing", "weaving"), several=True).save(run / "adapter" / "labels.json")
    words = ["predict", "--run", run, "--data", tables(dict.fromkeys(range(20, 28), "")), "--probabilities"]
    for output, more in (("whole.parquet", []), ("out", ["--engine", "ray"])):
        done = cli(*words, "--output", tmp_path / output, *more)
        assert done.status == 0
        assert " ".join(done.err.split()).count("';' stands between predicted labels") == 1
    whole = read_table(tmp_path / "whole.parquet")
    pd.testing.assert_frame_equal(predicted(tmp_path / "out"), whole, atol=2e-6)
