"""Run folders, whole and not, and the reports that come of them."""

import copy
import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from clear_peft.data import LabelNames, escape_formulas, write_table
from clear_peft.errors import InputError
from clear_peft.files import write_json
from clear_peft.label_quality import LabelQuality, TopProbs
from clear_peft.report import render
from clear_peft.report.run import read_record, save_report, write_report
from clear_peft.run_folder import RunConfig
from clear_peft.run_folder.quality_file import save_label_quality

LABELS = ["farming", "sailing", "=weaving"]
HISTOGRAM = {"edges": [-2.0, -1.0, 0.5, 2.0], "right": [3, 1, 0], "wrong": [0, 1, 2]}
FITTED = {
    "family": "gaussian",
    "scale": "log_odds",
    "weights": [0.6, 0.4],
    "means": [-1.0, 1.0],
    "variances": [0.5, 0.25],
    "contradicted": 0.3,
    "agreement": 0.9,
}
EPOCHS = [
    {"epoch": 1, "train_loss": 1.1, "validation_accuracy": 0.4, "step_losses": HISTOGRAM},
    {
        "epoch": 2,
        "train_loss": 0.8,
        "validation_accuracy": 0.6,
        "test_accuracy": 0.7,
        "noise_rate": 0.2,
        "losses": HISTOGRAM | {"parameters": FITTED},
        "restarts": True,
        "gate_rates": {"blocks": [0.5, 0.75], "classes": [0.2, None, 1.0]},
    },
]
METRICS = {
    "test": {"accuracy": 0.8, "macro_f1": 0.75},
    "validation": {"accuracy": 0.6, "macro_f1": 0.5},
    "selected_epoch": 2,
    "epochs": EPOCHS,
    "noise_rate_estimate": 0.2,
    "rows": {"train": 10, "validation": 2, "test": 5},
    "detection": {
        "roc_auc": 0.9,
        "average_precision": 0.8,
        "precision": None,
        "recall": 0.5,
        "wrong": 4,
        "found": 2,
    },
    "train_seconds": 12.5,
    "peak_memory_bytes": 300_000_000,
    "method": "full",
    "peft": None,
    "seed": 0,
    "versions": {"torch": "2.13.0"},
}


def folder_of_a_run(folder, finished=True):
    """What ``train`` leaves behind, without its weights."""
    folder.mkdir(exist_ok=True)
    RunConfig(model="m", data="d.csv", output=str(folder), peft_options={"r": 8}).save(folder)
    write_json(folder / "epochs.json", EPOCHS)
    if finished:
        rng = np.random.default_rng(0)
        given = np.arange(12) % 3
        probabilities = rng.dirichlet(np.ones(3), 12).astype(np.float32)
        own, clean = probabilities[range(12), given], rng.random(12).round(3).astype(np.float32)
        top, alone = TopProbs.of(probabilities), np.arange(12)
        quality = LabelQuality(given, top, own, clean, None, None, alone, "final_model")
        frame = quality.issues(LABELS).drop(columns="group")
        frame.insert(1, "text", [f"=text {row}" for row in frame["row"]])
        frame["split"] = np.where(frame["row"] < 10, "train", "validation")
        (folder / "adapter").mkdir()
        LabelNames(tuple(LABELS)).save(folder / "adapter" / "labels.json")
        write_table(escape_formulas(frame), folder / "label_issues.csv")
        save_label_quality(folder / "label_quality.safetensors", quality, LABELS, noise_found=True)
        write_json(folder / "metrics.json", METRICS)
    return folder


@pytest.fixture
def run(tmp_path):
    return folder_of_a_run(tmp_path / "run")


def test_a_finished_run_is_read_whole(run):
    record = read_record(run)
    assert record.missing == ()
    assert record.name == "run"
    assert (record.config["peft_options"], record.config["epochs"]) == ({"r": 8}, 10)
    assert record.epochs == EPOCHS
    assert record.metrics == {name: value for name, value in METRICS.items() if name != "epochs"}
    assert record.metrics["peft"] is None, "all weights were trained, whatever the configuration says of PEFT"
    assert record.audit.labels == LABELS
    assert record.audit.issues["text"].str.startswith("=text").all()


