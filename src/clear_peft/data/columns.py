"""Columns of a table, checked cell by cell: texts, labels, ids, groups, verified rows."""

import difflib
import re
import warnings
from collections import Counter
from collections.abc import Sequence

import numpy as np
import pandas as pd

from clear_peft.data.checks import brief, listing, row_listing
from clear_peft.data.labels import LabelNames, label_text
from clear_peft.errors import ClearWarning, InputError
from clear_peft.label_quality import as_groups

_DIGITS = re.compile(r"\d")
# what a cell may say in place of the true label
_SAYS = {"true": True, "yes": True, "1": True, "false": False, "no": False, "0": False}


def said_rows(chosen: np.ndarray) -> str:
    """Rows of a mask, (N,), for a sentence."""
    return row_listing(np.flatnonzero(chosen).tolist())


def warn(message: str) -> None:
    """Say something that stops nothing."""
    warnings.warn(message, ClearWarning, stacklevel=2)


def verified_in(
    series: pd.Series, place: str, labels: np.ndarray, names: LabelNames, *, normalize: bool = False
) -> np.ndarray:
    """True label ids of the rows that a person has looked at, -1 elsewhere, (N,) int64.

    Args:
        series: The column, (N,): labels, as ``LabelNames.find`` finds them, or else true and false alone.
        place: Where it is, for sentences.
        labels: Ids of the given labels, (N,), which true stands for.
        names: The classes.
        normalize: As for ``LabelNames.find``. Default False.

    Raises:
        InputError: If a cell is neither, or some are labels and others true or false.
    """
    cells: list[str] = []
    for i, value in enumerate(series.tolist()):
        try:
            cells.append(label_text(value) or "")
        except TypeError:
            raise InputError(
                f"{place}: {brief(value)} in {row_listing([i])} is neither a label nor true or false; write "
                "the true label of the rows that were looked at."
            ) from None
    said = np.array([bool(cell) for cell in cells], bool)
    ids = names.find(cells, normalize=normalize)
    right = np.array([_SAYS.get(cell.lower(), False) for cell in cells], bool)
    is_label, is_flag = ids >= 0, np.array([cell.lower() in _SAYS for cell in cells], bool)
    if is_label[said].all():
        return ids
    if is_flag[said].all():
        return np.where(right, labels, -1)
    strange = np.flatnonzero(said & ~(is_label if is_label.any() else is_flag)).tolist()
    raise InputError(
        f"{place}: {brief(cells[strange[0]])} in {row_listing(strange)} is none of the labels, "
        f"{listing(names.names)}; write the true label of each row that was looked at, or true and false "
        "alone."
    )


def groups_in(column: pd.Series, place: str) -> np.ndarray:
    """Group ids; one group that holds every row leaves nothing to judge a row by."""
    values = column.astype(object).where(column.notna() & (column.astype(str).str.strip() != ""), None)
    groups = as_groups(pd.factorize(values)[0], len(values))
    if len(groups) > 1 and not groups.any():
        raise InputError(f"{place}: all rows are in one group; name a column with more groups, or none.")
    return groups


def check_roles(roles: list[tuple[str, str | None]]) -> None:
    """Refuse a column that has two roles, and roles that need another.

    Args:
        roles: Each role, as sentences name it, and its column; None: it has none.

    Raises:
        InputError: If so.
    """
    taken: dict[str, str] = {}
    for role, column in roles:
        if column is None:
            continue
        if taken.get(column) == role:
            raise InputError(f"Column {column!r} is named twice as the {role} column; name it once.")
        if column in taken:
            raise InputError(
                f"Column {column!r} cannot be both the {taken[column]} and the {role} column; name two."
            )
        taken[column] = role
    if {"opinion", "annotator"} & set(taken.values()) and "label" not in taken.values():
        raise InputError("Columns of opinions or annotators need a label column; name it too.")
    if "verified" in taken.values() and "label" not in taken.values():
        raise InputError("A column of verified rows needs a label column; name it too.")
    if "clean label" in taken.values() and "label" not in taken.values():
        raise InputError("A clean label column needs a label column to compare with; name it too.")


def check_column(frame: pd.DataFrame, wanted: str, source: str, hint: str = "") -> None:
    """Refuse a table without a column.

    Args:
        frame: The table.
        wanted: Name of the column.
        source: Name of the table, for sentences.
        hint: What to do if no name is alike. Default: to name another column.

    Raises:
        InputError: With the columns that it has, and the one that may be meant.
    """
    columns = list(frame.columns)
    if wanted in columns:
        return
    by_lower = {name.lower(): name for name in columns if isinstance(name, str)}
    nearest = difflib.get_close_matches(wanted.lower(), by_lower, n=1)
    named = len(by_lower) == len(columns)
    otherwise = hint or ("name one of them." if named else "give every column a name that is text.")
    hint = f"did you mean {by_lower[nearest[0]]!r}?" if nearest else otherwise
    raise InputError(f"{source!r} has no column {wanted!r}; it has {listing(columns, shown=20)}: {hint}")


def if_one_hot(frame: pd.DataFrame) -> str:
    """What to do with a table that has a column of 0 and 1 for each class, perhaps; "" where it has none."""
    flags = [name for name in frame.columns if set(map(flag, frame[name].tolist())) == {"0", "1"}]
    if len(flags) < 2:
        return ""
    ones = np.sum([[flag(value) == "1" for value in frame[name]] for name in flags], axis=0)
    classes = f"if the {len(flags)} columns of 0 and 1 ({listing(flags)}) are"
    if (ones > 1).any():
        return (
            f"{classes} labels, of which a row may have several, scan and train read them by --label-columns."
        )
    return (
        f"{classes} classes, write one column with the names of the labels, as pandas does by "
        "table[columns].astype(float).idxmax(axis=1)."
    )


