"""``clear-peft scan``: what it says, what it writes, what it refuses."""

import json
import os
import subprocess
import sys

import numpy as np
import pandas as pd
import pytest
from test_bad_input import _refused, _snapshot

from clear_peft.data import read_table, unescape_formulas
from clear_peft.pipeline import frozen_encoder
from tiny_text import keyword_table

ROWS = 96
FILES = ["label_issues.csv", "metrics.json", "report.html", "table_issues.csv"]


@pytest.fixture(autouse=True)
def _cache(monkeypatch, tmp_path_factory):
    monkeypatch.setenv("CLEAR_PEFT_CACHE", str(tmp_path_factory.mktemp("cache")))


@pytest.fixture
def scan(cli, place, tmp_path):
    """Scan the table of the place, or what the options say, into ``tmp_path/scan``; None leaves one out."""

    def call(*flags, **options):
        options = {"data": place.train, "output": tmp_path / "scan", "model": place.model, **options}
        words = []
        for name, value in options.items():
            words += [] if value is None else [f"--{name.replace('_', '-')}", value]
        return cli("scan", *words, *flags)

    return call


def _write(folder, name, values):
    np.save(folder / name, values)
    return folder / name


def _rows(folder, name="bad.csv", **columns):
    keyword_table(12, seed=0).assign(**columns).to_csv(folder / name, index=False)
    return folder / name


def test_a_person_is_told_the_result_and_where_it_is(scan, tmp_path):
    end = scan()
    assert end.status == 0, end.err
    assert "96 rows, 3 classes" in end.out
    assert "Estimated share of wrong labels: " in end.out
    assert "95 % interval" in end.out
    assert "more likely wrong than right" in end.out
    assert f"Report: {tmp_path / 'scan' / 'report.html'}" in end.out
    assert sorted(path.name for path in (tmp_path / "scan").iterdir()) == FILES


def test_an_estimate_no_better_than_chance_is_called_one(scan, tmp_path):
    table = _rows(tmp_path, label=["x", "y"] * 6)
    by_label = np.tile(np.eye(2), (6, 1))
    other_class = np.flip(by_label, axis=1)
    words = "agree with the labels no better than chance"
    end = scan(data=table, model=None, pred_probs=_write(tmp_path, "other.npy", 0.8 * other_class + 0.1))
    assert words in " ".join(end.err.split())
    again = _write(tmp_path, "same.npy", 0.8 * by_label + 0.1)
    assert words not in " ".join(scan("--overwrite", data=table, model=None, pred_probs=again).err.split())


def test_other_issues_are_listed(scan, tmp_path):
    table = keyword_table(40, seed=0)
    table.loc[39, "text"] = table.loc[3, "text"]
    table.loc[5, "text"] = "Farming!"
    table.to_csv(tmp_path / "copies.csv", index=False)
    end = scan(data=tmp_path / "copies.csv")
    found = pd.read_csv(tmp_path / "scan" / "table_issues.csv")
    counts = json.loads((tmp_path / "scan" / "metrics.json").read_text())["table_issues"]
    assert {kind: n for kind, n in counts.items() if n} == found["issue"].value_counts().to_dict()
    assert counts["only_label_name"] == 1
    assert found.loc[found["row"] == 39, "near_duplicate_of"].tolist() == [3]
    said = f"Other issues: {counts['near_duplicate']} near duplicates"
    assert said in end.out
    assert said.removeprefix("Other issues: ") in (tmp_path / "scan" / "report.html").read_text("utf-8")


def test_a_column_of_ids_in_place_of_texts_is_noted(scan, tmp_path):
    table = tmp_path / "ids.csv"
    pd.DataFrame({"text": [f"A-{i:05d}" for i in range(40)], "label": ["a", "b"] * 20}).to_csv(
        table, index=False
    )
    end = scan("--data", table)
    assert end.status == 0
    assert "40 of 40 texts are only a number or code: is --text-column the right one?" in " ".join(
        end.err.split()
    )


def test_a_program_is_told_the_same(scan, tmp_path):
    end = scan("--format", "json")
    assert end.err == ""
    told = json.loads(end.out)
    metrics = json.loads((tmp_path / "scan" / "metrics.json").read_text())
    assert {**told, **metrics} == told
    assert told["rows"] == 96
    assert told["classes"] == 3
    low, high = told["noise_rate_interval"]
    assert 0 <= low <= told["noise_rate_estimate"] <= high <= 1
    issues = pd.read_csv(told["label_issues"])
    assert told["listed"] == issues["is_label_issue"].sum()
    assert [row["row"] for row in told["most_suspicious"]] == issues["row"].tolist()[:10]
    assert issues["clean_probability"].is_monotonic_increasing
    truth = pd.read_csv(tmp_path / "scan" / "label_issues.csv").set_index("row").sort_index()
    table = keyword_table(ROWS, seed=0, noise=0.2)
    wrong = (table["label"] != table["clean_label"]).to_numpy()
    assert (truth["is_label_issue"].to_numpy() == wrong).mean() > 0.9
    assert {"clear-peft", "torch"} <= set(told["versions"])


