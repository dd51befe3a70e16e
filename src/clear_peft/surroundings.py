"""What stands around this process: packages that can be installed, and processes beside it."""

import os
from importlib.metadata import requires

from packaging.requirements import Requirement

from clear_peft.errors import InputError


def pip_install(extra: str) -> str:
    """The command that installs what an extra of pyproject.toml brings, as ``pip install 'openpyxl>=3.1'``.

    It names the packages themselves: clear-peft is on no index, whatever may go by its name there.
    """
    needed = [Requirement(line) for line in requires("clear-peft") or ()]
    brought = [each for each in needed if each.marker and each.marker.evaluate({"extra": extra})]
    return "pip install " + " ".join(f"'{each.name}{each.specifier}'" for each in brought)


def check_single_process(what: str) -> None:
    """Refuse to be one of several processes that torchrun or accelerate has started.

    By what they set: accelerate does not count processes on CPUs before a training begins. A cluster may set
    ``WORLD_SIZE`` alone for a process that is by itself.

    Args:
        what: What has no use for them.

    Raises:
        InputError: If there are others.
    """
    started = os.environ.get("WORLD_SIZE") or "1"
    if started != "1" and "LOCAL_RANK" in os.environ:
        raise InputError(f"{what} runs in one process, and here are {started}: start one.")
