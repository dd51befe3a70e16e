"""Formatting, lint and types, with the versions that pyproject.toml pins; a cache must not hide a fault."""

import ast
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
SOURCE = ROOT / "src"
_NAME = re.compile(r"``(clear_peft(?:\.\w+)+)``")
FOLDERS = ("src", "tests", "benchmarks", "examples", "docs")


@pytest.mark.parametrize("command", ["ruff check --no-cache .", "ruff format --no-cache --check .", "mypy"])
def test_passes(command):
    done = subprocess.run(
        [sys.executable, "-m", *command.split()], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr


def _exists(name):
    """Whether a module is there, or one that has a definition or a method of that name."""
    parts = name.split(".")
    for end in range(len(parts), 0, -1):
        place = SOURCE.joinpath(*parts[:end])
        file = place / "__init__.py" if place.is_dir() else place.with_suffix(".py")
        if file.is_file():
            text = file.read_text(encoding="utf-8")
            return all(re.search(rf"\b{part}\b", text) for part in parts[end:])
    return False


def test_docstrings_name_what_there_is():
    named = {
        (str(file.relative_to(SOURCE)), name)
        for file in SOURCE.rglob("*.py")
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8")))
        if isinstance(node, ast.Constant) and isinstance(node.value, str)
        for name in _NAME.findall(node.value)
    }
    assert len(named) > 20
    assert sorted(where for where in named if not _exists(where[1])) == []


def test_no_file_holds_characters_that_nobody_sees():
    written = [
        path for folder in FOLDERS for kind in ("py", "md") for path in (ROOT / folder).rglob(f"*.{kind}")
    ]
    assert len(written) > 300
    for path in [ROOT / "README.md", *written]:
        assert not re.search(r"[\x00-\x08\x0b-\x1f]", path.read_text(encoding="utf-8")), path