def test_an_unfinished_run_is_a_record_without_metrics(tmp_path):
    record = read_record(folder_of_a_run(tmp_path / "run", finished=False))
    assert (record.metrics, record.audit, record.missing) == (None, None, ())
    assert record.epochs == EPOCHS
    (tmp_path / "run" / "epochs.json").unlink()
    assert read_record(tmp_path / "run").epochs == []


@pytest.mark.parametrize("place", [".", "run/"])
def test_the_name_is_the_folders(run, monkeypatch, place):
    monkeypatch.chdir(run if place == "." else run.parent)
    assert read_record(place).name == "run"


@pytest.mark.parametrize(
    ("piece", "said", "there"),
    [
        ("config.yaml", "config.yaml is missing", {"metrics", "epochs"}),
        ("epochs.json", None, {"config", "metrics", "epochs", "audit"}),
        ("label_issues.csv", "label_issues.csv is missing", {"config", "metrics", "epochs"}),
        ("adapter/labels.json", "labels.json is missing", {"config", "metrics", "epochs"}),
        (
            "label_quality.safetensors",
            "label_quality.safetensors is missing",
            {"config", "metrics", "epochs"},
        ),
        ("metrics.json", None, {"config", "epochs", "audit"}),
    ],
)
def test_a_missing_piece_is_said(run, piece, said, there):
    (run / piece).unlink()
    record = read_record(run)
    names = ("config", "metrics", "epochs", "audit")
    assert {name for name in names if getattr(record, name)} == there
    assert (said in " ".join(record.missing)) if said else record.missing == ()
    assert "<html" in render(record)


