"""Names of layers in settings from elsewhere: peft matches most of them as regular expressions."""

import re
from collections.abc import Iterator, Mapping
from typing import Any

from clear_peft.errors import InputError

# nothing that repeats or branches, so that matching cannot take long
_NAME = re.compile(r"[\w.^$-]*")
_NO_NAMES = {"auto_mapping", "base_model_name_or_path", "peft_version", "revision"}


def check_names(settings: Mapping[str, Any], where: str) -> None:
    """Refuse settings of a PEFT method in which any text but a name stands.

    Args:
        settings: Fields of a PEFT configuration.
        where: What they are of, for the message.

    Raises:
        InputError: If a regular expression is among them.
    """
    for field, value in settings.items():
        if field in _NO_NAMES:
            continue
        for text in _texts(value):
            if not _NAME.fullmatch(text):
                raise InputError(
                    f"{where} has {text!r:.60} in {field}, which peft would match as a regular expression, "
                    "perhaps without end: give names of layers, or ends of names."
                )


def check_options(method: str, given: Mapping[str, Any], known: set[str]) -> None:
    """Refuse options that a PEFT method does not have.

    Raises:
        InputError: With those that it has.
    """
    unknown = sorted(given.keys() - known)
    if unknown:
        valid = f"choose from {', '.join(sorted(known))}" if known else "it takes none"
        raise InputError(f"{method} has no option {', '.join(unknown)}: {valid}.")


def _texts(value: Any) -> Iterator[str]:
    """All texts in a value, keys too; without recursion, however deep it is."""
    values = [value]
    while values:
        value = values.pop()
        if isinstance(value, str):
            yield value
        elif isinstance(value, Mapping):
            values += [*value.keys(), *value.values()]
        elif isinstance(value, list | tuple | set):
            values += value