def test_the_second_scan_makes_no_forward(scan, tmp_path, monkeypatch):
    assert scan().status == 0
    first = (tmp_path / "scan" / "label_issues.csv").read_bytes()

    def never(*_):
        raise AssertionError("a text was encoded again")

    monkeypatch.setattr(frozen_encoder.FrozenEncoder, "layer_means", never)
    assert scan("--overwrite").status == 0
    assert (tmp_path / "scan" / "label_issues.csv").read_bytes() == first
    with pytest.raises(AssertionError, match="encoded again"):
        scan("--overwrite", "--no-cache")


def test_groups_are_left_out_together(scan, tmp_path):
    table = keyword_table(60, seed=3).assign(customer=["x", "x", "", ""] + [str(i) for i in range(56)])
    table.to_csv(tmp_path / "data.csv", index=False)
    assert scan(data=tmp_path / "data.csv", group_column="customer").status == 0
    groups = pd.read_csv(tmp_path / "scan" / "label_issues.csv").set_index("row").sort_index()["group"]
    assert groups[0] == groups[1]
    assert groups.nunique() == 59  # empty cells are alone


def test_predictions_and_embeddings_need_no_model(scan, place, tmp_path):
    table = keyword_table(ROWS, seed=0, noise=0.2)
    right = np.eye(3)[pd.Categorical(table["clean_label"]).codes]
    wrong = (table["label"] != table["clean_label"]).to_numpy()
    rows = right + np.random.default_rng(0).normal(0, 0.2, (ROWS, 3))
    odds = np.exp(4 * rows)
    files = {
        "pred_probs": _write(tmp_path, "p.npy", odds / odds.sum(axis=1, keepdims=True)),
        "embeddings": _write(tmp_path, "e.npy", rows),
    }
    table[["label"]].to_csv(tmp_path / "labels.csv", index=False)
    for name, file in files.items():
        for data in (place.train, tmp_path / "labels.csv"):  # with texts and without
            end = scan("--overwrite", "--format", "json", data=data, model=None, **{name: file})
            assert end.status == 0, end.err
            told = json.loads(end.out)
            issues = pd.read_csv(told["label_issues"]).set_index("row").sort_index()
            assert (issues["is_label_issue"].to_numpy() == wrong).mean() > 0.95, name
            assert "torch" not in told["versions"]


def test_texts_are_only_text(scan, tmp_path):
    texts = keyword_table(40, seed=5)["text"].tolist()
    texts[:3] = ["=HYPERLINK(1) wheat", "</script><img src=x onerror=alert(1)> mast", "yarn \x1b[31m red"]
    labels = ["<b>farming</b>" if i % 3 else "=sailing" for i in range(40)]
    pd.DataFrame({"text": texts, "label": labels}).to_json(tmp_path / "d.jsonl", orient="records", lines=True)
    end = scan(data=tmp_path / "d.jsonl")
    assert end.status == 0, end.err
    assert "\x1b[31m" not in end.out
    written = (tmp_path / "scan" / "label_issues.csv").read_text()
    assert "'=HYPERLINK(1) wheat" in written
    issues = unescape_formulas(read_table(tmp_path / "scan" / "label_issues.csv"))
    assert issues.set_index("row").loc["0", "text"] == "=HYPERLINK(1) wheat"
    assert set(issues["given_label"]) == {"<b>farming</b>", "=sailing"}
    page = (tmp_path / "scan" / "report.html").read_text()
    assert "<img src=x" not in page
    assert "<b>farming" not in page


def test_the_report_does_not_speak_of_training(scan, tmp_path):
    assert scan(group_column="id").status == 0
    page = (tmp_path / "scan" / "report.html").read_text()
    body = page[page.index("<body>") : page.index('<script type="application/json"')]
    assert "96 scanned" in body
    assert "groups in id" in body
    assert "was not trained further" in body
    for words in ("Training", "epoch", "PEFT method", "--apply", "not finished"):
        assert words not in body


