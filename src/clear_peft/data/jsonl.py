"""JSONL: one JSON object on each line; and JSON: an array of them."""

import json
import math
from typing import Any, NoReturn

import pandas as pd

from clear_peft.data.checks import listing, values_of
from clear_peft.errors import InputError
from clear_peft.files import plain_json


def parse(text: str, source: str) -> pd.DataFrame:
    """Parse JSON objects, one a line, or an array of them; blank lines are skipped.

    Args:
        text: Content of the file.
        source: Name of the file, for sentences.

    Returns:
        Table of dtype object with the values as JSON has them; a key that a line lacks gives None. Columns
        are in the order in which they first appear.

    Raises:
        InputError: For broken JSON, a row that is no object, a key twice in one object, NaN, infinities, half
            a surrogate pair, or no rows.
    """
    if text.lstrip().startswith("["):
        rows = _value(text, repr(source), "an array of objects")
        records = [_record(row, f"{source!r}, row {number}") for number, row in enumerate(rows)]
    else:
        # Not splitlines(): JSON strings may contain other line separators, such as U+2028.
        lines = (
            (f"{source!r}, line {n}", line) for n, line in enumerate(text.split("\n"), 1) if line.strip()
        )
        records = [_record(_value(line, where, "one JSON object a line"), where) for where, line in lines]
    if not records:
        raise InputError(f"{source!r} holds no rows; give one JSON object a line.")
    columns = dict.fromkeys(key for record in records for key in record)
    if not columns:
        raise InputError(f"{source!r} holds only empty objects; give each a text.")
    return pd.DataFrame(
        {name: pd.Series([record.get(name) for record in records], dtype=object) for name in columns}
    )


def render(frame: pd.DataFrame, source: str) -> bytes:
    """Write a table as JSON objects, one a line; missing and infinite values become null.

    Args:
        frame: Table; dates and other values without a JSON form are written as their text.
        source: Unused: this format holds every table.

    Returns:
        Content of the file: UTF-8 with a line feed after each object.
    """
    names = [str(name) for name in frame.columns]
    columns = [_values(frame.iloc[:, position]) for position in range(frame.shape[1])]
    lines = (
        json.dumps(dict(zip(names, row, strict=True)), ensure_ascii=False, allow_nan=False, default=str)
        + "\n"
        for row in zip(*columns, strict=True)
    )
    # Half a surrogate pair has no UTF-8 form; backslashreplace writes it as the JSON escape \udXXX.
    return "".join(lines).encode("utf-8", "backslashreplace")


def _value(text: str, where: str, wanted: str) -> Any:
    def constant(name: str) -> NoReturn:
        raise InputError(f"{where}: {name} is not a JSON number; write null or leave the key out.")

    def number(text: str) -> float:
        value = float(text)
        return value if math.isfinite(value) else constant(text)

    def unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        record = dict(pairs)
        if len(record) < len(pairs):
            keys = [key for key, _ in pairs]
            repeated = sorted({key for key in keys if keys.count(key) > 1})
            raise InputError(f"{where}: the key {listing(repeated)} stands twice in one object; keep one.")
        return record

    try:
        value = json.loads(text, parse_constant=constant, parse_float=number, object_pairs_hook=unique)
    except InputError:
        raise
    except RecursionError as error:
        raise InputError(f"{where}: the JSON is nested too deeply; flatten it.") from error
    except ValueError as error:
        reason = str(error).partition(";")[0]
        if isinstance(error, json.JSONDecodeError):
            reason = error.msg if error.doc.count("\n") == 0 else f"line {error.lineno}: {error.msg}"
        raise InputError(f"{where}: not valid JSON ({reason}); write {wanted}.") from error
    if "\\u" in text:
        try:
            json.dumps(value, ensure_ascii=False).encode("utf-8")
        except UnicodeEncodeError as error:
            raise InputError(
                f"{where}: holds half a surrogate pair ({error.object[error.start]!r}), no character; "
                "remove it or write the whole pair."
            ) from error
    return value


def _record(value: Any, where: str) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise InputError(f"{where}: holds no JSON object; write each row as {{...}} on a line of its own.")
    return value


def _values(column: pd.Series) -> list[Any]:
    missing = column.isna().to_numpy()
    return [
        None if gone else plain_json(value) for value, gone in zip(values_of(column), missing, strict=True)
    ]
