"""The commands that messages give name what pyproject.toml has."""

import re
import tomllib
from pathlib import Path

import pytest

from clear_peft.surroundings import pip_install

ROOT = Path(__file__).parent.parent
EXTRAS = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
NAMED = {
    extra
    for file in (ROOT / "src").rglob("*.py")
    for extra in re.findall(r"pip_install\('(\w+)'\)", file.read_text())
}


def test_extras_are_named():
    assert {"demo", "excel", "onnx"} <= NAMED


@pytest.mark.parametrize("extra", sorted(NAMED))
def test_what_an_extra_brings_is_named(extra):
    start, _, packages = pip_install(extra).partition(" install ")
    assert start == "pip"
    parts = [re.split(r"(?=[<>=])", package, maxsplit=1) for package in re.findall(r"'([^']+)'", packages)]
    expected = [re.split(r"(?=[<>=])", package, maxsplit=1) for package in EXTRAS[extra]]
    assert {name: set(bounds.split(",")) for name, bounds in parts} == {
        name: set(bounds.split(",")) for name, bounds in expected
    }
