"""The README says what is there."""

import re
from pathlib import Path

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text()


def test_ci_runs_the_readmes_test_command():
    command = next(block for block in re.findall(r"```sh\n(.*?)\n```", README, re.S) if "pytest" in block)
    assert command in (ROOT / ".ci" / "run").read_text().splitlines()


def _options(command):
    for parameter in command.params:
        yield from (option.removeprefix("--") for option in parameter.opts if option.startswith("--"))
    for child in getattr(command, "commands", {}).values():
        yield from _options(child)


def test_options_in_the_readme_exist():
    from typer.main import get_command

    from clear_peft.cli.app import app

    ours = re.sub(r"torchrun --[a-z-]+", "", README)
    used = set(re.findall(r"(?<!\w)--([a-z][a-z-]+)", ours))
    known = set(_options(get_command(app)))
    assert used <= known, used - known


def test_every_method_noise_and_grid_is_named():
    from clear_peft.baselines import METHODS
    from clear_peft.bench.grid import shipped_grids
    from clear_peft.noise import KINDS

    for name in [*METHODS, *KINDS, *shipped_grids()]:
        assert f"`{name}`" in README, name


def test_count_of_peft_methods():
    from clear_peft.tuners import available_methods

    named = 5
    assert f"and {len(available_methods()) - named} more tuner types" in README
