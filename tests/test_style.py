"""Formatting, lint and types, with the versions that pyproject.toml pins; a cache must not hide a fault."""

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent


@pytest.mark.parametrize("command", ["ruff check --no-cache .", "ruff format --no-cache --check .", "mypy"])
def test_passes(command):
    done = subprocess.run(
        [sys.executable, "-m", *command.split()], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
