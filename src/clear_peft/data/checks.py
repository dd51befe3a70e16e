"""Sentences and checks that several readers share."""

import codecs
from collections import Counter
from collections.abc import Sequence
from reprlib import Repr
from typing import Any

import numpy as np
import pandas as pd

from clear_peft.errors import InputError

_SHOWN = 5
# that of UTF-32 begins with that of UTF-16
_MARKS = (
    (codecs.BOM_UTF32_LE, "utf-32"),
    (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
)
# share of bytes; texts in other scripts have more
_MOST_BEYOND_ASCII = 0.15
_BRIEF = Repr()
_BRIEF.maxstring = 60


def check_columns(names: Sequence[str], source: str) -> None:
    """Refuse a table in which two columns have the same name, or that has no column at all."""
    if not names:
        raise InputError(f"{source!r} has no columns; name at least a text column.")
    repeated = [name for name, count in Counter(names).items() if count > 1]
    if repeated:
        raise InputError(
            f"{source!r} has more than one column named {listing(repeated)}; give each its own name."
        )


def without_empty_columns(
    names: Sequence[str], rows: Sequence[list[Any]]
) -> tuple[list[str], list[list[Any]]]:
    """Leave out columns without a name and without content, as spreadsheets add, where there are several."""
    unnamed = [i for i, name in enumerate(names) if not name]
    empty = {i for i in unnamed if all(row[i] in ("", None) for row in rows)} if len(unnamed) > 1 else set()
    kept = [i for i in range(len(names)) if i not in empty]
    return [names[i] for i in kept], [[row[i] for i in kept] for row in rows] if empty else list(rows)


def values_of(column: pd.Series) -> np.ndarray:
    """Values of a column, (N,); whole numbers beside missing ones stay whole numbers."""
    # of such columns to_numpy alone makes floats; of float32 an array of objects would be of float64
    extended = isinstance(column.dtype, pd.api.extensions.ExtensionDtype)
    return column.to_numpy(dtype=object if extended else None)


def decode(data: bytes, source: str, encoding: str | None = None) -> str:
    """Text of a file, without a byte order mark.

    Args:
        data: Content of the file.
        source: Its name, for sentences.
        encoding: As Python names it. Default: what a byte order mark says, else UTF-8. No other is guessed:
            on texts as short as these charset-normalizer takes most Western files for cp1250, and Japanese
            for Korean.

    Raises:
        InputError: If it is in another encoding, with the line of the first wrong byte.
    """
    if encoding is None:
        encoding = next((name for mark, name in _MARKS if data.startswith(mark)), "utf-8")
    try:
        return data.decode(encoding).removeprefix("\ufeff")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        where = f"{source!r}, line {line}: byte 0x{data[error.start]:02x} is not valid {encoding.upper()}"
        mend = _other_encoding(data, error.start) if encoding == "utf-8" else "give another encoding."
        raise InputError(f"{where}; {mend}") from error
    except (LookupError, ValueError):  # a name that is none, or of a codec that is not for text
        raise InputError(
            f"There is no encoding {encoding!r}; give one such as cp1252, utf-16 or shift_jis."
        ) from None


def _other_encoding(data: bytes, wrong: int) -> str:
    """What bytes that are not UTF-8 may be; Windows-1252 is told by its few letters beyond ASCII."""
    beyond = sum(byte > 127 for byte in data) / len(data)
    before, after = data[max(0, wrong - 15) : wrong], data[wrong : wrong + 30]
    around = before.rpartition(b"\n")[2] + after.partition(b"\n")[0]
    try:
        words = around.decode("cp1252") if beyond < _MOST_BEYOND_ASCII else ""
    except UnicodeDecodeError:
        words = ""
    if not words:
        return "save it as UTF-8, or say what it is, as in --encoding cp1252."
    seen = " ".join(words.split())
    return (
        f"it looks like Windows-1252, in which this is {seen!r}; save it as UTF-8 (in Excel: CSV UTF-8), or "
        "add --encoding cp1252."
    )


def brief(value: object) -> str:
    """The ``repr`` of a value, shortened to fit a sentence."""
    return _BRIEF.repr(value)


def listing(values: Sequence[object], shown: int = _SHOWN) -> str:
    """The first few values for a sentence, as in ``'a', 'b' and 3 more``."""
    text = ", ".join(brief(value) for value in values[:shown])
    return text if len(values) <= shown else f"{text} and {len(values) - shown} more"


def row_listing(rows: Sequence[int]) -> str:
    """Row numbers for a sentence, as in ``3 rows (0, 4, 7; counted from 0 without the header)``."""
    count = "1 row" if len(rows) == 1 else f"{len(rows)} rows"
    return f"{count} ({listing(rows)}; counted from 0 without the header)"