def test_what_is_no_run_is_refused(tmp_path):
    for folder in (tmp_path, tmp_path / "none"):
        with pytest.raises(InputError, match="is no run folder: give one"):
            write_report(folder)
    (tmp_path / "config.yaml").write_text("hydra: {}")
    with pytest.raises(InputError, match=r"is no run folder \(.*unknown keys \(hydra\).*\): give one"):
        write_report(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["config.yaml"]


def test_the_report_lies_in_the_folder(run):
    path = write_report(run)
    assert path == run / "report.html"
    page = path.read_text(encoding="utf-8")
    assert "d.csv" in page
    assert [p.name for p in run.glob(".*")] == []


def test_a_page_is_not_written_through_a_link_or_over_something_else(run, tmp_path):
    (tmp_path / "precious").write_text("mine")
    (run / "report.html").symlink_to(tmp_path / "precious")
    with pytest.raises(InputError, match="symbolic link"):
        write_report(run)
    assert (tmp_path / "precious").read_text() == "mine"
    with pytest.raises(InputError, match=r"does not end in \.html"):
        save_report(read_record(run), run / "config.yaml")


BOMB = "a: &a [x]\n" + "".join(
    f"{b}: &{b} [{f'*{a}, ' * 9}]\n" for a, b in zip("abcdefgh", "bcdefghi", strict=True)
)
HOSTILE = {
    "empty": b"",
    "NUL": b"\0" * 99,
    "no UTF-8": b"\xff\xfe\x00",
    "a pickle": b"\x80\x04\x95cposix\nsystem\n(S'touch pwned'\ntR.",
    "a list": b"[]",
    "a number": b"1",
    "null": b"null",
    "deep": b"[" * 20_000,
    "NaN": b'{"epoch": NaN, "test": {"accuracy": Infinity}}',
    "a long number": b'{"selected_epoch": ' + b"9" * 5000 + b"}",
    "other types": b'{"test": [], "rows": "many", "versions": [1], "detection": 4, "epochs": {"a": 1}}',
    "epochs of other types": b'[1, null, [], {"epoch": "x"}, {"epoch": 1, "losses": [1], "gate_rates": []}]',
    "a yes that is a number": b'[{"epoch": 1, "restarts": 1}]',
    "a tag": b"model: !!python/object/apply:os.system [touch pwned]",
    "a bomb": f"{BOMB}model: m\ndata: d\noutput: o\npeft_options: {{r: *i}}\n".encode(),
    "odd keys": b"model: m\ndata: d\noutput: o\npeft_options: {r: {2020-01-01: 1, null: .nan}}\n",
    "a long number in YAML": b"model: m\ndata: d\noutput: o\npeft_options: {r: 0x" + b"f" * 9000 + b"}\n",
    "rows": b"row,text\n0,a\n",
    "a long header": (2**60).to_bytes(8, "little") + b"{}",
}
PIECES = ["config.yaml", "epochs.json", "metrics.json", "adapter/labels.json", "label_issues.csv"]


@pytest.mark.parametrize("piece", [*PIECES, "label_quality.safetensors"])
@pytest.mark.parametrize("content", HOSTILE)
def test_hostile_files_are_left_out(run, monkeypatch, piece, content):
    monkeypatch.chdir(run)
    (run / piece).write_bytes(HOSTILE[content])
    if piece == "epochs.json":
        (run / "metrics.json").unlink()  # or it would not be read
    record = read_record(run)
    page = render(record)
    assert not Path("pwned").exists()
    harmless = {("config.yaml", "odd keys"), ("epochs.json", "a list")}
    assert record.missing or (piece, content) in harmless
    assert all(sentence.endswith(".") and "\n" not in sentence for sentence in record.missing)
    assert len(page) < 2_000_000


@pytest.mark.parametrize("piece", PIECES)
def test_a_folder_or_a_pipe_in_the_place_of_a_file(run, piece):
    import os

    for make in (Path.mkdir, os.mkfifo):
        (run / piece).unlink() if (run / piece).is_file() else (run / piece).rmdir()
        make(run / piece)
        read_record(run)


def test_what_no_run_writes_is_named(run):
    epochs = [{"epoch": 1, "train_loss": "low", "validation_accuracy": 1.5, "noise_rate": None}, 7]
    write_json(run / "metrics.json", METRICS | {"epochs": epochs, "rows": {"train": -1}})
    record = read_record(run)
    assert record.epochs == [{"epoch": 1, "noise_rate": None}]
    assert "rows" not in record.metrics
    assert record.missing == (
        "metrics.json holds what no run writes, which is left out: rows.",
        "metrics.json holds what no run writes, which is left out: train_loss of epoch 1, "
        "validation_accuracy of epoch 1, an epoch without a number.",
    )


@pytest.mark.parametrize(
    "change",
    [
        {"edges": [0, 0, 1, 2]},
        {"edges": [0, 1]},
        {"edges": [0, 1, 2, float("nan")]},
        {"edges": []},
        {"right": [1, 2]},
        {"right": [-1, 2, 3]},
        {"right": [0, 0, 0], "wrong": [0, 0, 0]},
        {"parameters": {"family": "cauchy"}},
        {"parameters": {"family": "none"}},
        {"parameters": {"family": None}},
        {"parameters": {"family": "gaussian", "means": [0, 1]}},
        {"parameters": FITTED | {"variances": [0, 1]}},
        {"parameters": FITTED | {"weights": [0.5]}},
        {"parameters": FITTED | {"family": "beta", "means": [0.2, 0.8], "low": 1, "high": 1}},
        {"parameters": FITTED | {"scale": "feet"}},
        {"parameters": [1]},
    ],
)
def test_a_histogram_that_cannot_be_drawn_is_left_out(run, change):
    epochs = [{"epoch": 1, "losses": HISTOGRAM | change}]
    (run / "metrics.json").write_text(json.dumps(METRICS | {"epochs": epochs}))
    record = read_record(run)
    assert record.epochs == [{"epoch": 1}]
    assert "losses of epoch 1" in " ".join(record.missing)


VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5) | st.just(10**400),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=6,
)


def places(value, path=()):
    """The way to everything inside a JSON value."""
    pairs = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, item in pairs:
        yield (*path, key)
        yield from places(item, (*path, key))


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.data())
def test_any_one_figure_may_be_anything(run, data):
    metrics = copy.deepcopy(METRICS)
    *way, last = data.draw(st.sampled_from(list(places(METRICS))))
    inner = metrics
    for key in way:
        inner = inner[key]
    inner[last] = data.draw(VALUES)
    (run / "metrics.json").write_text(json.dumps(metrics))
    render(read_record(run))


def test_reading_and_rendering_need_no_torch(run):
    code = (
        "import sys; from clear_peft.report.run import write_report; write_report(sys.argv[1]);"
        "print([m for m in ('torch', 'transformers', 'peft', 'datasets') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code, run], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
