"""Rows with several labels or none: cells such as ``a;b``, lists, and columns of 0 and 1."""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pandas as pd

from clear_peft.data.checks import brief, row_listing
from clear_peft.data.columns import check_column, flag
from clear_peft.data.labels import LabelNames, label_text
from clear_peft.errors import InputError


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
    names = LabelNames(tuple(columns))
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
    return _checked(given, names, name)


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
    rows = [_labels(value, separator, i, place) for i, value in enumerate(series.tolist())]
    named = [label for labels in rows for label in labels]
    if not named:
        raise InputError(f"{place}: no row has a label; write the labels of each row.")
    try:
        names = LabelNames.fit(named, normalize=normalize)
    except InputError as error:
        raise InputError(f"{place}: {error}") from None
    given = np.zeros((len(rows), len(names.names)), bool)
    row = np.repeat(np.arange(len(rows)), [len(labels) for labels in rows])
    given[row, names.find(named, normalize=normalize)] = True
    return _checked(given, names, place)


def _labels(value: Any, separator: str | None, row: int, place: str) -> list[str]:
    """The labels of one cell."""
    text = _reader(row, place)
    if isinstance(value, list | tuple | np.ndarray):
        return [text(label, "a label") for label in value]
    if value is None or value is pd.NA or value != value or (isinstance(value, str) and not value.strip()):
        return []
    if separator is None:
        raise InputError(
            f"{place}: {brief(value)} in {row_listing([row])} is no list, but other cells are; write a list "
            "of labels in each row."
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
