"""``report`` from the shell: where the page and the figures go, and what is said to be missing."""

import json
import shutil

import pytest
from huggingface_hub import ModelCard


@pytest.fixture
def run(finished, tmp_path):
    return shutil.copytree(finished("clear", "lora"), tmp_path / "run")


def test_page_and_figures(cli, run, tmp_path):
    (run / "report.html").unlink(missing_ok=True)
    end = cli("report", "--run", run, "--plots", tmp_path / "figures", "--plot-format", "png")
    assert end.status == 0
    page = (run / "report.html").read_text(encoding="utf-8")
    assert page.startswith(("<!doctype html>", "<!DOCTYPE html>"))
    names = sorted(file.name for file in (tmp_path / "figures").iterdir())
    assert names == ["accuracy.png", "confusion.png", "gate_rates.png", "losses.png"]
    lines = end.out.splitlines()
    assert lines[0] == f"Report: {run / 'report.html'}"
    assert len(lines) == 5


def test_a_page_elsewhere_leaves_the_run_as_it_was(cli, run, tmp_path):
    before = {path: path.read_bytes() for path in run.rglob("*") if path.is_file()}
    end = cli("report", "--run", run, "--output", tmp_path / "page.html", "--format", "json")
    said = json.loads(end.out)
    assert said == {"report": str(tmp_path / "page.html"), "plots": [], "finished": True, "missing": []}
    assert {path: path.read_bytes() for path in run.rglob("*") if path.is_file()} == before


def test_of_an_unfinished_run_there_is_a_report_too(cli, run):
    for piece in ("metrics.json", "label_issues.csv", "label_quality.safetensors"):
        (run / piece).unlink()
    shutil.rmtree(run / "adapter")
    end = cli("report", "--run", run)
    assert (end.status, len(end.out.splitlines())) == (0, 2)
    assert "is not finished" in end.out


def test_missing_pieces_are_said(cli, run):
    (run / "label_issues.csv").unlink()
    end = cli("report", "--run", run)
    assert end.status == 0
    assert "label_issues.csv is missing" in end.out


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (lambda run: ["--run", run / "adapter"], "is no run folder"),
        (lambda run: ["--run", run / "none"], "is no run folder"),
        (lambda run: ["--run", run, "--output", run / "metrics.json"], "does not end in .html"),
        (lambda run: ["--run", run, "--output", run / "none" / "page.html"], "Cannot write"),
        (lambda run: ["--run", run, "--plots", run / "metrics.json"], "Cannot make the folder"),
        (lambda run: ["--run", run, "--plot-format", "gif"], "gif"),
    ],
)
def test_wrong_input(cli, run, options, said):
    before = sorted(run.rglob("*"))
    end = cli("report", *options(run))
    assert (end.status, end.out) == (2, "")
    assert said in end.err
    assert sorted(run.rglob("*")) == before


@pytest.mark.parametrize(("method", "peft"), [("clear", "lora"), ("clear", "adapter"), ("full", "lora")])
@pytest.mark.filterwarnings("ignore::UserWarning")
def test_the_cards_code_does_what_it_says(finished, place, method, peft, capsys):
    run = finished(method, peft)
    text = (run / "adapter" / "README.md").read_text(encoding="utf-8")
    assert "clear-peft" in ModelCard(text).data.tags
    code = text.split("```python\n")[1].split("```")[0]
    code = code.replace("path/to/this/folder", str(run / "adapter"))
    code = code.replace("path/to/the/base/model", place.model).replace("a text", "old wheat and barley")
    exec(compile(code, "card", "exec"), {})
    assert "['farming']" in capsys.readouterr().out
