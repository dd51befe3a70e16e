"""Label names and the ids that stand for them."""

import json
import os
import re
import unicodedata
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Self

import numpy as np
import pandas as pd

from clear_peft.data.checks import brief, listing
from clear_peft.errors import InputError
from clear_peft.files import write_json

_INTEGER = re.compile(r"[+-]?\d{1,18}", re.ASCII)


def label_text(value: object) -> str | None:
    """The name of a label as a table holds it.

    Args:
        value: A string, whole number or bool; a bool is named as in CSV, ``True`` or ``False``.

    Returns:
        The name, or None where the label is missing (None, NaN, or only white space).

    Raises:
        TypeError: For a value of another type, or a fraction.
    """
    if isinstance(value, str):
        return value if value.strip() else None
    if value is None or value is pd.NA or value is pd.NaT:
        return None
    if isinstance(value, bool | np.bool_ | int | np.integer):
        return str(value)
    if isinstance(value, float | np.floating):
        if np.isnan(value):
            return None
        if float(value).is_integer():
            return str(int(value))
    raise TypeError(f"a label cannot be {brief(value)}, of type {type(value).__name__}")


@dataclass(frozen=True)
class LabelNames:
    """The names of the classes in the order of their ids.

    Attributes:
        names: Distinct names; the id of a class is the position of its name.
    """

    names: tuple[str, ...]

    def __post_init__(self) -> None:
        if not all(isinstance(name, str) and name.strip() for name in self.names):
            raise InputError(f"Label names must be non-empty strings, but they are {listing(self.names)}.")
        if any("\ud800" <= character <= "\udfff" for name in self.names for character in name):
            raise InputError(f"Label names must not hold half a surrogate pair: {listing(self.names)}.")
        if len(set(self.names)) < len(self.names):
            raise InputError(f"Label names must differ from each other, but they are {listing(self.names)}.")

    @classmethod
    def fit(cls, values: Iterable[object]) -> Self:
        """Collect the names that occur.

        Args:
            values: Labels as strings, whole numbers or bools.

        Returns:
            The distinct names, sorted; by number where all are whole numbers.

        Raises:
            InputError: If a label is missing or of another type, or two names look alike: they differ only
                in white space around them or in how Unicode composes their letters.
        """
        names = {_name(value) for value in values}
        seen: dict[str, str] = {}
        for name in sorted(names):
            twin = seen.setdefault(unicodedata.normalize("NFC", name.strip()), name)
            if twin.strip() != name.strip():
                raise InputError(
                    f"Labels {twin!a} and {name!a} differ only in how Unicode composes them; make them one."
                )
            if twin != name:
                raise InputError(
                    f"Labels {brief(twin)} and {brief(name)} differ only in white space; write them alike."
                )
        if all(_INTEGER.fullmatch(name) for name in names):
            return cls(tuple(sorted(names, key=lambda name: (int(name), name))))
        return cls(tuple(sorted(names)))

    def encode(self, values: Iterable[object]) -> np.ndarray:
        """Turn labels into ids.

        Args:
            values: N labels as strings, whole numbers or bools.

        Returns:
            Ids, int64 of shape (N,).

        Raises:
            InputError: If a label is missing, of another type, or not one of the names.
        """
        ids = {name: i for i, name in enumerate(self.names)}
        names = [_name(value) for value in values]
        unknown = [name for name in dict.fromkeys(names) if name not in ids]
        if unknown:
            raise InputError(
                f"The labels {listing(unknown)} are not among the known ones ({listing(self.names)}); "
                "correct or remove their rows."
            )
        return np.array([ids[name] for name in names], dtype=np.int64)

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write the names as a JSON list in the order of their ids.

        Args:
            path: File to write, by custom ``labels.json``.

        Raises:
            InputError: If the folder cannot be written to.
        """
        write_json(path, list(self.names))

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> Self:
        """Read what :meth:`save` wrote.

        Args:
            path: File to read.

        Returns:
            The names.

        Raises:
            InputError: If the file is missing or holds no list of distinct names.
        """
        try:
            names = json.loads(Path(path).read_text(encoding="utf-8"))
        except (OSError, ValueError, RecursionError) as error:
            raise InputError(f"Cannot read label names from {os.fspath(path)!r}: {error}.") from error
        if not isinstance(names, list):
            raise InputError(
                f"{os.fspath(path)!r} must hold a JSON list of label names in the order of their ids."
            )
        return cls(tuple(names))


def _name(value: object) -> str:
    try:
        name = label_text(value)
    except TypeError as error:
        raise InputError(f"Labels must be text or whole numbers, but {error}.") from error
    if name is None:
        raise InputError("A label is missing; give every row one, or remove the row.")
    return name
