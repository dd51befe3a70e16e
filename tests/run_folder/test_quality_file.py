"""``label_quality.safetensors``: written whole or not at all, read back or refused in a sentence."""

import json
import os
from contextlib import suppress

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors import safe_open
from safetensors.numpy import save_file

from clear_peft.errors import InputError
from clear_peft.label_quality import LabelQuality, NoiseModel, TopProbs
from clear_peft.run_folder.layout import LABEL_QUALITY
from clear_peft.run_folder.quality_file import load_label_quality, save_label_quality

NAMES = ["farming", "sailing", "=weaving"]


def quality(rows=7, classes=3, noise=True, row=None):
    rng = np.random.default_rng(0)
    labels, pred_probs = rng.integers(0, classes, rows), rng.dirichlet(np.ones(classes), rows)
    return LabelQuality(
        labels,
        TopProbs.of(pred_probs),
        pred_probs[range(rows), labels].astype(np.float32),
        rng.random(rows, np.float32),
        NoiseModel("symmetric", np.full((classes, classes), 1 / classes)) if noise else None,
        (0.1, 0.3) if noise else None,
        np.arange(rows)[::-1] // 2,  # not contiguous
        "out_of_sample" if noise else "final_model",
        row,
    )


@pytest.fixture
def path(tmp_path):
    return tmp_path / LABEL_QUALITY


@pytest.mark.parametrize("noise_found", [True, False])
@pytest.mark.parametrize("noise", [True, False])
@pytest.mark.parametrize("classes", [3, 64, 65])
def test_it_comes_back(path, noise_found, noise, classes):
    names = [f"class {i}" for i in range(classes)]
    written = quality(classes=classes, noise=noise)
    save_label_quality(path, written, names, noise_found=noise_found)
    back, used = load_label_quality(path, names)
    assert used is noise_found
    (arrays, rest), (others, other) = written.arrays(), back.arrays()
    assert rest == other
    assert arrays.keys() == others.keys()
    for name, array in arrays.items():
        assert others[name].dtype == array.dtype
        np.testing.assert_array_equal(others[name], array)
    assert [p.name for p in path.parent.iterdir()] == [path.name]


def test_the_classes_are_those_of_the_run(path):
    save_label_quality(path, quality(), NAMES, noise_found=True)
    for names in (NAMES[::-1], NAMES[:2], [*NAMES, "mining"], []):
        with pytest.raises(InputError, match="about other rows or labels than the run"):
            load_label_quality(path, names)


@pytest.mark.parametrize("row", [np.arange(7) - 1, np.arange(7)[::-1], np.zeros(7, np.int64)])
def test_the_rows_are_in_the_order_of_a_table(path, row):
    save_label_quality(path, quality(row=row), NAMES, noise_found=True)
    with pytest.raises(InputError, match="about other rows or labels than the run"):
        load_label_quality(path, NAMES)


def test_names_that_are_fewer_than_the_classes(path):
    """The file itself says so; its probabilities are of three."""
    save_label_quality(path, quality(), NAMES[:2], noise_found=True)
    with pytest.raises(InputError, match="about other rows or labels than the run"):
        load_label_quality(path, NAMES[:2])


@pytest.mark.parametrize(
    "about",
    [
        None,
        {"clear": ""},
        {"clear": "[]"},
        {"clear": "3"},
        {"clear": "{}"},
        {"clear": "[" * 200_000},
        {"other": "{}"},
        {"num_classes": 10**12},
        {"num_classes": float("inf")},
        {"num_classes": None},
        {"labels": None},
        {"labels": "farming"},
        {"noise_found": None},
        {"source": "guess"},
        {"noise": "much"},
        {"noise_rate_interval": [0, 10**400]},
        {"noise_rate_interval": {}},
    ],
    ids=lambda about: str(about)[:40],
)
def test_what_it_says_of_itself_is_looked_at(path, about):
    save_label_quality(path, quality(), NAMES, noise_found=True)
    with safe_open(path, "np") as file:
        arrays = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        whole = json.loads(file.metadata()["clear"])
    if about is not None and not {"clear", "other"} & about.keys():
        about = {"clear": json.dumps(whole | about)}
    save_file(arrays, path, about)
    with pytest.raises(InputError, match=r"is damaged|other rows or labels") as refusal:
        load_label_quality(path, NAMES)
    assert "\n" not in str(refusal.value)
    assert str(path) in str(refusal.value)


@pytest.mark.parametrize("content", [b"", b"\0" * 99, b"\x80\x04N.", (2**60).to_bytes(8, "little") + b"{}"])
def test_what_is_no_such_file(path, content):
    path.write_bytes(content)
    with pytest.raises(InputError, match="is damaged"):
        load_label_quality(path, NAMES)


def test_a_file_that_is_not_there(path):
    with pytest.raises(InputError):
        load_label_quality(path, NAMES)


@settings(max_examples=200, deadline=None)
@given(place=st.integers(0, 10**6), value=st.integers(0, 255))
def test_a_byte_that_is_another_is_no_traceback(tmp_path_factory, place, value):
    path = tmp_path_factory.mktemp("run") / LABEL_QUALITY
    save_label_quality(path, quality(), NAMES, noise_found=True)
    whole = bytearray(path.read_bytes())
    whole[place % len(whole)] = value
    path.write_bytes(whole)
    with suppress(InputError):
        back, _ = load_label_quality(path, NAMES)
        assert len(back) == 7
        assert back.issues(NAMES)["row"].is_unique


def test_half_of_it_is_never_written(path, monkeypatch):
    save_label_quality(path, quality(), NAMES, noise_found=True)
    before = path.read_bytes()

    def full_disk(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full_disk)
    with pytest.raises((OSError, InputError), match=r"(?i)no space"):
        save_label_quality(path, quality(rows=9), NAMES, noise_found=False)
    assert path.read_bytes() == before
    assert [p.name for p in path.parent.iterdir()] == [path.name]
