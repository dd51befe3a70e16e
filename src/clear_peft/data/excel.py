"""The first sheet of an Excel workbook."""

import io
import warnings
from typing import Any

import pandas as pd

from clear_peft.data.checks import check_columns, without_empty_columns
from clear_peft.errors import ClearWarning, InputError
from clear_peft.surroundings import pip_install


def parse(data: bytes, source: str) -> pd.DataFrame:
    """Parse a workbook; cells keep their values, and formulas give what they last came to.

    Args:
        data: Content of the file.
        source: Name of the file, for sentences.

    Returns:
        Table of dtype object, its first row as the header; an empty cell gives None.

    Raises:
        InputError: If openpyxl is not installed, the content is no workbook, or there are no rows.
    """
    try:
        import openpyxl
    except ImportError:
        raise InputError(
            f"{source!r} is an Excel workbook: {pip_install('excel')}, or save it as CSV UTF-8."
        ) from None
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of styles and the like
            book = openpyxl.load_workbook(io.BytesIO(data), read_only=True, data_only=True)
            sheets = {sheet.title: _rows(sheet) for sheet in book.worksheets}
    except Exception as error:  # what a damaged file raises is an open list
        raise InputError(f"{source!r} is not a sound Excel workbook; save it anew as .xlsx.") from error
    filled = {title: rows for title, rows in sheets.items() if rows}
    if not filled:
        raise InputError(f"{source!r} has no rows; give a header and at least one row.")
    title, cells = next(iter(filled.items()))
    width = max(map(len, cells))
    first, *rows = [[*row, *[None] * (width - len(row))] for row in cells]
    if len(filled) > 1:
        message = f"{source!r} has {len(filled)} sheets; the first, {title!r}, is read, and no other."
        warnings.warn(message, ClearWarning, stacklevel=2)
    names, rows = without_empty_columns(["" if name is None else str(name) for name in first], rows)
    check_columns(names, source)
    if not rows:
        raise InputError(f"{source!r} has a header but no rows; give at least one row.")
    return pd.DataFrame(rows, columns=pd.Index(names), dtype=object)


def _rows(sheet: Any) -> list[tuple[Any, ...]]:
    """The rows of a sheet that are not blank."""
    return [row for row in sheet.iter_rows(values_only=True) if any(cell is not None for cell in row)]
