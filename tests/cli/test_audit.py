"""``audit``: what it says, what it writes, and that it needs no torch."""

import json
import shlex
import subprocess
import sys

import pytest

from audit.written_run import NAMES, NASTY, corrections_of, write_run
from clear_peft.cli.output import chance
from clear_peft.data import read_table, write_table


@pytest.fixture
def run(tmp_path):
    return write_run(tmp_path)


@pytest.fixture
def corrections(run, tmp_path):
    decisions = [(3, "relabel", "weaving"), (7, "drop", ""), (20, "keep", "")]
    write_table(corrections_of(run, decisions), tmp_path / "corrections.csv")
    return tmp_path / "corrections.csv"


def test_to_a_program(cli, run, tmp_path):
    end = cli("audit", "--run", run.folder, "--output", tmp_path / "audited.csv", "--format", "json")
    assert (end.status, end.err) == (0, "")
    said = json.loads(end.out)
    listed = run.issues["clean_probability"] < 0.5
    assert (said["rows"], said["listed"], said["threshold"]) == (120, listed.sum(), 0.5)
    assert said["noise_rate_interval"] == [0.2, 0.4]
    assert said["expected_precision"] == pytest.approx((1 - run.issues["clean_probability"][listed]).mean())
    assert [row["row"] for row in said["most_suspicious"]] == run.issues["row"][:10].tolist()
    assert all(pair["true"] != pair["given"] and pair["rows"] >= 0.5 for pair in said["confused"])
    assert said["duplicates"] == {"groups": 0, "rows": 0, "conflicting_groups": 0, "conflicting_rows": []}
    assert len(read_table(tmp_path / "audited.csv")) == 120
    assert cli("audit", "--run", run.folder, "--format", "quiet").out == ""


def test_to_a_person(cli, run, monkeypatch):
    monkeypatch.setenv("COLUMNS", "200")
    end = cli("audit", "--run", run.folder, "--threshold", 1)
    assert end.status == 0
    for words in (
        "Most suspicious rows",
        "of 120 rows listed",
        "95 % interval",
        "linear probe",
        "most often taken for each other",
        "0 groups of texts",
    ):
        assert words in end.out
    assert f"labelled {NAMES[0]}: about" in end.out


