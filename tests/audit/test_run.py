"""A run folder in, its audit or its corrected table out."""

import json
import os
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from safetensors import safe_open
from safetensors.numpy import save_file

from audit.written_run import NAMES, corrections_of, judged, quality_of, write_run
from clear_peft.audit.run import apply_corrections, audit_run, write_audit
from clear_peft.data import read_table, unescape_formulas, write_table
from clear_peft.errors import InputError
from clear_peft.label_quality import TopProbs
from clear_peft.run_folder import RunConfig
from clear_peft.run_folder.quality_file import save_label_quality


@pytest.fixture
def run(tmp_path):
    return write_run(tmp_path)


def test_the_audit_of_a_run(run):
    found = audit_run(run.folder, threshold=0.3)
    assert found.labels == NAMES
    assert found.threshold == 0.3
    columns = [column for column in run.issues.columns if column != "is_label_issue"]
    pd.testing.assert_frame_equal(found.issues[columns], run.issues[columns], check_dtype=False)
    assert "linear probe" in found.predictions


def test_how_labels_went_wrong_is_told_by_class_probabilities(run):
    """By the whole of them, not by the likeliest class alone."""
    before = audit_run(run.folder)
    (run.folder / QUALITY).unlink()
    quality, _ = written(run)
    likeliest = np.eye(3, dtype=np.float32)[quality.predicted]
    save_label_quality(
        run.folder / QUALITY, replace(quality, pred_probs=TopProbs.of(likeliest)), NAMES, noise_found=True
    )
    after = audit_run(run.folder)
    assert np.abs(before.joint - after.joint).max() > 1e-3
    assert after.noise_rate == before.noise_rate
    assert after.predictions == before.predictions


@pytest.mark.parametrize(
    ("source", "noise_found", "said"),
    [
        ("probe", True, "linear probe"),
        ("out_of_sample", False, "has not seen it"),
        ("final_model", True, "not trained to repeat"),
        ("final_model", False, "as a ranking"),
    ],
)
def test_whose_predictions_is_told_from_the_file(run, source, noise_found, said):
    quality, _ = written(run)
    save_label_quality(run.folder / QUALITY, replace(quality, source=source), NAMES, noise_found=noise_found)
    assert said in audit_run(run.folder).predictions


QUALITY = "label_quality.safetensors"


def written(run):
    """The quality in a run folder, as it was written, and whether training made use of it."""
    given, _, probabilities, losses = judged()
    return quality_of(given, probabilities, losses, "probe"), True


def _write(folder, names=NAMES, rows=None, **changes):
    given, _, probabilities, losses = (part if rows is None else part[:rows] for part in judged())
    quality = replace(quality_of(given, probabilities, losses, "probe"), **changes)
    save_label_quality(folder / QUALITY, quality, names, noise_found=True)


def _array(**changes):
    """Change some arrays in the file."""

    def damage(folder):
        with safe_open(folder / QUALITY, "np") as file:
            held = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
            about = file.metadata()
        save_file({n: a for n, a in (held | changes).items() if a is not None}, folder / QUALITY, about)

    return damage


