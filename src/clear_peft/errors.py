"""What can go wrong, told apart by what a user can do about it."""

from importlib.metadata import requires

from packaging.requirements import Requirement


class InputError(ValueError):
    """Wrong input from a user: the message is one sentence that says what, where, and how to mend it.

    The command line prints the message alone and exits with status 2; in Python it is an ordinary
    ``ValueError``.
    """


class RunFailedError(Exception):
    """The input was right, but the run could not be finished: the message is one sentence that says why.

    The command line prints the message alone and exits with status 1.
    """


class ClearWarning(UserWarning):
    """Something that a user should know of a run that goes on: the message is one sentence.

    The command line shows it as a note.
    """


def pip_install(extra: str) -> str:
    """The command that installs what an extra of pyproject.toml brings, as ``pip install 'openpyxl>=3.1'``.

    It names the packages themselves: clear-peft is on no index, whatever may go by its name there.
    """
    needed = [Requirement(line) for line in requires("clear-peft") or ()]
    brought = [each for each in needed if each.marker and each.marker.evaluate({"extra": extra})]
    return "pip install " + " ".join(f"'{each.name}{each.specifier}'" for each in brought)
