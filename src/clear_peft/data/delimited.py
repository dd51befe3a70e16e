"""CSV and TSV: every cell is text as it was written."""

import csv
import io
import json
import re
from collections.abc import Iterator
from contextlib import contextmanager

import pandas as pd

from clear_peft.data.checks import check_columns, decode_utf8, separated_otherwise
from clear_peft.errors import InputError
from clear_peft.files import plain_json


def parse(data: bytes, source: str, delimiter: str) -> pd.DataFrame:
    """Parse a table whose first row is the header; blank lines are skipped.

    Args:
        data: Content of the file.
        source: Name of the file, for sentences.
        delimiter: Comma or tab.

    Returns:
        Table of strings.

    Raises:
        InputError: For broken UTF-8, NUL, ragged rows, quotes that do not match up, or no rows.
    """
    text = decode_utf8(data, source)
    nul = text.find("\0")
    if nul >= 0:
        line = text.count("\n", 0, nul) + 1
        raise InputError(
            f"{source!r}, line {line}: holds a NUL character; remove it or give the table as JSONL."
        )
    rows = _rows(text, source, delimiter)
    _, header = next(rows, (0, []))
    if not header:
        raise InputError(f"{source!r} holds only blank lines; give a header and at least one row.")
    check_columns(header, source)
    cells = []
    for line, row in rows:
        if len(row) != len(header):
            sign = "tab" if delimiter == "\t" else "comma"
            mend = f"put double quotes around a cell that contains a {sign}."
            raise InputError(
                f"{source!r}, line {line}: the row has {len(row)} cells but the header has {len(header)}; "
                f"{separated_otherwise(header) or mend}"
            )
        cells.append(row)
    if not cells:
        raise InputError(f"{source!r} has a header but no rows; give at least one row.")
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

    def quote(cell: str) -> str:
        # A lone empty cell would read as a blank line.
        if special.search(cell) or (not cell and len(frame.columns) == 1):
            return '"' + cell.replace('"', '""') + '"'
        return cell

    columns = [_cells(frame.iloc[:, position]) for position in range(frame.shape[1])]
    rows = [[str(name) for name in frame.columns], *zip(*columns, strict=True)]
    text = "".join(delimiter.join(map(quote, row)) + "\n" for row in rows)
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


def _rows(text: str, source: str, delimiter: str) -> Iterator[tuple[int, list[str]]]:
    """Yield (line number where the row begins, cells) for each row that is not blank."""
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, strict=True)
    line = 1
    with _any_field_size(len(text)):
        try:
            for row in reader:
                if row:
                    yield line, row
                line = reader.line_num + 1
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
    return ["" if gone else _cell(value) for value, gone in zip(column.to_numpy(), missing, strict=True)]


def _cell(value: object) -> str:
    plain = plain_json(value)
    if isinstance(plain, list | dict):
        return json.dumps(plain, ensure_ascii=False, default=str)
    return str(value)
