"""Tables by name: which reader or writer a file ending calls for, and when a name is one of the hub."""

import math
import os
from collections.abc import Callable, Iterable
from functools import partial
from pathlib import Path
from typing import Any

import pandas as pd

from clear_peft.data import arrow, conll, delimited, excel, jsonl
from clear_peft.data.checks import check_columns, decode
from clear_peft.data.hub import folder_of, read_folder, read_hub
from clear_peft.errors import InputError
from clear_peft.files import atomic_write

_TEXT_READERS: dict[str, Callable[[str, str], pd.DataFrame]] = {
    ".csv": partial(delimited.parse, delimiter=","),
    ".tsv": partial(delimited.parse, delimiter="\t"),
    ".jsonl": jsonl.parse,
    ".ndjson": jsonl.parse,
    ".json": jsonl.parse,
    ".conll": conll.parse,
}
_BINARY_READERS: dict[str, Callable[[bytes, str], pd.DataFrame]] = {
    ".parquet": arrow.parse_parquet,
    ".xlsx": excel.parse,
}
_COMPRESSED = {".gz": "gzip", ".bz2": "bz2", ".zst": "zstd"}
_WRITERS: dict[str, Callable[[pd.DataFrame, str], bytes]] = {
    ".csv": partial(delimited.render, delimiter=","),
    ".tsv": partial(delimited.render, delimiter="\t"),
    ".jsonl": jsonl.render,
    ".ndjson": jsonl.render,
    ".parquet": arrow.render_parquet,
}
# No hub name ends in these, so a missing file is reported as a missing file.
_OTHER_FILE_ENDINGS = {".txt", ".xls", ".zip", ".arrow", ".feather"}
_READABLE = ", ".join([*_TEXT_READERS, *_BINARY_READERS])
_ENDINGS = ", ".join(_WRITERS)


def read_table(source: Any, *, encoding: str | None = None) -> pd.DataFrame:
    """Read a table from a file, a folder, the Hugging Face hub or memory; rows keep their order.

    In CSV and TSV every cell is text as it was written: ``NA``, ``null``, ``007`` and ``1.0`` stay as they
    are and an empty cell is an empty string. All else keeps its values; a missing one is None or NaN.

    Args:
        source: A file ending in .csv, .tsv, .jsonl, .ndjson, .json, .conll, .parquet or .xlsx, each perhaps
            followed by .gz, .bz2 or .zst; a folder of Parquet files, or one that ``save_to_disk`` of datasets
            has written, with ``@split`` where it holds several; a hub data set as ``name[:config][@split]``,
            for example ``ag_news@test`` or ``glue:sst2@validation``, where the split is ``train`` unless
            given; or a table of pandas, polars or Arrow.
        encoding: Of a text file. Default: UTF-8, or UTF-16 with a byte order mark.

    Returns:
        The table with at least one row, unique column names and an index that counts from 0.

    Raises:
        InputError: If there is no such file or data set, or its content is broken; names the line.
    """
    if isinstance(source, pd.DataFrame):
        check_columns([str(column) for column in source.columns], name_of(source))
        return source.reset_index(drop=True)
    if hasattr(source, "__arrow_c_stream__"):
        import pyarrow as pa  # type: ignore[import-untyped]

        return arrow.table_to_frame(pa.table(source), name_of(source))
    name = os.fspath(source)
    path = Path(name)
    packed = _COMPRESSED.get(path.suffix.lower())
    ending = (path.with_suffix("") if packed else path).suffix.lower()
    known = ending in _TEXT_READERS or ending in _BINARY_READERS
    exists = os.path.exists(name)  # noqa: PTH110  (unlike Path.exists, False for "" and impossible names)
    folder = folder_of(name)
    if folder is not None and not (exists and path.is_file()):
        return read_folder(*folder)
    if not (exists or packed or known or ending in _OTHER_FILE_ENDINGS or name[:1] in ("/", ".", "~")):
        return read_hub(name)
    if exists and not known:
        raise InputError(f"{name!r} is of an unknown format; give a file that ends in one of {_READABLE}.")
    try:
        data = path.read_bytes()
    except (OSError, ValueError) as error:
        reason = (getattr(error, "strerror", None) or str(error)).lower()
        raise InputError(f"Cannot read {name!r}: {reason}; check the path.") from error
    if packed:
        data = _unpacked(data, packed, name)
    if not data:
        raise InputError(f"{name!r} is empty; give a table with at least one row.")
    if ending in _TEXT_READERS:
        return _TEXT_READERS[ending](decode(data, name, encoding), name)
    return _BINARY_READERS[ending](data, name)


