"""Label names and the ids that stand for them."""

import json
import os
import re
import unicodedata
import warnings
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Self

import numpy as np
import pandas as pd

from clear_peft.data.checks import brief, listing
from clear_peft.errors import ClearWarning, InputError
from clear_peft.files import write_json

# what transformers calls them
SEVERAL_LABELS = "multi_label_classification"
# as labels.json says it
_WORDS = "token_classification"
_INTEGER = re.compile(r"[+-]?\d{1,18}", re.ASCII)
# what stands between the words of a name; not a sign before a number
_JOINTS = re.compile(r"(?<=[^\W_])[\s_\-–—]+(?=[^\W_])")
_WHOLE = re.compile(r"([+-]?(?:0|[1-9]\d{0,17}))\.0+", re.ASCII)


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
        several: Whether a row may have several of them, or none. Default: each has exactly one.
        words: Whether each word of a row has one of them. Default False.
    """

    names: tuple[str, ...]
    several: bool = False
    words: bool = False

    def __post_init__(self) -> None:
        if not all(isinstance(name, str) and name.strip() for name in self.names):
            raise InputError(f"Label names must be non-empty strings, but they are {listing(self.names)}.")
        if any("\ud800" <= character <= "\udfff" for name in self.names for character in name):
            raise InputError(f"Label names must not hold half a surrogate pair: {listing(self.names)}.")
        if len(set(self.names)) < len(self.names):
            raise InputError(f"Label names must differ from each other, but they are {listing(self.names)}.")

    @property
    def one_a_row(self) -> bool:
        """Whether each row has exactly one of them."""
        return not (self.several or self.words)

    @classmethod
    def fit(cls, values: Iterable[object], *, normalize: bool = False) -> Self:
        """Collect the names that occur; ``1`` and ``1.0``, ``TRUE`` and ``true`` are one each.

        Names that differ only in case, or in what stands between words, are several classes, and a warning
        says so.

        Args:
            values: Labels as strings, whole numbers or bools.
            normalize: Whether names that differ only in case, white space, hyphens and underscores between
                words, characters that cannot be seen or how Unicode composes letters are one, in the spelling
                that most rows have. Default False.

        Returns:
            The distinct names, sorted; by number where all are whole numbers.

        Raises:
            InputError: If a label is missing or of another type, or two names look alike, but for their case.
        """
        return cls.of_counts(Counter(map(_name, values)), normalize=normalize)

    @classmethod
    def of_counts(cls, counts: Mapping[str, int], *, normalize: bool = False) -> Self:
        """As ``fit``, of how often each name occurs.

        Args:
            counts: Number of rows by name, as ``label_text`` has it.
            normalize: As for ``fit``. Default False.
        """
        spellings: dict[str, list[str]] = {}
        for name in sorted(counts):
            spellings.setdefault(_normal(name) if normalize else _value(name), []).append(name)
        names = [
            value if value in alike else max(alike, key=lambda name: counts[name])
            for value, alike in spellings.items()
        ]
        if normalize:
            names = [_look(name) or name for name in names]
        _check_looks(names, counts)
        if all(_INTEGER.fullmatch(_value(name)) for name in names):
            return cls(tuple(sorted(names, key=lambda name: (int(_value(name)), name))))
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
        names = [_name(value) for value in values]
        ids = self.find(names)
        unknown = list(dict.fromkeys(names[i] for i in np.flatnonzero(ids < 0)))
        if unknown:
            raise InputError(
                f"The labels {listing(unknown)} are not among the known ones ({listing(self.names)}); "
                "correct or remove their rows."
            )
        return ids

    def find(self, names: Sequence[str], *, normalize: bool = False) -> np.ndarray:
        """Look names up, as written or else by their value: ``1`` is ``1.0``, and ``TRUE`` is ``true``.

        Args:
            names: N names.
            normalize: As for ``fit``. Default False.

        Returns:
            Ids, -1 where a name is none of the known ones, int64 of shape (N,).
        """
        known: dict[str, int] = {}
        for spelled in (str, _value, _normal) if normalize else (str, _value):
            for i, name in enumerate(self.names):
                known.setdefault(spelled(name), i)
        found = {
            name: known.get(name, known.get(_value(name), known.get(_normal(name), -1) if normalize else -1))
            for name in set(names)
        }
        return np.fromiter((found[name] for name in names), np.int64, len(names))

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write the names as a JSON list in the order of their ids.

        Of several labels a row it is the item ``labels`` of an object that also has ``problem_type``, as
        transformers calls it; so it is of labels of words, with ``token_classification``.

        Args:
            path: File to write, by custom ``labels.json``.

        Raises:
            InputError: If the folder cannot be written to.
        """
        names = list(self.names)
        kind = _WORDS if self.words else SEVERAL_LABELS
        write_json(path, names if self.one_a_row else {"problem_type": kind, "labels": names})

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
            held = json.loads(Path(path).read_text(encoding="utf-8"))
        except (OSError, ValueError, RecursionError) as error:
            raise InputError(f"Cannot read label names from {os.fspath(path)!r}: {error}.") from error
        kind = held.get("problem_type") if isinstance(held, dict) else None
        names = held.get("labels") if kind in (SEVERAL_LABELS, _WORDS) else held
        if not isinstance(names, list):
            raise InputError(
                f"{os.fspath(path)!r} must hold a JSON list of label names in the order of their ids."
            )
        return cls(tuple(names), several=kind == SEVERAL_LABELS, words=kind == _WORDS)


