"""atomic_write and write_json."""

import json
import math
import os
import subprocess
import sys

import numpy as np
import pytest

from clear_peft.errors import InputError
from clear_peft.files import atomic_write, plain_json, write_json


def test_text_and_bytes_replace_what_was_there(tmp_path):
    path = tmp_path / "a"
    atomic_write(path, "ä\r\n")
    assert path.read_bytes() == b"\xc3\xa4\r\n"
    atomic_write(str(path), b"\xff")
    assert path.read_bytes() == b"\xff"
    assert list(tmp_path.iterdir()) == [path]


def test_a_failure_leaves_the_old_file_and_nothing_else(tmp_path, monkeypatch):
    path = tmp_path / "a"
    path.write_text("old")

    def full(_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(InputError, match="no space left"):
        atomic_write(path, "new")
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


def test_a_link_stays_a_link_and_the_umask_holds(tmp_path):
    (tmp_path / "link").symlink_to(tmp_path / "target")
    before = os.umask(0o027)
    try:
        atomic_write(tmp_path / "link", "x")
    finally:
        os.umask(before)
    assert (tmp_path / "link").is_symlink()
    assert (tmp_path / "target").read_text() == "x"
    assert (tmp_path / "target").stat().st_mode & 0o777 == 0o640


@pytest.mark.parametrize("name", ["missing/a", "file/a", "."])
def test_an_unusable_path_is_refused(tmp_path, name):
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match="Cannot write"):
        atomic_write(tmp_path / name, "x")


def test_json_holds_numpy_and_no_nan(tmp_path):
    value = {
        "f": np.float32(0.9),
        "i": np.int64(3),
        "b": np.True_,
        "a": np.array([[0.1, math.nan]], dtype=np.float32),
        "t": (math.inf, None, "ä\ud800"),
    }
    write_json(tmp_path / "a.json", value)
    text = (tmp_path / "a.json").read_text(encoding="utf-8")
    assert json.loads(text) == {"f": 0.9, "i": 3, "b": True, "a": [[0.1, None]], "t": [None, None, "ä\ud800"]}
    assert "ä" in text
    assert text.endswith("}\n")
    assert plain_json(np.array(2)) == 2


def test_the_room_starts_without_the_heavy_libraries():
    code = "import sys, clear_peft.data; print({'torch', 'transformers', 'datasets'} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"


@pytest.mark.skipif(os.name != "posix", reason="Windows has other rights")
def test_a_private_file_stays_private(tmp_path):
    path = tmp_path / "corrections.csv"
    atomic_write(path, "new")
    usual = path.stat().st_mode
    path.chmod(0o600)
    atomic_write(path, "newer")
    assert (path.read_text(), path.stat().st_mode & 0o777) == ("newer", 0o600)
    path.unlink()
    atomic_write(path, "new again")
    assert path.stat().st_mode == usual
