"""Rooms import each other as the contracts of pyproject.toml allow, and light ones start without torch."""

import subprocess
import sys
from pathlib import Path

import pytest
from importlinter.cli import EXIT_STATUS_SUCCESS, lint_imports

LIGHT = ["noise", "label_quality", "baselines", "run_folder", "audit", "report", "cli"]


def test_rooms_keep_the_contracts(monkeypatch):
    monkeypatch.chdir(Path(__file__).parents[1])
    assert lint_imports(config_filename="pyproject.toml", no_cache=True) == EXIT_STATUS_SUCCESS


@pytest.mark.parametrize("room", LIGHT)
def test_light_rooms_start_without_torch(room):
    code = f"import sys, clear_peft.{room}; sys.exit(bool({{'torch', 'transformers'}} & sys.modules.keys()))"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
