"""One table as people have it: a title and a body; labels missing, rare, or spelt in several ways."""

import contextlib
import io
import json
import sys

import pandas as pd
import pytest

from clear_peft.cli import main
from tiny_text import keyword_table


def messy(rows, seed):
    """A table with the columns Title and body; every fifth row has no label."""
    table = keyword_table(rows, seed=seed)
    words = table["text"].str.split(n=1)
    labels = table["label"].mask(table.index % 5 == 4, "?" if seed else "")
    return pd.DataFrame(
        {"ref": [f"{i:03}" for i in table.index], "Title": words.str[0], "body": words.str[1], "kind": labels}
    )


COLUMNS = ("--text-column", "Title", "--text-column", "body", "--label-column", "kind", "--unlabelled", "?")


@pytest.fixture(scope="module")
def messy_run(tmp_path_factory, place):
    """A folder with such tables."""
    folder = tmp_path_factory.mktemp("messy")
    table = messy(60, seed=0)
    table.loc[[0, 1], "kind"] = "mining", "smelting"
    table.loc[2, "kind"] = "Weaving"
    table.loc[6, "body"] += " wheat" * 40
    table.loc[10, ["Title", "body"]] = " "
    table.to_csv(folder / "train.csv", index=False, sep=";", encoding="utf-16")
    test = messy(20, seed=1)
    test.loc[0, "kind"] = "fishing"
    test.to_json(folder / "test.json", orient="records")
    return folder


@pytest.fixture(scope="module")
def trained(messy_run, place):
    """The folder of a run on them, and what was said."""
    words = place.options(
        messy_run / "run",
        data=messy_run / "train.csv",
        test=messy_run / "test.json",
        id_column="ref",
        format="human",
    )
    said = io.StringIO()
    with pytest.MonkeyPatch.context() as patch, contextlib.redirect_stderr(said):
        patch.setattr(sys, "argv", ["clear-peft", "train", *map(str, words), *COLUMNS, "--normalize-labels"])
        with pytest.raises(SystemExit) as end:
            main()
    assert not end.value.code, said.getvalue()
    return messy_run / "run", " ".join(said.getvalue().split())


def test_train_says_what_it_does_about_it(trained):
    run, said = trained
    assert "set apart, as they have no label: 12 rows (4, 9, 14, 19, 24 and 7 more;" in said
    assert "left out, as their text is empty: 1 row (10;" in said
    assert "2 classes ('mining', 'smelting') have one row each" in said
    assert "classes that the training table lacks ('fishing'); left out: 1 row (0;" in said
    assert "texts are longer than --max-length, 32 tokens, and were cut" in said
    metrics = json.loads((run / "metrics.json").read_text())
    assert metrics["rows"] == {"train": 42, "validation": 5, "test": 15, "unlabelled": 12}
    assert metrics["cut_texts"].keys() == {"train", "validation", "test"}
    assert sum(metrics["cut_texts"].values()) == 1
    names = json.loads((run / "adapter" / "labels.json").read_text())
    assert names == ["farming", "mining", "sailing", "smelting", "weaving"]
    issues = pd.read_csv(run / "label_issues.csv", dtype={"id": str})
    assert sorted(issues["row"]) == [i for i in range(60) if i % 5 != 4 and i != 10]
    assert (issues["id"].astype(int) == issues["row"]).all()
    assert (issues.loc[issues["row"] < 2, "split"] == "train").all()
    left = pd.read_csv(run / "unlabelled.csv", dtype={"id": str})
    assert sorted(left["row"]) == list(range(4, 60, 5))
    assert left["confidence"].is_monotonic_increasing
    assert set(left["predicted_label"]) <= set(names)
    assert (left["id"].astype(int) == left["row"]).all()
    assert "12 unlabelled" in (run / "report.html").read_text()


