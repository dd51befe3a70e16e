"""Figures of a run as files."""

import re
import sys
import xml.etree.ElementTree as ET
from dataclasses import replace

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from records import many_classes_record, small_record

from clear_peft.errors import InputError
from clear_peft.report.figures import write_figures

ALL = ["accuracy", "losses", "gate_rates", "confusion"]


def words(path):
    text = path.read_text(encoding="utf-8")
    ET.fromstring(text)
    return re.findall(r"<!-- (.*?) -->", text, re.S)


@pytest.fixture
def record():
    return small_record()


def test_every_figure_says_what_it_shows(record, tmp_path):
    files = write_figures(record, tmp_path / "deep" / "figures")
    assert [file.stem for file in files] == ALL
    said = {file.stem: set(words(file)) for file in files}
    assert {"validation, labels as given", "test", "selected epoch", "restarted"} <= said["accuracy"]
    assert {"right labels", "wrong labels", "fitted mixture", "epoch 2"} <= said["losses"]
    assert {"sport", "routed through, by block", "routed through, by given class"} <= said["gate_rates"]
    assert {"1", "6"} <= said["gate_rates"]  # blocks count from 1, as they do on the page
    assert {"sport", "given label", "true class, estimated"} <= said["confusion"]


def test_first_and_last_scored_epoch(record, tmp_path):
    epochs = [dict(epoch, epoch=i) for i, epoch in enumerate([record.epochs[1]] * 3, start=4)]
    (file,) = [f for f in write_figures(replace(record, epochs=epochs), tmp_path) if f.stem == "losses"]
    assert {"epoch 4", "epoch 6"} <= set(words(file))
    assert "epoch 5" not in words(file)


def test_epochs_keep_their_numbers_where_not_all_are_named(record, tmp_path):
    gates = {"blocks": [0.5, 1.0], "classes": [None] * 5}
    epochs = [{"epoch": i, "gate_rates": gates} for i in range(10, 30)]
    (file,) = write_figures(replace(record, epochs=epochs, metrics=None, audit=None), tmp_path)
    assert [word for word in words(file) if word in map(str, range(10, 30))][:7] == [
        *("10", "13", "16", "19", "22", "25", "28")
    ]


def test_a_test_measured_once_is_a_mark(record, tmp_path):
    epochs = [{"epoch": 1, "validation_accuracy": 0.5}, {"epoch": 3, "validation_accuracy": 0.6}]
    (file,) = write_figures(replace(record, epochs=epochs, audit=None), tmp_path)
    assert {"test", "selected epoch"} <= set(words(file))


def test_what_there_is_nothing_for_is_left_out(record, tmp_path):
    unfinished = replace(record, epochs=[{"epoch": 1}], metrics=None, audit=None)
    assert write_figures(unfinished, tmp_path) == []
    (file,) = write_figures(replace(unfinished, audit=record.audit), tmp_path)
    assert file.stem == "confusion"


def test_the_same_run_gives_the_same_files(record, tmp_path):
    one, two = (write_figures(record, tmp_path / name) for name in "ab")
    assert [file.read_bytes() for file in one] == [file.read_bytes() for file in two]


def test_png_and_many_classes(tmp_path):
    record = replace(many_classes_record(classes=90, rows=300), epochs=[])
    files = write_figures(record, tmp_path, "png")
    assert [file.stem for file in files] == ["confusion"]
    assert all(file.read_bytes().startswith(b"\x89PNG") for file in files)


LABELS = st.lists(st.text(min_size=1, max_size=30).filter(str.strip), min_size=2, max_size=2, unique=True)


@settings(max_examples=8, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(LABELS)
def test_any_label_can_be_drawn(tmp_path, labels):
    base = replace(small_record(labels=("a", "b")), epochs=[])
    record = replace(base, audit=replace(base.audit, labels=labels))
    for file in write_figures(record, tmp_path):
        words(file)


@pytest.mark.parametrize(
    "label", ["$\\frac$", "</text><script>", "a\0b", "\ud800", "--><x>", "日本", "\u202eab"]
)
def test_hostile_labels(tmp_path, label):
    base = replace(small_record(labels=("a", "b")), epochs=[])
    (file,) = write_figures(replace(base, audit=replace(base.audit, labels=[label, "b"])), tmp_path)
    assert "script" not in {element.tag.rpartition("}")[2] for element in ET.parse(file).iter()}


def test_without_matplotlib(record, monkeypatch, tmp_path):
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    with pytest.raises(InputError, match="pip install 'matplotlib>="):
        write_figures(record, tmp_path / "figures")
    assert not (tmp_path / "figures").exists()


def test_a_folder_that_cannot_be(record, tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(InputError, match="Cannot make the folder"):
        write_figures(record, tmp_path / "file")
