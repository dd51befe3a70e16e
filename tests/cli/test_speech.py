"""What commands say, where, and how fast."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from clear_peft.cli.output import Output, counted
from clear_peft.errors import RunFailedError


def _shell(*words, **more):
    program = Path(sys.executable).with_name("clear-peft")
    return subprocess.run([program, *map(str, words)], capture_output=True, text=True, check=False, **more)


@pytest.mark.parametrize("words", [[], ["--help"], ["-h"], ["train", "-h"]])
def test_help(cli, words):
    end = cli(*words)
    assert end.status == 0
    assert "Usage" in end.out
    assert end.err == ""


def test_version(cli):
    from clear_peft import __version__

    assert cli("--version").out == f"{__version__}\n"


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["train"], "Missing option"),
        (["train", "--nope"], "No such option"),
        (["nope"], "No such command"),
        (["evaluate", "--run", "x", "--data", "y", "--format", "loud"], "--format"),
        (["train", "--model", "m", "--data", "d", "--output", "o", "--epochs", "ten"], "--epochs"),
    ],
)
def test_wrong_usage_is_one_line_and_status_2(cli, words, expected):
    end = cli(*words)
    assert end.status == 2
    assert end.out == ""
    assert end.err.startswith("clear-peft: ")
    assert expected in end.err
    assert end.err.count("\n") == 1


@pytest.mark.parametrize(
    "words",
    [
        ["scan", "--data", "x.csv"],
        ["predict", "--run", "x", "--data", "x.csv", "--output", "y.csv"],
        ["bench", "run", "--grid", "x"],
    ],
)
def test_only_train_runs_in_several_processes(cli, monkeypatch, words):
    monkeypatch.setenv("WORLD_SIZE", "2")  # as a cluster may, for a process that is by itself
    assert "runs in one process" not in cli(*words).err
    monkeypatch.setenv("LOCAL_RANK", "0")
    end = cli(*words)
    assert end.status == 2
    assert end.err == f"clear-peft: {words[0]} runs in one process, and here are 2: start one.\n"


@pytest.mark.parametrize("words", [["--format", "json"], ["--format=json"]])
def test_errors_as_json(cli, words):
    end = cli("evaluate", *words, "--run", "nowhere", "--data", "json")
    assert (end.status, end.out) == (2, "")
    assert "no run folder" in json.loads(end.err)["error"]
    usage = cli("train", *words, "--epochs", "ten")
    assert "--epochs" in json.loads(usage.err)["error"]


def test_the_word_json_elsewhere_changes_nothing(cli):
    assert cli("evaluate", "--run", "json", "--data", "json").err.endswith("has written.\n")
    assert cli("evaluate", "--run", "json", "--data", "json").err.startswith(("clear-peft: ", "Evaluating"))


def test_train_as_json_prints_one_object(cli, place, tmp_path):
    end = cli("train", *place.options(tmp_path / "run", epochs=1, format="json"))
    assert (end.status, end.err) == (0, "")
    assert json.loads(end.out) == json.loads((tmp_path / "run" / "metrics.json").read_text())


def test_train_quietly_prints_nothing(cli, place, tmp_path):
    end = cli("train", *place.options(tmp_path / "run", epochs=1, method="full"))
    assert (end.status, end.out, end.err) == (0, "", "")


@pytest.mark.slow
def test_train_in_a_pipe_prints_plain_lines_and_no_library_noise(place, tmp_path):
    words = place.options(tmp_path / "run", epochs=2, format=None, method="plain", test=place.test)
    end = _shell("train", *words)
    assert end.returncode == 0
    lines = end.stderr.splitlines()
    assert [line.split()[0] for line in lines] == [
        "Reading",
        "Loading",
        "Training",
        "epoch",
        "epoch",
        "Writing",
    ]
    assert all(line.isprintable() for line in lines)
    assert end.stdout.startswith("Selected epoch")
    assert str(tmp_path / "run" / "adapter") in end.stdout


@pytest.mark.slow
def test_a_terminal_that_knows_no_unicode(place, tmp_path):
    env = {**os.environ, "PYTHONIOENCODING": "ascii"}
    end = _shell("train", *place.options(tmp_path / "é", epochs=1, format=None, method="plain"), env=env)
    assert (end.returncode, "Traceback" in end.stderr) == (0, False)


def test_ctrl_c(cli, place, tmp_path, monkeypatch):
    from transformers import Trainer

    def interrupted(*_, **__):
        raise KeyboardInterrupt

    monkeypatch.setattr(Trainer, "train", interrupted)
    end = cli("train", *place.options(tmp_path / "run"))
    assert end.status == 130
    assert end.err == "clear-peft: Interrupted; --resume goes on from the last checkpoint, if there is one.\n"
    monkeypatch.undo()
    assert cli("train", *place.options(tmp_path / "run", resume=True)).status == 0


def test_ctrl_c_before_the_command_begins(cli, monkeypatch):
    def interrupted(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr("typer.main.get_command", interrupted)
    end = cli("--version")
    assert (end.status, end.err.count("\n")) == (130, 1)


def test_a_full_disk_is_no_wrong_input(cli, place, tmp_path, monkeypatch):
    from transformers import Trainer

    def full(*_, **__):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Trainer, "train", full)
    end = cli("train", *place.options(tmp_path / "run"))
    assert end.status == 1
    assert "No space left on device" in end.err
    assert end.err.count("\n") == 1


def test_a_run_that_fails_is_no_wrong_input(cli, place, tmp_path, monkeypatch):
    from transformers import Trainer

    def diverging(*_, **__):
        raise RunFailedError("The loss is not finite: lower the learning rate.")

    monkeypatch.setattr(Trainer, "train", diverging)
    end = cli("train", *place.options(tmp_path / "run"))
    assert (end.status, end.out) == (1, "")
    assert end.err == "clear-peft: The loss is not finite: lower the learning rate.\n"
    assert not (tmp_path / "run").exists()


def test_a_restart_is_said(capsys):
    out = Output()
    out.epoch({"epoch": 2, "train_loss": 1.0, "restarts": True})
    out.epoch({"epoch": 3, "train_loss": 2.0})
    assert [line.strip()[:18] for line in capsys.readouterr().err.splitlines()] == [
        *("epoch 2, loss 1.00", "Noise was found: t", "epoch 3, loss 2.00")
    ]


def test_what_only_another_process_finds_wrong_is_said_too(cli, monkeypatch):
    """In its turn: what all find wrong the first has said by then, and torchrun has ended the others."""
    waited = []
    monkeypatch.setenv("RANK", "1")
    monkeypatch.setattr("time.sleep", waited.append)
    end = cli("train", "--nonsense")
    assert (end.status, len(waited)) == (2, 1)
    assert "No such option" in end.err


def test_long_names_of_classes_leave_room_for_the_text(monkeypatch, capsys):
    monkeypatch.setenv("COLUMNS", "80")
    row = {"row": 7, "clean_probability": 0.25, "text": "the parcel never came"}
    labels = {"given_label": "shipping " * 5, "predicted_label": "billing " * 5}
    Output().suspicious({"most_suspicious": [row | labels]}, [])
    (line,) = [line for line in capsys.readouterr().out.splitlines() if " 7 " in line]
    assert "shipping shippin…" in line
    assert "the parcel never…" in line


@pytest.mark.parametrize(("number", "said"), [(0, "0 rows"), (1, "1 row"), (0.6, "1 row"), (2.4, "2 rows")])
def test_numbers_of_things(number, said):
    assert counted(number, "row") == said