def flag(value: object) -> str:
    """0 or 1, however a table writes them; else anything else."""
    text = str(value).lower().removesuffix(".0")
    return {"false": "0", "true": "1"}.get(text, text)


def texts_in(series: pd.Series, place: str, first: int = 0) -> list[str]:
    """The texts of a column; missing ones are empty.

    Args:
        series: The column, or some of its rows, one after the other.
        place: Where it is, for sentences.
        first: Position of the first of these rows. Default 0.

    Raises:
        InputError: If one is no text, or holds a NUL character.
    """
    missing = series.isna().tolist()
    values = ["" if gone else value for value, gone in zip(series.tolist(), missing, strict=True)]
    other = [first + i for i, value in enumerate(values) if not isinstance(value, str)]
    if other:
        kind = type(values[other[0] - first]).__name__
        raise InputError(
            f"{place}: the text is not a string but {kind} in {row_listing(other)}; name a column of text."
        )
    _refuse_nul(values, place, "text", first)
    return values


def joined(parts: Sequence[Sequence[str]]) -> list[str]:
    """The texts of columns as one text a row, a line each; those of white space alone are left out."""
    return ["\n".join(part for part in row if part.strip()) for row in zip(*parts, strict=True)]


def pairs_of(parts: Sequence[Sequence[str]]) -> list[tuple[str, str]] | None:
    """The first column, and the lines of all others; None where there are no others."""
    return list(zip(parts[0], joined(parts[1:]), strict=True)) if len(parts) > 1 else None


def _refuse_nul(values: Sequence[str | None], place: str, kind: str, first: int) -> None:
    """No CSV can hold it, and the list of label issues is one."""
    nul = [first + i for i, value in enumerate(values) if value is not None and "\0" in value]
    if nul:
        raise InputError(f"{place}: the {kind} holds a NUL character in {row_listing(nul)}; remove it.")


def names_in(
    series: pd.Series,
    place: str,
    kind: str,
    kept: np.ndarray,
    missing: Sequence[str] = (),
    first: int = 0,
) -> list[str | None]:
    """Names of labels or ids; None where there is none, as in rows that are not kept; see ``texts_in``."""
    names: list[str | None] = []
    for i, value in enumerate(series.tolist()):
        try:
            name = label_text(value) if kept[i] else None
        except TypeError:
            if isinstance(value, list | tuple | np.ndarray):
                mend = f"write one {kind} a row, as text or a whole number"
                mend += "; scan and train alone take several labels a row" if kind == "label" else ""
            else:
                fraction = "a fraction is no class; " if isinstance(value, float) else ""
                mend = f"{fraction}write text or a whole number"
            raise InputError(
                f"{place}: the {kind} is {brief(value)}, of type {type(value).__name__}, "
                f"in {row_listing([first + i])}; {mend}."
            ) from None
        names.append(None if name in missing else name)
    _refuse_nul(names, place, kind, first)
    return names


def refuse_missing(missing: np.ndarray, place: str, kind: str) -> None:
    """Refuse rows without what they need, of a mask, (N,)."""
    if missing.any():
        raise InputError(
            f"{place}: the {kind} is missing in {said_rows(missing)}; fill it in or remove the rows."
        )


def ids_in(series: pd.Series, place: str) -> list[str]:
    """The ids of a column; each occurs once."""
    ids = names_in(series, place, "id", np.ones(len(series), bool))
    refuse_missing(np.array([name is None for name in ids]), place, "id")
    counts = Counter(ids)
    repeated = [i for i, name in enumerate(ids) if counts[name] > 1]
    if repeated:
        values = list(dict.fromkeys(ids[i] for i in repeated))
        raise InputError(
            f"{place}: the ids {listing(values)} occur more than once, in {row_listing(repeated)}; "
            "make them unique."
        )
    return [str(name) for name in ids]


def training_names(given: list[str], place: str, normalize: bool) -> LabelNames:
    """The classes of a training table; at least two."""
    try:
        names = LabelNames.fit(given, normalize=normalize)
    except InputError as error:
        raise InputError(f"{place}: {error}") from None
    check_two_classes(names, place)
    return names


def check_two_classes(names: LabelNames, place: str) -> None:
    """Refuse training data with a single class."""
    if len(names.names) == 1:
        raise InputError(
            f"{place}: every row has the label {brief(names.names[0])}; give rows of at least two classes."
        )


def check_strange(
    strange: np.ndarray, given: Sequence[str | None], names: LabelNames, place: str, *, few: bool
) -> None:
    """Say which rows are of no known class; they are refused unless they are few and look like no slip."""
    if not strange.any():
        return
    labels = list(dict.fromkeys(given[i] for i in np.flatnonzero(strange).tolist()))
    meant = next((near for label in labels if (near := _meant(label or "", names))), None)
    if few and meant is None:
        warn(
            f"{place}: no model can predict classes that the training table lacks "
            f"({listing(labels, shown=20)}); left out: {said_rows(strange)}."
        )
        return
    hint = f" (did you mean {meant!r}?)" if meant else ""
    raise InputError(
        f"{place}: the training labels, {listing(names.names)}, lack {listing(labels)}{hint}, "
        f"found in {said_rows(strange)}; correct or remove these rows."
    )


def _meant(label: str, names: LabelNames) -> str | None:
    """The known name that a label looks like a slip of; names with other digits are other names."""
    for near in difflib.get_close_matches(label.lower(), [name.lower() for name in names.names], cutoff=0.8):
        found = next(name for name in names.names if name.lower() == near)
        if _DIGITS.findall(found) == _DIGITS.findall(label):
            return found
    return None
