"""Parquet files and Arrow tables."""

from typing import Any

import pandas as pd

from clear_peft.data.checks import check_columns
from clear_peft.errors import InputError


def parse_parquet(data: bytes, source: str) -> pd.DataFrame:
    """Parse a Parquet file.

    Args:
        data: Content of the file.
        source: Name of the file, for sentences.

    Returns:
        What :func:`table_to_frame` makes of it.

    Raises:
        InputError: If the content is no sound Parquet, or has no rows.
    """
    import pyarrow as pa  # type: ignore[import-untyped]
    import pyarrow.parquet as pq  # type: ignore[import-untyped]

    try:
        table = pq.ParquetFile(pa.BufferReader(data)).read()
        table.validate(full=True)  # among others, that text is UTF-8
    except (pa.ArrowException, OSError, ValueError, MemoryError) as error:
        raise InputError(f"{source!r} is not a sound Parquet file; write it anew from its source.") from error
    return table_to_frame(table, source)


def table_to_frame(table: Any, source: str) -> pd.DataFrame:
    """Turn a ``pyarrow.Table`` into a DataFrame.

    Args:
        table: Arrow table; every stored column counts, a pandas index too.
        source: Where it is from, for sentences.

    Returns:
        Table in which whole numbers stay whole numbers, also beside missing values.

    Raises:
        InputError: If it has no rows, or two columns of one name, or values that pandas cannot hold.
    """
    import pyarrow as pa

    check_columns(table.column_names, source)
    if not table.num_rows:
        raise InputError(f"{source!r} has no rows; give at least one.")
    try:
        return table.to_pandas(ignore_metadata=True, integer_object_nulls=True)
    except (pa.ArrowException, ValueError, OverflowError, TypeError) as error:
        raise InputError(
            f"{source!r} holds values that pandas cannot represent; write it as JSONL."
        ) from error


def render_parquet(frame: pd.DataFrame, source: str) -> bytes:
    """Write a table as Parquet.

    Args:
        frame: Table in which each column holds values of one type.
        source: Name of the file to be, for sentences.

    Returns:
        Content of the file.

    Raises:
        InputError: If a column holds values that have no common Parquet type.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    named = frame.set_axis([str(name) for name in frame.columns], axis="columns")
    try:
        table = pa.Table.from_pandas(named, preserve_index=False)
        sink = pa.BufferOutputStream()
        pq.write_table(table, sink)
    except (pa.ArrowException, ValueError, TypeError, OverflowError) as error:
        reason = str(error).partition("\n")[0].rstrip(".")
        raise InputError(f"Cannot write {source!r}: {reason}; write JSONL instead.") from error
    return sink.getvalue().to_pybytes()