def without_empty_end(frame: pd.DataFrame) -> pd.DataFrame:
    """The rows up to the last one that holds anything: spreadsheets add empty ones."""
    end = len(frame)
    while end > 1 and all(map(_is_empty, frame.iloc[end - 1])):
        end -= 1
    return frame if end == len(frame) else frame.iloc[:end]


def _is_empty(value: object) -> bool:
    missing = value is None or value is pd.NA or value is pd.NaT
    return (
        missing or (isinstance(value, str) and not value) or (isinstance(value, float) and math.isnan(value))
    )


def name_of(source: Any) -> str:
    """What sentences call a source: its path or name, or its type."""
    return os.fspath(source) if isinstance(source, str | os.PathLike) else f"the {type(source).__name__}"


def _unpacked(data: bytes, kind: str, name: str) -> bytes:
    import pyarrow as pa

    try:
        return pa.CompressedInputStream(pa.BufferReader(data), kind).read()
    except (OSError, pa.ArrowException) as error:
        raise InputError(f"{name!r} is damaged: it cannot be unpacked as {kind}; pack it anew.") from error


def check_writable(path: str | os.PathLike[str]) -> None:
    """Refuse a path that :func:`write_table` would refuse, before the work on the table begins.

    Args:
        path: File to write later.

    Raises:
        InputError: If the ending is unknown, the folder is missing, or either cannot be written to.
    """
    name = os.fspath(path)
    if Path(name).suffix.lower() not in _WRITERS:
        raise InputError(f"Cannot write {name!r}: its ending names no known format; use one of {_ENDINGS}.")
    folder = os.path.dirname(os.path.realpath(name))  # noqa: PTH120  (as atomic_write resolves it)
    if not os.path.isdir(folder):  # noqa: PTH112
        raise InputError(f"Cannot write {name!r}: there is no folder {folder!r}; make it first.")
    try:
        os.stat(name)  # noqa: PTH116
    except FileNotFoundError:
        pass
    except (OSError, ValueError) as error:
        reason = (getattr(error, "strerror", None) or str(error)).lower()
        raise InputError(f"Cannot write {name!r}: {reason}; choose another name.") from error
    if os.path.isdir(name) or not os.access(folder, os.W_OK | os.X_OK):  # noqa: PTH112
        raise InputError(f"Cannot write {name!r}; choose a file in a folder that you may write to.")


def check_output(
    output: str | os.PathLike[str], inputs: Iterable[str | os.PathLike[str]], *, overwrite: bool
) -> None:
    """Refuse to write over an input, or over any file without being told to.

    Args:
        output: File to write later with :func:`write_table`.
        inputs: What is read: files, by whatever path or link, or hub names.
        overwrite: Whether the output may be there already.

    Raises:
        InputError: If it must not or cannot be written.
    """
    if os.path.exists(output):  # noqa: PTH110  (see read_table)
        for source in inputs:
            if os.path.exists(source) and Path(output).samefile(source):  # noqa: PTH110
                raise InputError(f"{output} is the input itself: give another --output.")
        if not overwrite:
            raise InputError(f"{output} is there already: give another --output, or --overwrite.")
    check_writable(output)


def write_table(frame: pd.DataFrame, path: str | os.PathLike[str]) -> None:
    """Write a table atomically in the format that the file ending names; the index is not written.

    A table of text comes back from :func:`read_table` as it was. In CSV and TSV a missing value becomes an
    empty cell and a nested value its JSON. Cells are written as they are: pass the table through
    :func:`escape_formulas` first where the file may be opened in a spreadsheet.

    Args:
        frame: Table with unique column names.
        path: File ending in .csv, .tsv, .jsonl, .ndjson or .parquet, in an existing folder.

    Raises:
        InputError: If the ending is unknown, the format cannot hold a value, or the folder cannot be
            written to.
    """
    name = os.fspath(path)
    ending = Path(name).suffix.lower()
    if ending not in _WRITERS:
        raise InputError(f"Cannot write {name!r}: its ending names no known format; use one of {_ENDINGS}.")
    check_columns([str(column) for column in frame.columns], name)
    atomic_write(name, _WRITERS[ending](frame, name))