def _name(value: object) -> str:
    try:
        name = label_text(value)
    except TypeError as error:
        raise InputError(f"Labels must be text or whole numbers, but {error}.") from error
    if name is None:
        raise InputError("A label is missing; give every row one, or remove the row.")
    return name


def _value(name: str) -> str:
    """What spellings of one whole number, or of one truth value, have in common; else the name itself."""
    whole = _WHOLE.fullmatch(name)
    if whole:
        return whole[1]
    return name.capitalize() if name.lower() in ("true", "false") else name


def _look(name: str) -> str:
    """What is seen of a name: without what Unicode hides, and with plain spaces."""
    seen = "".join(c for c in unicodedata.normalize("NFC", name) if unicodedata.category(c) != "Cf")
    return " ".join(seen.split())


def _cased(name: str) -> str:
    """What names have in common that differ only in case."""
    return _value(_look(name).casefold())


def _normal(name: str) -> str:
    """What names have in common that are one class once they are normalised."""
    return _value(_JOINTS.sub(" ", _look(name).casefold()))


def _check_looks(names: list[str], counts: Mapping[str, int]) -> None:
    """Refuse names that look the same, and warn of those that are likely one, or several in one."""

    def shown(alike: Iterable[str], spelled: Callable[[str], str] = ascii) -> str:
        return ", ".join(f"{spelled(name)} ({counts[name]}×)" for name in alike)

    looks: dict[str, str] = {}
    for name in sorted(names):
        twin = looks.setdefault(_look(name), name)
        if twin == name:
            continue
        if twin.strip() == name.strip():
            what = "white space"
        elif unicodedata.normalize("NFC", twin) == unicodedata.normalize("NFC", name):
            what = "how Unicode composes them"
        else:
            what = "characters that cannot be told by looking"
        raise InputError(
            f"Labels {shown((twin, name))} differ only in {what}; write them alike, or join them with "
            "--normalize-labels."
        )
    joined = ", unless --normalize-labels joins them"
    for spelled, what, mend in (
        (_cased, "case", joined),
        (_normal, "spaces, hyphens and underscores, or case", joined),
        (_number, "zeros before a number", ""),
    ):
        alike: dict[str, list[str]] = {}
        for name in sorted(names):
            alike.setdefault(spelled(name), []).append(name)
        several = [group for group in alike.values() if len(group) > 1]
        if spelled is _normal:  # what differs in case has been named
            several = [group for group in several if len({_cased(name) for name in group}) > 1]
        if several:
            do = "does" if len(several) == 2 else "do"
            more = f", and so {do} {len(several) - 1} more" if len(several) > 1 else ""
            message = f"Labels {shown(several[0], brief)} differ only in {what}{more}"
            warnings.warn(f"{message}: they are classes of their own{mend}.", ClearWarning, stacklevel=3)
    for sign in ";|,":
        lists = [name for name in names if sign in name]
        parts = {part.strip() for name in lists for part in name.split(sign)}
        if len(lists) > max(len(parts), len(names) / 2):
            message = f"Most labels look like lists of labels ({brief(lists[0])})"
            message = f"{message}: each list is a class of its own, unless scan or train splits them by"
            warnings.warn(f"{message} --label-separator {sign!r}.", ClearWarning, stacklevel=3)


def _number(name: str) -> str:
    """A whole number without zeros before it; else the name itself."""
    return str(int(_value(name))) if _INTEGER.fullmatch(_value(name)) else name
