"""CSV and TSV: every cell is text as it was written."""

import csv
import io
import json
import re
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Literal

import pandas as pd

from clear_peft.data.checks import check_columns, values_of, without_empty_columns
from clear_peft.errors import InputError
from clear_peft.files import plain_json

# what a spreadsheet separates cells by, by its language; the file's own comes first
_SIGNS = (",", ";", "\t", "|")
_MOST_OF_HEADER = 1 << 20
_EXCEL_SIGN = re.compile(r"sep=([,;\t|])\r?\n")
_LONE_RETURN = re.compile(r"\r(?!\n)")


def parse(text: str, source: str, delimiter: str) -> pd.DataFrame:
    """Parse a table whose first row is the header; blank lines are skipped.

    Cells are separated by another sign where the header says so: by a line ``sep=;`` before it, or by being
    one cell otherwise. Where a row does not fit, a carriage return alone is read as a space, and quotes in
    TSV as characters like others, as tools write them that quote nothing.

    Args:
        text: Content of the file.
        source: Name of the file, for sentences.
        delimiter: Comma or tab.

    Returns:
        Table of strings. Columns without a name and without content are left out where there are several.

    Raises:
        InputError: For NUL, ragged rows, quotes that do not match up, or no rows.
    """
    nul = text.find("\0")
    if nul >= 0:
        line = text.count("\n", 0, nul) + 1
        raise InputError(
            f"{source!r}, line {line}: holds a NUL character; remove it or give the table as JSONL."
        )
    said = _EXCEL_SIGN.match(text)
    if said:
        text, delimiter = text[said.end() :], said[1]
    else:
        signs = dict.fromkeys((delimiter, *_SIGNS))
        delimiter = next((sign for sign in signs if len(_header(text, sign)) > 1), delimiter)
    first_line = 2 if said else 1
    readings: list[tuple[str, Literal[0, 3]]] = [(text, csv.QUOTE_MINIMAL)]
    if "\n" in text and _LONE_RETURN.search(text):
        readings.append((_LONE_RETURN.sub(" ", text), csv.QUOTE_MINIMAL))
    if delimiter == "\t":
        readings.append((readings[-1][0], csv.QUOTE_NONE))
    wrong = None
    for reading, quoting in readings:
        try:
            header, cells = _table(reading, source, delimiter, quoting, first_line)
            break
        except InputError as error:
            wrong = wrong or error
    else:
        assert wrong is not None  # there is a reading
        raise wrong
    if not cells:
        raise InputError(f"{source!r} has a header but no rows; give at least one row.")
    header, cells = without_empty_columns(header, cells)
    check_columns(header, source)
    return pd.DataFrame(cells, columns=pd.Index(header), dtype="str")


def render(frame: pd.DataFrame, source: str, delimiter: str) -> bytes:
    """Write a table with a header; cells are quoted only where they must be.

    Args:
        frame: Table.
        source: Name of the file to be, for sentences.
        delimiter: Comma or tab.

    Returns:
        Content of the file: UTF-8 without a byte order mark, one line feed after each row.

    Raises:
        InputError: For NUL or half a surrogate pair, which the format cannot hold.
    """
    # Not csv.writer: before Python 3.13 it leaves a lone carriage return unquoted.
    special = re.compile(f'["\r\n{delimiter}]')
    of_header = re.compile(f'["\r\n{"".join(_SIGNS)}]|^sep=')  # what a reader would look for

    def quote(cell: str, special: re.Pattern[str] = special) -> str:
        # A lone empty cell would read as a blank line.
        if special.search(cell) or (not cell and len(frame.columns) == 1):
            return '"' + cell.replace('"', '""') + '"'
        return cell

    columns = [_cells(frame.iloc[:, position]) for position in range(frame.shape[1])]
    rows = [[quote(str(name), of_header) for name in frame.columns]]
    rows += [list(map(quote, row)) for row in zip(*columns, strict=True)]
    text = "".join(delimiter.join(row) + "\n" for row in rows)
    if text.startswith("\ufeff"):
        text = "\ufeff" + text  # readers take the first one for a byte order mark
    if "\0" in text:
        raise InputError(f"Cannot write {source!r}: a cell holds a NUL character; write JSONL instead.")
    try:
        return text.encode("utf-8")
    except UnicodeEncodeError as error:
        raise InputError(
            f"Cannot write {source!r}: a cell holds half a surrogate pair ({error.object[error.start]!r}); "
            "write JSONL instead."
        ) from error


def _header(text: str, delimiter: str) -> list[str]:
    """The first row that is not blank, as far as it can be read."""
    rows = csv.reader(io.StringIO(text[:_MOST_OF_HEADER], newline=""), delimiter=delimiter)
    try:
        return next((row for row in rows if row), [])
    except csv.Error:
        return []


def _table(
    text: str, source: str, delimiter: str, quoting: Literal[0, 3], first_line: int
) -> tuple[list[str], list[list[str]]]:
    """Header and rows, all of its length; empty cells beyond it are left out."""
    rows = _rows(text, source, delimiter, quoting, first_line)
    _, header = next(rows, (0, []))
    if not header:
        raise InputError(f"{source!r} holds only blank lines; give a header and at least one row.")
    cells = []
    for line, row in rows:
        if len(row) < len(header) or any(row[len(header) :]):
            sign = "tab" if delimiter == "\t" else repr(delimiter) if delimiter != "," else "comma"
            raise InputError(
                f"{source!r}, line {line}: the row has {len(row)} cells but the header has {len(header)}; "
                f"put double quotes around a cell that contains a {sign}."
            )
        cells.append(row[: len(header)])
    return header, cells


def _rows(
    text: str, source: str, delimiter: str, quoting: Literal[0, 3], first_line: int
) -> Iterator[tuple[int, list[str]]]:
    """Yield (line number where the row begins, cells) for each row that is not blank."""
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, quoting=quoting, strict=True)
    line = first_line
    with _any_field_size(len(text)):
        try:
            for row in reader:
                if row:
                    yield line, row
                line = reader.line_num + first_line
        except csv.Error as error:
            raise InputError(
                f"{source!r}, line {line}: the quotes of the row that begins here do not match up; "
                "close each quoted cell and double the quotes inside it."
            ) from error


@contextmanager
def _any_field_size(size: int) -> Iterator[None]:
    """Lift the csv module's limit of 131,072 characters a cell."""
    before = csv.field_size_limit()
    csv.field_size_limit(max(before, size))
    try:
        yield
    finally:
        csv.field_size_limit(before)


def _cells(column: pd.Series) -> list[str]:
    missing = column.isna().to_numpy()
    return ["" if gone else _cell(value) for value, gone in zip(values_of(column), missing, strict=True)]


def _cell(value: object) -> str:
    plain = plain_json(value)
    if isinstance(plain, list | dict):
        return json.dumps(plain, ensure_ascii=False, default=str)
    return str(value)
