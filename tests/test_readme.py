"""The README says what is there."""

import re
from pathlib import Path

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text()


def test_ci_runs_the_readmes_test_command():
    command = next(block for block in re.findall(r"```sh\n(.*?)\n```", README, re.S) if "pytest" in block)
    assert command in (ROOT / ".ci" / "run").read_text().splitlines()


def test_options_in_the_readme_exist():
    from dataclasses import fields

    from clear_peft.runs.config import RunConfig

    known = {f.name.replace("_", "-") for f in fields(RunConfig)} | {"run", "config", "resume", "overwrite"}
    used = set(re.findall(r"(?<!\w)--([a-z][a-z-]+)", README))
    assert used <= known, used - known


def test_count_of_peft_methods():
    from clear_peft.tuners import available_methods

    named = 5
    assert f"and {len(available_methods()) - named} more tuner types" in README