def test_audit_and_corrections_go_by_the_rows_of_the_table(trained, messy_run, cli, tmp_path):
    run, _ = trained
    end = cli("audit", "--run", run, "--format", "json")
    assert (end.status, end.err) == (0, "")
    issues = (
        pd.read_csv(run / "label_issues.csv", dtype=str).set_index("row").loc[["58", "57", "0"]].reset_index()
    )
    issues.assign(action=["relabel", "drop", "keep"], label=["mining", "", ""]).to_csv(
        tmp_path / "c.csv", index=False
    )
    fixed = tmp_path / "fixed.csv"
    end = cli("audit", "--run", run, "--apply", tmp_path / "c.csv", "--output", fixed, "--format", "json")
    assert (end.status, end.err) == (0, "")
    before = pd.read_csv(
        messy_run / "train.csv", sep=";", encoding="utf-16", dtype=str, keep_default_na=False
    )
    after = pd.read_csv(fixed, dtype=str, keep_default_na=False)
    before.loc[58, "kind"] = "mining"
    pd.testing.assert_frame_equal(after, before.drop(index=57).reset_index(drop=True))
    issues.assign(row="59", action="keep", label="").head(1).to_csv(tmp_path / "c.csv", index=False)
    end = cli("audit", "--run", run, "--apply", tmp_path / "c.csv", "--output", fixed, "--overwrite")
    assert (end.status, "names the row 59" in end.err) == (2, True)


def test_predict_and_evaluate_take_other_columns(trained, cli, tmp_path):
    run, _ = trained
    table = keyword_table(12, seed=3).rename(columns={"text": "words", "label": "topic"})
    table.loc[5, "words"] = " "
    table.to_csv(tmp_path / "new.csv", index=False)
    words = ("--run", run, "--data", tmp_path / "new.csv", "--text-column", "words")
    end = cli("predict", *words, "--output", tmp_path / "out.csv", "--format", "json")
    assert (end.status, json.loads(end.out)["rows"]) == (0, 11)
    assert "the text is empty in 1 row (5;" in end.err
    predicted = pd.read_csv(tmp_path / "out.csv")
    assert predicted["predicted_label"].isna().tolist() == predicted["confidence"].isna().tolist()
    assert predicted["predicted_label"].isna().sum() == 1
    table.drop(index=5).to_csv(tmp_path / "new.csv", index=False)
    end = cli("evaluate", *words, "--label-column", "topic", "--format", "json")
    assert json.loads(end.out)["examples"] == 11
    end = cli("evaluate", *words, "--label-column", "topics")
    assert (end.status, "did you mean 'topic'" in end.err) == (2, True)


def test_scan_leaves_rows_without_a_label_for_the_end(messy_run, place, cli, tmp_path):
    words = ("scan", "--data", messy_run / "train.csv", "--output", tmp_path / "scan", "--model", place.model)
    end = cli(*words, "--no-cache", *COLUMNS, "--normalize-labels", "--format", "json")
    assert end.status == 0
    found = json.loads(end.out)
    assert (found["rows"], found["unlabelled"], found["classes"]) == (47, 12, 5)
    issues = pd.read_csv(tmp_path / "scan" / "label_issues.csv")
    assert sorted(issues["row"]) == [i for i in range(60) if i % 5 != 4 and i != 10]
    table = messy(60, seed=0)
    texts = (table["Title"] + "\n" + table["body"])[issues["row"]]
    assert [a[:20] for a in issues["text"]] == [b[:20] for b in texts]
    left = pd.read_csv(found["next"])
    assert sorted(left["row"]) == list(range(4, 60, 5))
    probabilities = pd.DataFrame(
        0.2, index=range(60), columns=["farming", "mining", "sailing", "smelting", "weaving"]
    )
    probabilities.to_parquet(tmp_path / "p.parquet")
    end = cli(
        *words[:-2],
        *COLUMNS,
        "--normalize-labels",
        "--pred-probs",
        tmp_path / "p.parquet",
        "--overwrite",
        "--format",
        "json",
    )
    assert json.loads(end.out)["unlabelled"] == 12


def test_evaluate_needs_no_spelling_of_its_own(cli, place, tmp_path):
    table = keyword_table(24, seed=0).assign(label=[True, False] * 12)
    table.to_json(tmp_path / "train.jsonl", orient="records", lines=True)
    words = place.options(tmp_path / "run", data=tmp_path / "train.jsonl", epochs=1)
    assert cli("train", *words).status == 0
    table.assign(label=["TRUE", "false"] * 12).to_csv(tmp_path / "test.csv", index=False)
    end = cli("evaluate", "--run", tmp_path / "run", "--data", tmp_path / "test.csv", "--format", "json")
    assert json.loads(end.out)["examples"] == 24
