"""Rows with several labels or none: cells such as ``a;b``, lists, and columns of 0 and 1."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from clear_peft.data.checks import brief, row_listing
from clear_peft.data.columns import check_column, flag, if_one_hot
from clear_peft.data.labels import LabelNames, label_text
from clear_peft.errors import InputError

# options of scan and train that are made for one label a row
_OF_ONE_LABEL = (
    "annotator_column",
    "opinion_column",
    "verified_column",
    "verified",
    "clean_label_column",
    "unlabelled",
)


class LabelSets(NamedTuple):
    """Labels of N rows of which each has several, or none.

    Attributes:
        given: Which labels each row has, (N, C) bool.
        names: The C labels.
        unknown: A label of each row that is none of them, (N,); None where there is none.
    """

    given: np.ndarray
    names: LabelNames
    unknown: list[str | None]


def has_label_sets(
    frame: pd.DataFrame, label_column: str, label_separator: str | None, label_columns: Sequence[str]
) -> bool:
    """Whether the rows of a table have several labels: options say so, or the cells are lists."""
    if label_separator is not None or label_columns:
        return True
    return label_column in frame.columns and holds_lists(frame[label_column])


def refuse_for_one_label(options: Any) -> None:
    """Refuse options that are made for one label a row.

    Args:
        options: Those of a scan or a run.

    Raises:
        InputError: With the first one that is given.
    """
    for name in _OF_ONE_LABEL:
        if getattr(options, name, None):
            flag = f"--{name.replace('_', '-')}"
            raise InputError(f"{flag} is for tables with one label a row: leave it out.")


def label_sets(
    frame: pd.DataFrame,
    name: str,
    *,
    label_column: str,
    label_separator: str | None,
    label_columns: Sequence[str],
    normalize: bool = False,
    names: LabelNames | None = None,
) -> LabelSets:
    """Labels of a table, in whichever of the three forms they are.

    Args:
        frame: The table.
        name: Where it comes from, for sentences.
        label_column: Column of the labels.
        label_separator: What stands between the labels of a cell; None: cells are lists.
        label_columns: Columns of 0 and 1, one for each label, in place of that column; may be none.
        normalize: As for ``LabelNames.fit``. Default False.
        names: Labels known from the training data. Default: those of the table.

    Raises:
        InputError: If the forms do not go together, or the table is not of the form.
    """
    if label_columns:
        if label_separator is not None:
            raise InputError("--label-columns and --label-separator are two ways to give labels: choose one.")
        if normalize:
            raise InputError("--normalize-labels joins names in cells: leave it out with --label-columns.")
        if names is not None:
            return LabelSets(_flags(frame, name, names.names), names, [None] * len(frame))
        return LabelSets(*flags_in(frame, name, label_columns), [None] * len(frame))
    if label_separator == "":
        raise InputError("--label-separator is empty: give what stands between labels, such as ';'.")
    check_column(frame, label_column, name, "" if label_column in frame.columns else if_one_hot(frame))
    series, place = frame[label_column], f"{name!r}, column {label_column!r}"
    if names is not None:
        return _known(_cells(series, place, label_separator), names, normalize=normalize)
    given, found = label_sets_in(series, place, label_separator, normalize=normalize)
    return LabelSets(given, found, [None] * len(frame))


def rarest(flags: np.ndarray) -> np.ndarray:
    """The rarest label of each row, (N, C) bool → (N,) int64; C where it has none."""
    often = np.where(flags, flags.sum(axis=0), len(flags) + 1)
    return np.where(flags.any(axis=1), often.argmin(axis=1), flags.shape[1])


def holds_lists(column: pd.Series) -> bool:
    """Whether a column has lists of labels, as JSON and Parquet can hold them."""
    return any(isinstance(value, list | tuple | np.ndarray) for value in column.tolist())


def flags_in(frame: pd.DataFrame, name: str, columns: Sequence[str]) -> tuple[np.ndarray, LabelNames]:
    """Labels that have a column each, of 0 and 1 or of false and true.

    Args:
        frame: The table.
        name: Where it comes from, for sentences.
        columns: The labels.

    Returns:
        Which labels each row has, (N, C) bool, and their names, in the order of the columns.

    Raises:
        InputError: If a column is missing or named twice, or a cell is neither 0 nor 1.
    """
    names = LabelNames(tuple(columns), several=True)
    return _checked(_flags(frame, name, columns), names, name)


def _flags(frame: pd.DataFrame, name: str, columns: Sequence[str]) -> np.ndarray:
    given = np.zeros((len(frame), len(columns)), bool)
    for place, wanted in enumerate(columns):
        check_column(frame, wanted, name)
        cells = frame[wanted].tolist()
        said = [flag(cell) for cell in cells]
        strange = [i for i, cell in enumerate(said) if cell not in ("0", "1")]
        if strange:
            raise InputError(
                f"{name!r}, column {wanted!r}: {brief(cells[strange[0]])} in {row_listing(strange)} is "
                "neither 0 nor 1; write 1 where a row has the label and 0 elsewhere."
            )
        given[:, place] = [cell == "1" for cell in said]
    return given


def label_sets_in(
    series: pd.Series, place: str, separator: str | None = None, *, normalize: bool = False
) -> tuple[np.ndarray, LabelNames]:
    """Labels of a column that has several in a cell. An empty cell, or an empty list, is a row without any.

    Args:
        series: The column: text, or lists of labels.
        place: Where it is, for sentences.
        separator: What stands between the labels of a text. Default: cells are lists.
        normalize: As for ``LabelNames.fit``.

    Returns:
        Which labels each row has, (N, C) bool, and their names, sorted.

    Raises:
        InputError: If a cell holds something else, or no row has a label.
    """
    cells = _cells(series, place, separator)
    named = [label for cell in cells for label in cell]
    if not named:
        raise InputError(f"{place}: no row has a label; write the labels of each row.")
    try:
        names = replace(LabelNames.fit(named, normalize=normalize), several=True)
    except InputError as error:
        raise InputError(f"{place}: {error}") from None
    return _checked(_known(cells, names, normalize=normalize).given, names, place)


def _known(cells: list[list[str]], names: LabelNames, *, normalize: bool) -> LabelSets:
    row = np.repeat(np.arange(len(cells)), [len(cell) for cell in cells])
    named = [label for cell in cells for label in cell]
    ids = names.find(named, normalize=normalize)
    given = np.zeros((len(cells), len(names.names)), bool)
    given[row[ids >= 0], ids[ids >= 0]] = True
    unknown: list[str | None] = [None] * len(cells)
    for i in np.flatnonzero(ids < 0).tolist():
        unknown[row[i]] = named[i]
    return LabelSets(given, names, unknown)


def _cells(series: pd.Series, place: str, separator: str | None) -> list[list[str]]:
    return [_labels(value, separator, i, place) for i, value in enumerate(series.tolist())]


def _labels(value: Any, separator: str | None, row: int, place: str) -> list[str]:
    """The labels of one cell."""
    text = _reader(row, place)
    if isinstance(value, list | tuple | np.ndarray):
        return [text(label, "a label") for label in value]
    if value is None or value is pd.NA or value != value or (isinstance(value, str) and not value.strip()):
        return []
    if separator is None:
        raise InputError(
            f"{place}: {brief(value)} in {row_listing([row])} is no list, as those of other rows are; write "
            "a list of labels in each row."
        )
    return [part.strip() for part in text(value, "the label").split(separator) if part.strip()]


def _reader(row: int, place: str) -> Callable[[Any, str], str]:
    def text(value: Any, what: str) -> str:
        try:
            name = label_text(value)
        except TypeError:
            name = None
        if name is None or "\0" in name:
            raise InputError(
                f"{place}: {what} is {brief(value)} in {row_listing([row])}; write text or a whole number."
            )
        return name

    return text


def _checked(given: np.ndarray, names: LabelNames, place: str) -> tuple[np.ndarray, LabelNames]:
    if not given.any():
        raise InputError(f"{place}: no row has a label; write the labels of each row.")
    if given.all():
        raise InputError(f"{place}: every row has all labels; give rows that lack some.")
    return given, names