DAMAGED = {
    "no run": (lambda f: (f / "config.yaml").unlink(), "is no run folder"),
    "unfinished": (
        lambda f: [(f / name).unlink() for name in ("label_issues.csv", "metrics.json")],
        "not finished: carry it on with train --resume",
    ),
    "no list": (lambda f: (f / "label_issues.csv").unlink(), "label_issues.csv is missing"),
    "no labels": (lambda f: (f / "adapter" / "labels.json").unlink(), "labels.json is missing"),
    "labels are no list": (
        lambda f: (f / "adapter" / "labels.json").write_text("3"),
        "must hold a JSON list",
    ),
    "other labels": (
        lambda f: (f / "adapter" / "labels.json").write_text('["a", "b"]'),
        "none of the run's labels",
    ),
    "an empty list": (lambda f: (f / "label_issues.csv").write_text(""), "is empty"),
    "no label quality": (lambda f: (f / QUALITY).unlink(), f"{QUALITY} is missing"),
    "a pickle": (lambda f: (f / QUALITY).write_bytes(b"\x80\x04N."), "is damaged"),
    "half a file": (
        lambda f: (f / QUALITY).write_bytes((f / QUALITY).read_bytes()[:400]),
        "is damaged",
    ),
    "no metadata": (lambda f: save_file({"row": np.arange(3)}, f / QUALITY), "is damaged"),
    "metadata of another kind": (
        lambda f: save_file({"row": np.arange(3)}, f / QUALITY, {"clear": "[]"}),
        "is damaged",
    ),
    "no predictions": (_array(pred_probs=None), "is damaged"),
    "predictions of other rows": (_array(pred_probs=np.zeros((7, 3), np.float32)), "is damaged"),
    "no probabilities": (_array(pred_probs=np.full((120, 3), np.nan, np.float32)), "between 0 and 1"),
    "p beyond one": (_array(clean_probability=np.full(120, 1.5, np.float32)), "between 0 and 1"),
    "labels of no class": (_array(given=np.full(120, 3)), "classes that there are not"),
    "other rows": (lambda f: _write(f, rows=60), "not about the 60 rows"),
    "rows of another table": (lambda f: _write(f, row=np.arange(120) + 1), "not about the 120 rows"),
    "another order of labels": (lambda f: _write(f, NAMES[::-1]), "other rows or labels"),
    "another source": (lambda f: _write(f, source="guess"), "is damaged"),
    "other given labels": (
        lambda f: _write(f, given=(judged()[0] + 1) % 3),
        "other rows or labels|other labels than",
    ),
}


@pytest.mark.parametrize("case", DAMAGED)
def test_pieces_that_are_missing_damaged_or_of_another_run(run, case):
    damage, sentence = DAMAGED[case]
    damage(run.folder)
    with pytest.raises(InputError, match=sentence):
        audit_run(run.folder)


def test_the_audited_table(run, tmp_path):
    found = audit_run(run.folder)
    for ending in ("csv", "tsv", "jsonl", "parquet"):
        output = tmp_path / f"audited.{ending}"
        write_audit(run.folder, found, output)
        back = read_table(output)
        if ending in ("csv", "tsv"):
            assert "'=SUM(A1:A9)" in back["text"].tolist()
            back = unescape_formulas(back)
        assert back["text"].tolist() == found.issues["text"].tolist()
        assert list(back.columns) == list(found.issues.columns)
    with pytest.raises(InputError, match="is there already"):
        write_audit(run.folder, found, output)
    write_audit(run.folder, found, output, overwrite=True)


def test_what_it_is_about_is_never_overwritten(run):
    found = audit_run(run.folder)
    for kept in (run.folder / "label_issues.csv", Path(RunConfig.load(run.folder).data)):
        before = kept.read_bytes()
        with pytest.raises(InputError, match="is the input itself"):
            write_audit(run.folder, found, kept, overwrite=True)
        assert kept.read_bytes() == before


DECISIONS = [(3, "relabel", "weaving"), (0, "relabel", "sailing"), (7, "drop", ""), (20, "keep", "")]


@pytest.mark.parametrize("ending", ["csv", "tsv", "jsonl", "parquet"])
@pytest.mark.parametrize("values", [None, [-1, 7, 30], [2, False, True]])
def test_corrections_are_carried_out(tmp_path, ending, values):
    if ending == "parquet" and values == [2, False, True]:
        pytest.skip("Parquet holds no column of two types")
    run = write_run(tmp_path, ending, values)
    names = [str(value) for value in values or NAMES]
    decisions = [(3, "relabel", names[2]), (0, "relabel", names[1]), (7, "drop", ""), (20, "keep", "")]
    write_table(corrections_of(run, decisions), tmp_path / "corrections.csv")
    output = tmp_path / f"fixed.{ending}"
    before, original = read_table(run.data), run.data.read_bytes()
    made = apply_corrections(run.folder, tmp_path / "corrections.csv", output)
    assert made == {"rows": 119, "relabelled": 2, "dropped": 1, "kept": 1}
    team = before["team"].tolist()
    team[3], team[0] = (next(v for v in team if str(v) == names[i]) for i in (2, 1))
    expected = before.assign(team=pd.Series(team, dtype=before["team"].dtype)).drop(index=7)
    after = read_table(output)
    pd.testing.assert_frame_equal(after, expected.reset_index(drop=True))
    assert [type(value) for value in after["team"]] == [type(v) for i, v in enumerate(team) if i != 7]
    assert run.data.read_bytes() == original