def test_the_folder_is_named_after_the_data(scan, place, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert scan(output=None).status == 0
    assert sorted(path.name for path in (tmp_path / "scan-train").iterdir()) == FILES


def test_an_earlier_scan_is_not_overwritten_unasked(scan, tmp_path):
    assert scan().status == 0
    before = _snapshot(tmp_path)
    _refused(scan("--format", "quiet"), "holds another scan: give another --output, or --overwrite")
    assert _snapshot(tmp_path) == before


def test_a_run_or_a_foreign_folder_is_never_overwritten(scan, finished, tmp_path):
    run = finished("full", "lora")
    (tmp_path / "thesis.tex").write_text("x")
    for folder in (run, tmp_path):
        before = _snapshot(folder)
        _refused(scan("--overwrite", "--format", "quiet", output=folder), "holds something that is no scan")
        assert _snapshot(folder) == before


def test_a_scan_of_its_own_list_is_refused(scan, tmp_path):
    assert scan().status == 0
    before = _snapshot(tmp_path)
    listed = tmp_path / "scan" / "label_issues.csv"
    end = scan("--overwrite", "--format", "quiet", data=listed, label_column="given_label")
    _refused(end, "lies in the output folder")
    assert _snapshot(tmp_path) == before


EVEN = np.full((ROWS, 3), 1 / 3)
REFUSED = {
    "missing file": (lambda d: {"data": d / "no.csv"}, "no such file"),
    "missing column": (lambda d: {"text_column": "txt"}, "has no column 'txt'"),
    "missing text column, with embeddings": (
        lambda d: {"text_column": "txt", "embeddings": _write(d, "e.npy", EVEN), "model": None},
        "has no column 'txt'",
    ),
    "missing group column": (lambda d: {"group_column": "grp"}, "has no column 'grp'"),
    "one group": (lambda d: {"data": _rows(d, key="a"), "group_column": "key"}, "all rows are in one group"),
    "one class": (lambda d: {"data": _rows(d, label="a")}, "every row has the label"),
    "all rows equal": (lambda d: {"data": _rows(d, text="wheat barley")}, "copies of each other"),
    "no such model": (lambda d: {"model": "no-such-user/no-such-model"}, "Cannot load the tokenizer"),
    "two judges": (lambda d: {"embeddings": d / "e.npy"}, "give one of them"),
    "too long": (lambda d: {"max_length": 0}, "max-length"),
    "NaN embeddings": (
        lambda d: {"embeddings": _write(d, "e.npy", EVEN * np.nan), "model": None},
        "e.npy' holds a number that is not finite",
    ),
    "few embeddings": (
        lambda d: {"embeddings": _write(d, "e.npy", EVEN[1:]), "model": None},
        "but there are 96 rows",
    ),
    "missing embeddings": (lambda d: {"embeddings": d / "e.npy", "model": None}, "no such file"),
    "few predictions": (
        lambda d: {"pred_probs": _write(d, "p.npy", EVEN[1:]), "model": None},
        "but there are 96 rows and 3 classes",
    ),
    "other classes": (
        lambda d: {"pred_probs": _write(d, "p.npy", EVEN[:, :2]), "model": None},
        "in the order 'farming', 'sailing', 'weaving'",
    ),
    "NaN predictions": (
        lambda d: {"pred_probs": _write(d, "p.npy", EVEN * np.nan), "model": None},
        "p.npy': pred_probs are no probabilities",
    ),
    "bad sums": (
        lambda d: {"pred_probs": _write(d, "p.npy", EVEN * 1.1), "model": None},
        "that sum to 1",
    ),
    "a file": (lambda d: {"output": _rows(d)}, "is a file"),
    "inside a file": (lambda d: {"output": _rows(d) / "scan"}, "is a file"),
    "a name too long": (lambda d: {"output": d / ("x" * 300)}, "Cannot write"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_wrong_input_is_refused_in_one_sentence_and_leaves_nothing(scan, tmp_path, case):
    arrange, words = REFUSED[case]
    options = {"output": tmp_path / "deep" / "scan", **arrange(tmp_path)}
    before = _snapshot(tmp_path)
    _refused(scan("--format", "quiet", **options), words)
    assert _snapshot(tmp_path) == before


def test_help_imports_nothing_heavy():
    code = (
        "import sys; sys.argv = ['clear-peft', 'scan', '--help']; from clear_peft.cli.app import _run; "
        "from clear_peft.cli.output import Output; _run(Output()); "
        "sys.exit(bool({'numpy', 'pandas', 'torch'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], check=False, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "sorted by name" in " ".join(done.stdout.replace("│", " ").split())


def test_a_terminal_that_cannot_show_a_character_shows_another(tmp_path, place):
    keyword_table(40, seed=0).assign(text=lambda t: t["text"] + " \U0001f600 " + "x" * 300).to_csv(
        tmp_path / "emoji.csv", index=False
    )
    np.save(tmp_path / "e.npy", np.random.default_rng(0).normal(size=(40, 4)))
    words = ["scan", "--data", "emoji.csv", "--embeddings", "e.npy", "--output", "o"]
    end = subprocess.run(
        [sys.executable, "-c", "from clear_peft.cli import main; main()", *words],
        cwd=tmp_path,
        env={**os.environ, "PYTHONIOENCODING": "ascii", "COLUMNS": "60"},
        capture_output=True,
        check=False,
    )
    assert (end.returncode, b"Traceback" in end.stderr) == (0, False), end.stderr
    assert b"Most suspicious rows" in end.stdout


def test_rows_without_a_text_are_left_out_and_ids_are_copied(scan, tmp_path):
    table = keyword_table(24, seed=2).assign(ref=[f"no. {i}" for i in range(24)])
    table.loc[[3, 20], "text"] = "", " "
    table.to_csv(tmp_path / "ids.csv", index=False)
    end = scan(data=tmp_path / "ids.csv", id_column="ref")
    assert end.status == 0, end.err
    assert "left out, as their text is empty: 2 rows (3, 20;" in end.err
    issues = pd.read_csv(tmp_path / "scan" / "label_issues.csv")
    assert sorted(issues["row"]) == [i for i in range(24) if i not in (3, 20)]
    assert issues["id"].tolist() == [f"no. {row}" for row in issues["row"]]
    given = table["label"][issues["row"]].tolist()
    assert issues["given_label"].tolist() == given
