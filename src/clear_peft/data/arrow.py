"""Parquet files and Arrow tables."""

import json
from typing import Any

import numpy as np
import pandas as pd

from clear_peft.data.checks import check_columns
from clear_peft.errors import InputError

# attribute of a frame: the Arrow schema that it was read with; pandas does not have all types, and no null.
# Hexadecimal, as pandas writes attributes as JSON.
_SCHEMA = "clear_peft.arrow_schema"
# metadata of a schema that datasets writes
_HUGGING_FACE = b"huggingface"
# what it calls lists there
_LISTS = ("List", "LargeList", "Sequence")


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
    return table_to_frame(read_parquet(data, source), source)


def read_parquet(data: bytes, source: str) -> Any:
    """The ``pyarrow.Table`` of a Parquet file.

    Raises:
        InputError: If the content is no sound Parquet.
    """
    import pyarrow as pa  # type: ignore[import-untyped]
    import pyarrow.parquet as pq  # type: ignore[import-untyped]

    try:
        table = pq.ParquetFile(pa.BufferReader(data)).read()
        table.validate(full=True)  # among others, that text is UTF-8
    except (pa.ArrowException, OSError, ValueError, MemoryError) as error:
        raise InputError(f"{source!r} is not a sound Parquet file; write it anew from its source.") from error
    return table


def table_to_frame(table: Any, source: str) -> pd.DataFrame:
    """Turn a ``pyarrow.Table`` into a DataFrame.

    Args:
        table: Arrow table; every stored column counts, a pandas index too.
        source: Where it is from, for sentences.

    Returns:
        Table in which whole numbers stay whole numbers, also beside missing values, and ids of classes, in
        lists too, become their names where the table knows them (``datasets.ClassLabel``), -1 None;
        :func:`render_parquet` gives its columns the types back that they have here. Where a column of
        floating-point numbers has missing values, those that are not a number (NaN) become missing too.

    Raises:
        InputError: If it has no rows, or two columns of one name, or values that pandas cannot hold.
    """
    import pyarrow as pa

    check_columns(table.column_names, source)
    if not table.num_rows:
        raise InputError(f"{source!r} has no rows; give at least one.")
    try:
        table = _named_classes(table)
        frame = table.to_pandas(ignore_metadata=True, integer_object_nulls=True)
    except (pa.ArrowException, ValueError, OverflowError, TypeError, IndexError) as error:
        raise InputError(
            f"{source!r} holds values that pandas cannot represent; write it as JSONL."
        ) from error
    columns = zip(table.schema, table.columns, strict=True)
    fields = [field.with_nullable(column.null_count > 0) for field, column in columns]
    frame.attrs[_SCHEMA] = pa.schema(fields, table.schema.metadata).serialize().to_pybytes().hex()
    return frame


def _named_classes(table: Any) -> Any:
    """A table with names in place of ids of classes, as far as its metadata has them.

    The metadata then no longer fit, and are left out.
    """
    import pyarrow as pa

    metadata = dict(table.schema.metadata or {})
    try:
        features = json.loads(metadata.pop(_HUGGING_FACE, b"{}"))["info"]["features"]
        classes = {name: _class_names(kind) for name, kind in features.items()}
    except (ValueError, KeyError, TypeError, AttributeError):  # none, or not as datasets writes them
        return table
    for place, field in enumerate(table.schema):
        names = classes.get(field.name)
        if names is None:
            continue
        parts = [_named(part, names) for part in table.column(place).chunks]
        if parts[0].type != field.type:
            table = table.set_column(place, field.name, pa.chunked_array(parts))
            table = table.replace_schema_metadata(metadata)
    return table


def _class_names(kind: Any) -> list[str] | None:
    """Class names of a feature of ``datasets``, or of what its lists hold; None where it has none."""
    # the name of lists has changed over the versions; the oldest way to write them is a list of one feature
    while isinstance(kind, list) or kind.get("_type") in _LISTS:
        (kind,) = kind if isinstance(kind, list) else (kind["feature"],)
    return kind["names"] if kind.get("_type") == "ClassLabel" else None


def _named(values: Any, names: list[str]) -> Any:
    """An Arrow array of ids of classes, or of lists of such, with their names; another one as it is."""
    import pyarrow as pa
    import pyarrow.compute as pc  # type: ignore[import-untyped]

    kind = values.type
    if pa.types.is_integer(kind):
        return pa.array(names, pa.string()).take(pc.if_else(pc.less(values, 0), None, values))
    if not (pa.types.is_list(kind) or pa.types.is_large_list(kind) or pa.types.is_fixed_size_list(kind)):
        return values
    items = _named(values.flatten(), names)  # without those of missing lists
    lengths = pc.list_value_length(values).fill_null(0).to_numpy(zero_copy_only=False)
    offsets = np.append(0, np.cumsum(lengths, dtype=np.int64))
    lists = pa.LargeListArray.from_arrays(offsets, items, mask=values.is_null())
    return lists if pa.types.is_large_list(kind) else lists.cast(pa.list_(items.type))


def render_parquet(frame: pd.DataFrame, source: str) -> bytes:
    """Write a table as Parquet.

    Args:
        frame: Table in which each column holds values of one type. One that was read from Arrow keeps its
            Arrow type, as long as its values still have it; with all columns, the table its metadata.
        source: Name of the file to be, for sentences.

    Returns:
        Content of the file.

    Raises:
        InputError: If a column holds values that have no common Parquet type.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    kept = frame.attrs.get(_SCHEMA)
    schema = pa.schema([]) if kept is None else pa.ipc.read_schema(pa.py_buffer(bytes.fromhex(kept)))
    fields = {field.name: field for field in schema}
    try:
        table = pa.table({str(name): _column(cells, fields.get(name)) for name, cells in frame.items()})
        if table.column_names == schema.names:
            table = table.replace_schema_metadata(schema.metadata)
        sink = pa.BufferOutputStream()
        pq.write_table(table, sink)
    except (pa.ArrowException, ValueError, TypeError, OverflowError) as error:
        reason = str(error).partition("\n")[0].rstrip(".")
        raise InputError(f"Cannot write {source!r}: {reason}; write JSONL instead.") from error
    return sink.getvalue().to_pybytes()


def _column(values: pd.Series, field: Any) -> Any:
    """Arrow array of a column: of the type that it was read with, or else of the one its values have."""
    import pyarrow as pa

    if field is not None:
        try:
            return pa.array(values, field.type, from_pandas=field.nullable)
        except (pa.ArrowException, ValueError, TypeError, OverflowError):
            pass  # it holds something else by now
    return pa.array(values, from_pandas=True)