def test_lines_of_the_file_stay_as_they_were(run, tmp_path):
    write_table(corrections_of(run, DECISIONS), tmp_path / "corrections.csv")
    apply_corrections(run.folder, tmp_path / "corrections.csv", tmp_path / "fixed.csv")
    before = run.data.read_bytes()
    after = (tmp_path / "fixed.csv").read_bytes()
    unchanged = read_table(run.data).drop(index=[0, 3, 7])["note"]
    tail = before[before.index(b"\n0020,") :]
    assert after.endswith(tail)
    assert set(unchanged) < set(read_table(tmp_path / "fixed.csv")["note"])


@pytest.fixture
def corrections(run, tmp_path):
    write_table(corrections_of(run, DECISIONS), tmp_path / "corrections.csv")
    return tmp_path / "corrections.csv"


def test_a_table_that_has_moved(run, corrections, tmp_path):
    moved = tmp_path / "moved.csv"
    run.data.rename(moved)
    with pytest.raises(InputError, match="say where with --data"):
        apply_corrections(run.folder, corrections, tmp_path / "fixed.csv")
    apply_corrections(run.folder, corrections, tmp_path / "fixed.csv", data=str(moved))
    assert len(read_table(tmp_path / "fixed.csv")) == 119


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        (lambda t: t.iloc[:-1], "has 119 rows, but the run had 120"),
        (
            lambda t: t.assign(body=["else", *t["body"][1:]]),
            r"another text than label_issues.csv in 1 row \(0",
        ),
        (lambda t: t.iloc[::-1], "another text"),
        (lambda t: t.assign(team=t["team"].tolist()[::-1]), "another label"),
        (lambda t: t.drop(columns="team"), "has no column 'team'"),
    ],
)
def test_a_table_that_is_another(run, corrections, tmp_path, change, sentence):
    write_table(change(run.table), run.data)
    with pytest.raises(InputError, match=sentence):
        apply_corrections(run.folder, corrections, tmp_path / "fixed.csv")
    assert not (tmp_path / "fixed.csv").exists()


def test_a_class_that_the_run_does_not_know(run, corrections, tmp_path):
    (run.folder / "adapter" / "labels.json").write_text(json.dumps([*NAMES, "mining"]))
    with pytest.raises(InputError, match="other labels than the run"):
        apply_corrections(run.folder, corrections, tmp_path / "fixed.csv")


def test_the_original_is_never_overwritten(run, corrections, tmp_path, monkeypatch):
    (tmp_path / "link.csv").symlink_to(run.data)
    os.link(run.data, tmp_path / "hard.csv")
    (tmp_path / "folder").symlink_to(tmp_path)
    monkeypatch.chdir(tmp_path)
    before = {path: path.read_bytes() for path in (run.data, corrections, run.folder / "label_issues.csv")}
    outputs = [
        *before,
        "data.csv",
        "./run/../data.csv",
        "link.csv",
        "hard.csv",
        "folder/data.csv",
        "folder/corrections.csv",
    ]
    for output in outputs:
        for overwrite in (False, True):
            with pytest.raises(InputError, match="is the input itself"):
                apply_corrections(run.folder, corrections, output, overwrite=overwrite)
    assert {path: path.read_bytes() for path in before} == before
    with pytest.raises(InputError, match="is the input itself"):
        apply_corrections(run.folder, corrections, "data.csv", data=str(run.data), overwrite=True)


def test_another_file_is_overwritten_only_when_asked(run, corrections, tmp_path):
    output = tmp_path / "mine.csv"
    output.write_text("mine")
    with pytest.raises(InputError, match="is there already"):
        apply_corrections(run.folder, corrections, output)
    assert output.read_text() == "mine"
    apply_corrections(run.folder, corrections, output, overwrite=True)
    assert len(read_table(output)) == 119
    for wrong, sentence in (
        (tmp_path / "no" / "f.csv", "no folder"),
        (tmp_path / "f.txt", "no known format"),
    ):
        with pytest.raises(InputError, match=sentence):
            apply_corrections(run.folder, corrections, wrong)
