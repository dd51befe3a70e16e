"""``bench run``, ``table`` and ``plot``."""

import json

import pytest

from bench_cells import cell, record
from clear_peft.bench import store
from clear_peft.bench.grid import shipped_grids

GRID = """
model: {model}
train: {{epochs: 1, max_length: 16}}
data:
  fields: {{train: train.csv, test: test.csv, clean_label_column: clean_label, train_rows: 60}}
methods:
  plain: {{}}
cells:
  - {{data: [fields], noise: [given], methods: [plain]}}
"""


@pytest.fixture
def results(tmp_path):
    path = tmp_path / "results.jsonl"
    for method in ("plain", "clear"):
        store.add(path, record(cell(method, noise="sym40"), 0.7))
    store.add(path, record(cell(), 0.9))
    return path


def test_help_names_the_grids(cli):
    listed = " ".join(cli("bench", "run", "--help").out.replace("│", " ").split())
    assert f"a grid that ships: {', '.join(shipped_grids())}." in listed


def test_run_then_table_then_run_again(cli, place, tmp_path):
    grid, results = tmp_path / "grid.yaml", tmp_path / "results.jsonl"
    grid.write_text(GRID.format(model=place.model))
    words = ("--grid", grid, "--results", results, "--data-dir", place.train.removesuffix("/train.csv"))
    end = cli("bench", "run", *words)
    assert end.status == 0, end.err
    assert end.err.startswith("[1/1] fields given lora plain seed 0: ")
    assert end.out.startswith("1 cells run, 0 of 1 still to run")
    (made,) = store.read(results).values()
    assert made["noise"]["rows"] == 60
    assert made["noise"]["rate"] > 0.1

    end = cli("bench", "run", *words, "--format", "json")
    assert json.loads(end.out) == {"cells": 1, "skipped": 1, "done": 0, "failed": {}, "results": str(results)}
    assert end.err == ""

    end = cli("bench", "table", "--results", results)
    assert "### fields, given (" in end.out


def test_a_cell_that_fails_is_a_failure(cli, place, tmp_path):
    grid = tmp_path / "grid.yaml"
    grid.write_text(GRID.format(model=tmp_path / "nowhere"))
    words = ("--grid", grid, "--results", tmp_path / "r.jsonl", "--format", "quiet")
    end = cli("bench", "run", *words, "--data-dir", place.train.removesuffix("/train.csv"))
    assert end.status == 1
    assert end.out == ""
    assert end.err.startswith("clear-peft: fields given lora plain seed 0 failed: There is no folder")


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("run", "--grid", "none", "--results", "r.jsonl"), "There is no grid 'none'"),
        (("run", "--grid", "cpu", "--results", "r.jsonl"), "--data-dir"),
        (("run", "--grid", "smoke", "--results", "r.csv"), "ends in .jsonl"),
        (("run", "--grid", "smoke", "--results", "nowhere/r.jsonl"), "make it first"),
        (("run", "--grid", "smoke", "--results", "r.jsonl", "--workers", "0"), "workers"),
        (("table", "--results", "none.jsonl"), "holds no results"),
        (("table", "--results", "broken.jsonl"), "line 1, is no result"),
        (("plot", "--results", "none.jsonl", "--output", "plots"), "holds no results"),
    ],
)
def test_bad_input(cli, monkeypatch, tmp_path, words, said):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "broken.jsonl").write_text("{}\n")
    end = cli("bench", *words)
    assert end.status == 2
    assert said in end.err
    assert end.err.count("\n") == 1
    assert [p.name for p in tmp_path.iterdir()] == ["broken.jsonl"]


def test_table_to_a_file(cli, results, tmp_path):
    end = cli("bench", "table", "--results", results, "--output", tmp_path / "t.md", "--format", "json")
    values = json.loads(end.out)
    assert {row["method"] for row in values["summary"]} == {"clear", "plain"}
    assert values["common_runs"] == 1
    assert (tmp_path / "t.md").read_text().startswith("### Over the cells with noise")
    assert cli("bench", "table", "--results", results, "--output", tmp_path / "t.doc").status == 2


def test_table_of_some_methods(cli, results):
    end = cli("bench", "table", "--results", results, "--method", "plain", "--format", "json")
    assert {row["method"] for row in json.loads(end.out)["cells"]} == {"plain"}
    end = cli("bench", "table", "--results", results, "--method", "magic")
    assert end.status == 2
    assert "no results of magic: choose from clear, plain" in end.err


def test_table_of_some_data(cli, results):
    end = cli("bench", "table", "--results", results, "--data", "fields", "--format", "json")
    assert {row["data"] for row in json.loads(end.out)["cells"]} == {"fields"}
    end = cli("bench", "table", "--results", results, "--data", "woods")
    assert end.status == 2
    assert "no results of woods: choose from fields" in end.err


def test_plot(cli, results, tmp_path):
    plots = tmp_path / "plots"
    options = ("--output", plots, "--plot-format", "png", "--format", "json")
    end = cli("bench", "plot", "--results", results, *options)
    assert end.status == 0, end.err
    assert str(plots / "accuracy_by_epoch.png") in json.loads(end.out)["files"]
    assert {str(p) for p in plots.iterdir()} == set(json.loads(end.out)["files"])
    (tmp_path / "file").touch()
    assert cli("bench", "plot", "--results", results, "--output", tmp_path / "file").status == 2
