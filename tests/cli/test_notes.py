"""What libraries and the package remark while a command runs, and what of it a person sees."""

import io
import json
import logging
import sys
import warnings

import pytest

from clear_peft.cli.notes import _Notes
from clear_peft.cli.output import Format, Output
from clear_peft.errors import ClearWarning

SCORES = {"accuracy": 1.0, "macro_f1": 1.0, "examples": 3, "classes": [], "confusion_matrix": []}


def _library():
    """The logger of one that, like transformers, writes to stderr itself and passes nothing on."""
    top = logging.getLogger("somelib")
    top.handlers, top.propagate = [logging.StreamHandler()], False
    return logging.getLogger("somelib.inner")


@pytest.fixture
def evaluate(cli, monkeypatch):
    """``evaluate``, in which something is remarked."""

    def call(remark, *words, before=()):
        def evaluated(*_, **__):
            remark()
            return SCORES

        monkeypatch.setattr("clear_peft.pipeline.commands.evaluate", evaluated)
        return cli(*before, "evaluate", "--run", "r", "--data", "d", *words)

    yield call
    somelib = logging.getLogger("somelib")
    somelib.handlers, somelib.propagate = [], True


def _remark():
    library = _library()
    for _ in range(2):
        warnings.warn("three rows are empty", ClearWarning, stacklevel=1)
        library.warning("falling back to %s", "float32")
    library.info("loaded")
    library.error("no disk")
    warnings.warn("this will change", FutureWarning, stacklevel=1)
    logging.getLogger("otherlib").warning("old format")
    for logger, text in (
        ("transformers.modeling_utils", "BertModel LOAD REPORT from: x"),
        ("transformers.trainer_utils", "mtime may not be reliable on this filesystem, falling back"),
    ):
        logging.getLogger(logger).warning(text)


NOTES = [
    "three rows are empty",
    "somelib: falling back to float32",
    "somelib: no disk",
    "otherlib: old format",
]


def test_a_person_gets_a_line_each_and_once(evaluate):
    end = evaluate(_remark)
    assert end.status == 0
    assert end.err.splitlines() == ["Evaluating on d …", *(f"Note: {note}" for note in NOTES)]


def test_a_program_gets_json(evaluate):
    end = evaluate(_remark, "--format", "json")
    assert json.loads(end.out) == SCORES
    assert [json.loads(line) for line in end.err.splitlines()] == [{"note": note} for note in NOTES]


def test_quiet_is_quiet(evaluate):
    end = evaluate(_remark, "--format", "quiet")
    assert (end.status, end.out, end.err) == (0, "", "")


def test_of_several_processes_the_first_one_speaks(evaluate, monkeypatch):
    monkeypatch.setenv("RANK", "1")
    assert evaluate(_remark).err.splitlines() == ["Evaluating on d …"]


def test_verbose_shows_everything(evaluate, monkeypatch):
    for library in ("TRANSFORMERS", "DATASETS", "HF_HUB"):
        monkeypatch.setenv(f"{library}_VERBOSITY", "warning")  # what the environment says counts
    said = evaluate(_remark, before=["--verbose"]).err
    assert said.count("Note: WARNING somelib.inner: falling back to float32") == 2
    for line in (
        "Note: INFO somelib.inner: loaded",
        "Note: WARNING transformers.modeling_utils: BertModel LOAD REPORT",
        "Note: this will change (FutureWarning, ",
    ):
        assert line in said


def test_a_line_that_its_library_got_wrong_stops_nothing(capsys):
    broken = logging.makeLogRecord({"name": "a.b", "levelno": 30, "msg": "%d rows", "args": ("no number",)})
    _Notes(Output()).handle(broken)
    assert capsys.readouterr().err == "Note: a: %d rows\n"


def test_what_it_does_to_logging_ends_with_the_command(evaluate):
    root = logging.getLogger()
    before = logging.getLogRecordFactory(), list(root.handlers), root.level, warnings.showwarning
    evaluate(_remark)
    assert before == (logging.getLogRecordFactory(), list(root.handlers), root.level, warnings.showwarning)


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("[bold]x[/bold] [/]", "[bold]x[/bold] [/]"),
        ("\x1b[1mloud\x1b[0m", "loud"),
        ("\x1b]0;title\x07", "\\x1b]0;title\\x07"),
        ("two\r\nlines", "two lines"),
        ("a\u202eb", "a\\u202eb"),
        ("é 漢", "\\xe9 \\u6f22"),
        ("\ud800", "\\ud800"),
    ],
)
def test_a_note_is_plain_text_on_any_terminal(monkeypatch, text, shown):
    raw = io.BytesIO()
    monkeypatch.setattr(sys, "stderr", io.TextIOWrapper(raw, encoding="ascii"))
    output = Output()
    output.note(text)
    sys.stderr.flush()
    assert raw.getvalue().decode() == f"Note: {shown}\n"


def test_texts_that_a_terminal_cannot_show_are_escaped(monkeypatch):
    raw = io.BytesIO()
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(raw, encoding="ascii"))
    row = {"row": 1, "given_label": "é", "predicted_label": "👍", "clean_probability": 0.5, "text": "ж"}
    Output().suspicious({"most_suspicious": [row]}, ["été"])
    sys.stdout.flush()
    said = raw.getvalue().decode("ascii")
    assert all(escaped in said for escaped in ("\\xe9", "\\U0001f44d", "\\u0436", "\\xe9t\\xe9"))


@pytest.mark.parametrize("encoding", ["ascii", "cp1252", "utf-8", "latin-1"])
def test_json_can_be_read_whatever_the_terminal_shows(monkeypatch, encoding):
    raw = io.BytesIO()
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(raw, encoding=encoding, newline=""))
    values = {"é": ["café", "👍", "ж", "\x85", "\\"]}
    output = Output()
    output.format = Format.json
    output.result(values, [])
    sys.stdout.flush()
    assert json.loads(raw.getvalue().decode(encoding)) == values
