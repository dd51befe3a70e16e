"""Sentences and checks that several readers share."""

from collections import Counter
from collections.abc import Sequence
from reprlib import Repr

from clear_peft.errors import InputError

_SHOWN = 5
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


def decode_utf8(data: bytes, source: str) -> str:
    """Decode UTF-8 with or without a byte order mark; the error names the line of the first wrong byte."""
    data = data.removeprefix(b"\xef\xbb\xbf")
    try:
        return data.decode("utf-8")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        byte = data[error.start]
        raise InputError(
            f"{source!r}, line {line}: byte 0x{byte:02x} is not valid UTF-8; save the file as UTF-8."
        ) from error


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


def separated_otherwise(columns: Sequence[str]) -> str:
    """How to mend a table whose one column holds what separates others; empty where it does not look so.

    Excel writes semicolons where the comma is the decimal sign.
    """
    signs = [sign for sign in (";", "\t", "|", ",") if len(columns) == 1 and sign in columns[0]]
    mend = "save it with commas as .csv, or with tabs as .tsv."
    return f"its cells look separated by {signs[0]!r}; {mend}" if signs else ""
