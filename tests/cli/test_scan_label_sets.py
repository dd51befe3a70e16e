"""``clear-peft scan`` of tables with several labels a row."""

import json

import numpy as np
import pandas as pd
import pytest

from tiny_text import keyword_table

NAMES = ["farm", "space", "=sea"]


@pytest.fixture(autouse=True)
def _cache(monkeypatch, tmp_path_factory):
    monkeypatch.setenv("CLEAR_PEFT_CACHE", str(tmp_path_factory.mktemp("cache")))


@pytest.fixture
def flags():
    given = np.random.default_rng(0).random((60, 3)) < 0.4
    given[:3] = [[1, 1, 0], [0, 0, 0], [0, 0, 1]]
    return given


@pytest.fixture
def tables(tmp_path, flags):
    """One table in three forms: cells, columns and lists."""
    frame = keyword_table(60, seed=0)[["text"]]
    lists = [[name for name, has in zip(NAMES, row, strict=True) if has] for row in flags]
    frame.assign(label=["|".join(row) for row in lists]).to_csv(tmp_path / "cells.csv", index=False)
    pd.concat([frame, pd.DataFrame(flags.astype(int), columns=NAMES)], axis=1).to_csv(
        tmp_path / "columns.csv", index=False
    )
    rows = [json.dumps({"text": text, "label": row}) for text, row in zip(frame["text"], lists, strict=True)]
    (tmp_path / "lists.jsonl").write_text("\n".join(rows))
    return tmp_path


FORMS = {
    "cells.csv": ("--label-separator", "|"),
    "columns.csv": ("--label-columns", ",".join(sorted(NAMES))),
    "lists.jsonl": (),
}


@pytest.mark.parametrize("name", list(FORMS))
def test_all_forms_of_a_table_give_one_list(cli, place, tables, flags, name):
    folder = tables / "scan"
    words = ("scan", "--model", place.model, "--output", folder, "--data", tables / name, *FORMS[name])
    end = cli(*words)
    assert end.status == 0, end.err
    assert "60 rows, 3 labels, given" in end.out
    assert "Most suspicious labels" in end.out
    assert sorted(path.name for path in folder.iterdir()) == [
        "label_issues.csv",
        "metrics.json",
        "table_issues.csv",
    ]
    issues = pd.read_csv(folder / "label_issues.csv")
    assert issues["clean_probability"].is_monotonic_increasing
    assert issues["given"].sum() == flags.sum()
    assert set(issues.loc[issues["row"] == 0, "label"][issues["given"]]) == {"farm", "space"}
    assert set(issues["label"]) <= {"farm", "space", "'=sea"}
    metrics = json.loads((folder / "metrics.json").read_text())
    assert metrics["several_labels"]
    assert metrics["given_labels"] == flags.sum()
    assert metrics["labels"]["farm"]["given"] == flags[:, 0].sum()
    assert metrics["listed_given"] + metrics["listed_missing"] == issues["is_label_issue"].sum()
    assert 0 <= metrics["wrong_estimate"] <= 1


def test_a_program_is_told_by_json(cli, tables):
    given = np.random.default_rng(1).random((60, 3))
    np.save(tables / "p.npy", given)
    words = ("--data", tables / "lists.jsonl", "--pred-probs", tables / "p.npy", "--output", tables / "out")
    end = cli("scan", *words, "--format", "json")
    assert end.status == 0, end.err
    values = json.loads(end.out)
    assert len(values["most_suspicious"]) == 10
    assert values["label_issues"] == str(tables / "out" / "label_issues.csv")


def test_labels_given_for_others_are_named(cli, tables):
    rng = np.random.default_rng(2)
    true = rng.random((600, 3)) < 0.3
    hit = true[:, 0] & ~true[:, 1] & (rng.random(600) < 0.4)
    given = true.copy()
    given[hit] = [False, True, False]
    log_odds = 7 * true - 3.5 + rng.normal(size=true.shape)
    log_odds[:, 1] = np.maximum(log_odds[:, 1], np.where(true[:, 0], -0.5, -np.inf))
    pd.DataFrame(given.astype(int), columns=list("abc")).to_csv(tables / "t.csv", index=False)
    np.save(tables / "p.npy", 1 / (1 + np.exp(-log_odds)))
    words = ("--data", tables / "t.csv", "--label-columns", "a,b,c", "--pred-probs", tables / "p.npy")
    end = cli("scan", *words, "--output", tables / "out")
    assert end.status == 0, end.err
    assert "  b in place of a: about" in end.out


def test_a_report_of_an_earlier_scan_does_not_stay(cli, place, tables):
    keyword_table(40, seed=0).to_csv(tables / "one.csv", index=False)
    words = ("scan", "--model", place.model, "--output", tables / "scan", "--overwrite")
    assert cli(*words, "--data", tables / "one.csv").status == 0
    assert (tables / "scan" / "report.html").exists()
    assert cli(*words, "--data", tables / "lists.jsonl").status == 0
    assert not (tables / "scan" / "report.html").exists()


@pytest.mark.parametrize(
    ("name", "words", "expected"),
    [
        ("lists.jsonl", ("--unlabelled", "NA"), "--unlabelled is for tables with one label a row"),
        ("lists.jsonl", ("--opinion-column", "x"), "--opinion-column is for tables with one label a row"),
        ("cells.csv", ("--label-separator", ""), "--label-separator is empty"),
        ("columns.csv", ("--label-columns", "farm,text"), "both the text and the label column"),
        ("columns.csv", ("--label-columns", "farm,farm"), "named twice as the label column"),
        ("columns.csv", ("--label-columns", "farm", "--label-separator", ";"), "choose one"),
        ("columns.csv", ("--label-columns", "farm", "--normalize-labels"), "--normalize-labels joins names"),
        ("columns.csv", (), "scan and train read them by --label-columns"),
        ("cells.csv", ("--label-separator", "|", "--label-column", "lable"), "did you mean 'label'"),
        ("lists.jsonl", ("--group-column", "label"), "both the label and the group column"),
    ],
)
def test_what_does_not_fit_is_refused_in_a_sentence(cli, place, tables, name, words, expected):
    end = cli("scan", "--model", place.model, "--output", tables / "out", "--data", tables / name, *words)
    assert end.status == 2
    assert expected in " ".join(end.err.split())
    assert not (tables / "out").exists()


def test_rows_without_a_text_are_left_out_and_ids_are_copied(cli, place, tables, flags):
    frame = pd.read_csv(tables / "columns.csv").assign(ref=[f"no. {i}" for i in range(60)])
    frame.loc[4, "text"] = ""
    frame.to_csv(tables / "columns.csv", index=False)
    table = ("--data", tables / "columns.csv", *FORMS["columns.csv"], "--id-column", "ref")
    end = cli("scan", "--model", place.model, "--output", tables / "scan", *table)
    assert end.status == 0, end.err
    assert "left out, as their text is empty: 1 row (4;" in end.err
    issues = pd.read_csv(tables / "scan" / "label_issues.csv")
    assert issues["id"].tolist() == [f"no. {row}" for row in issues["row"]]
    assert issues["given"].sum() == flags.sum() - flags[4].sum()
    given = issues[issues["given"]]
    names = given["label"].str.removeprefix("'").tolist()
    assert all(frame.loc[row, name] for row, name in zip(given["row"], names, strict=True))