def test_a_row_takes_one_line_of_a_narrow_terminal(cli, run, monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")
    lines = cli("audit", "--run", run.folder).out.splitlines()
    assert all(len(line) == 80 for line in lines if line.startswith("│"))
    shown = [line.split()[1] for line in lines if line.startswith("│")]
    assert shown == [str(row) for row in run.issues["row"][:10]]


def test_chances_are_not_surer_than_anybody_should_be():
    assert [chance(p) for p in (0.0, 0.0049, 0.005, 0.25, 1.0)] == ["<1%", "<1%", "0.5%", "25.0%", "100.0%"]


def test_texts_cannot_steer_the_terminal(cli, tmp_path, monkeypatch):
    monkeypatch.setenv("COLUMNS", "200")
    run = write_run(tmp_path, rows=len(NASTY), noise=0.5)
    out = cli("audit", "--run", run.folder).out
    for text in run.issues["text"][:10]:
        assert (
            text[:30]
            .replace("\r", "\\r")
            .replace("\n", "\\n")
            .replace("\x1b", "\\x1b")
            .replace("\u202e", "\\u202e")
            in out
        )
    assert not any(sign in out for sign in "\x1b\u202e\r")


def test_corrections_are_applied_and_the_next_command_named(cli, run, corrections, tmp_path):
    fixed = tmp_path / "fixed it.csv"
    words = ("audit", "--run", run.folder, "--apply", corrections, "--output", fixed)
    end = cli(*words)
    assert end.status == 0
    assert f"119 rows: {fixed} (1 relabelled, 1 dropped, 1 kept as they were)" in end.out
    command = shlex.split(end.out.splitlines()[-1].partition(": ")[2])
    assert command[:2] == ["clear-peft", "train"]
    options = dict(zip(command[2::2], command[3::2], strict=True))
    assert options == {
        "--config": str(run.folder / "config.yaml"),
        "--data": str(fixed),
        "--output": f"{run.folder}-corrected",
    }
    again = cli(*words, "--overwrite", "--format", "json")
    assert json.loads(again.out) == {
        "rows": 119,
        "relabelled": 1,
        "dropped": 1,
        "kept": 1,
        "output": str(fixed),
        "train": shlex.join(command),
    }


def test_the_next_run_is_never_inside_this_one(cli, run, corrections, tmp_path, monkeypatch):
    monkeypatch.chdir(run.folder)
    end = cli("audit", "--run", ".", "--apply", corrections, "--output", tmp_path / "fixed.csv")
    assert shlex.split(end.out.splitlines()[-1])[-1] == f"{run.folder}-corrected"


def test_the_named_command_trains_on_the_result(cli, finished, tmp_path):
    folder = finished("clear", "lora")
    issues = read_table(folder / "label_issues.csv").iloc[:5]
    decisions = issues[["row", "given_label", "text"]].assign(action="drop", label="")
    write_table(decisions, tmp_path / "corrections.csv")
    fixed = tmp_path / "fixed.csv"
    end = cli(
        "audit",
        "--run",
        folder,
        "--apply",
        tmp_path / "corrections.csv",
        "--output",
        fixed,
        "--format",
        "json",
    )
    assert (end.status, end.err) == (0, "")
    command = shlex.split(json.loads(end.out)["train"])[1:-1]
    end = cli(*command, tmp_path / "again", "--format", "quiet")
    assert (end.status, end.err) == (0, "")
    assert len(read_table(tmp_path / "again" / "label_issues.csv")) == 91
    assert cli("audit", "--run", tmp_path / "again", "--format", "json").status == 0


REFUSED = {
    "no run": (["--run", "nowhere"], "is no run folder"),
    "no output to apply to": (["--apply", "corrections.csv"], "--apply needs --output"),
    "data without corrections": (["--data", "data.csv"], "--data goes with --apply"),
    "no threshold": (["--threshold", "2"], "threshold is 2.0"),
    "no such corrections": (["--apply", "no.csv", "--output", "fixed.csv"], "Cannot read 'no.csv'"),
    "the original": (
        ["--apply", "corrections.csv", "--output", "data.csv", "--overwrite"],
        "is the input itself",
    ),
    "its own table": (["--output", "data.csv", "--overwrite"], "is the input itself"),
    "there already": (["--output", "corrections.csv"], "is there already"),
    "no ending": (["--output", "audited"], "no known format"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_wrong_input_is_one_sentence(cli, run, corrections, tmp_path, monkeypatch, case):
    monkeypatch.chdir(tmp_path)
    words, sentence = REFUSED[case]
    before = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    run_option = [] if "--run" in words else ["--run", "run"]
    end = cli("audit", *run_option, *words, "--format", "quiet")
    assert (end.status, end.out) == (2, "")
    assert sentence in end.err
    assert end.err.count("\n") == 1
    assert {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()} == before


def test_it_needs_no_torch(run, corrections, tmp_path):
    code = (
        "import sys\n"
        "from clear_peft.cli import main\n"
        "try:\n    main()\n"
        "except SystemExit as end:\n    assert not end.code, end.code\n"
        "heavy = {'torch', 'transformers', 'peft', 'datasets', 'cleanlab'} & set(sys.modules)\n"
        "assert not heavy, heavy\n"
    )
    audit = ["audit", "--run", str(run.folder), "--format", "quiet"]
    fixed = ["--apply", str(corrections), "--output", str(tmp_path / "fixed.csv")]
    for words in (audit, [*audit, *fixed]):
        subprocess.run([sys.executable, "-c", code, *words], check=True)
