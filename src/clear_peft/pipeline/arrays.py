"""Predictions and embeddings that others have made, from files and from memory."""

import os
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
from pandas.api.types import is_object_dtype

from clear_peft.data import LoadedTable, read_table
from clear_peft.data.checks import listing
from clear_peft.errors import ClearWarning, InputError

_ROWS_AT_ONCE = 1 << 14


def rows_of(array: Any, table: LoadedTable) -> Any:
    """The part of an array that is about the labelled rows of a table.

    Args:
        array: With an entry for each row of the table, or for each labelled one; None; or of another length,
            which is for the caller to refuse.
        table: Its rows without a label or a text set apart.
    """
    whole = array is not None and len(array) == len(table.frame) != len(table.examples)
    return array[table.examples.rows] if whole else array


def rows_without_label(array: Any, table: LoadedTable) -> Any:
    """The part of an array that is about the rows without a label; None, with a warning, if it has none.

    Args:
        array: As for ``rows_of``.
        table: Some of its rows have no label.
    """
    assert table.unlabelled is not None
    if len(array) == len(table.frame):
        return array[table.unlabelled.rows]
    warnings.warn(
        f"There are {len(array)} rows of numbers for the {len(table.frame)} rows of the table: those without "
        "a label are not predicted.",
        ClearWarning,
        stacklevel=3,
    )
    return None


def read_array(path: str | os.PathLike[str], names: Sequence[str] = ()) -> npt.NDArray[Any]:
    """Read an array of numbers from a .npy file, as a memory map, or from the columns of a Parquet file.

    Args:
        path: The file; nothing in it is unpickled. A Parquet file has a column for each number, or a single
            one of lists.
        names: Names of the classes, as for ``in_order``. Default: columns keep their order.

    Raises:
        InputError: If it cannot be read, or holds something else.
    """
    name = os.fspath(path)
    ending = Path(name).suffix.lower()
    if ending == ".parquet":
        return _numbers(in_order(read_table(name), names, repr(name)), name)
    if ending != ".npy":
        raise InputError(f"{name!r} is no array: give a file that ends in .npy or .parquet.")
    try:
        values = np.load(name, mmap_mode="r", allow_pickle=False)
    except OSError as error:
        reason = (error.strerror or str(error)).lower()
        raise InputError(f"Cannot read {name!r}: {reason}; check the path.") from error
    except (ValueError, EOFError, SyntaxError) as error:
        raise InputError(f"{name!r} is no array of numbers: write it with numpy.save.") from error
    if not isinstance(values, np.ndarray):
        raise InputError(f"{name!r} holds several arrays: write one with numpy.save.")
    return values


def in_order(frame: pd.DataFrame, names: Sequence[str], place: str) -> pd.DataFrame:
    """Columns in the order of the classes.

    Args:
        frame: A column for each class; without names, the columns are numbered from 0.
        names: Names of the classes; none if there are none.
        place: Where the columns come from, for sentences.

    Raises:
        InputError: If the columns have other names.
    """
    columns = [str(column) for column in frame.columns]
    if set(columns) == set(names):
        return frame.set_axis(columns, axis=1)[list(names)]
    if not names or len(columns) == 1 or columns == [str(i) for i in range(len(columns))]:
        return frame
    raise InputError(
        f"{place} has the columns {listing(columns)}, but the classes are {listing(names)}: name a column "
        "after each class."
    )


def checked_embeddings(values: npt.ArrayLike, rows: int, place: str) -> npt.NDArray[Any]:
    """Embeddings (N, D) or (N, V, D), if they are such.

    Args:
        values: What may be embeddings.
        rows: N.
        place: Where they come from, for sentences.

    Raises:
        InputError: If they have another shape, or hold what is no finite number.
    """
    array = np.asanyarray(values)
    _check_numbers(array, place)
    if array.ndim not in (2, 3) or 0 in array.shape[1:] or len(array) != rows:
        raise InputError(
            f"{place} has shape {array.shape}, but there are {rows} rows: give (N, D), one row for each, in "
            "the same order."
        )
    for start in range(0, rows, _ROWS_AT_ONCE):
        if not np.isfinite(array[start : start + _ROWS_AT_ONCE]).all():
            raise InputError(f"{place} holds a number that is not finite: give embeddings without NaN.")
    return array


def checked_pred_probs(
    values: npt.ArrayLike, rows: int, names: Sequence[str], place: str
) -> npt.NDArray[Any]:
    """Predicted probabilities (N, C), if there are so many; what they are is for others to check.

    Args:
        values: What may be predictions.
        rows: N.
        names: Names of the classes.
        place: Where they come from, for sentences.

    Raises:
        InputError: If they have another shape, or are no numbers.
    """
    if isinstance(values, pd.DataFrame):
        values = in_order(values, names, place).to_numpy()
    array = np.asanyarray(values)
    _check_numbers(array, place)
    if array.shape != (rows, len(names)):
        raise InputError(
            f"{place} has shape {array.shape}, but there are {rows} rows and {len(names)} classes: give a "
            f"row for each row and a column for each class, in the order {listing(names)}."
        )
    return array


def _check_numbers(array: npt.NDArray[Any], place: str) -> None:
    if not (np.issubdtype(array.dtype, np.integer) or np.issubdtype(array.dtype, np.floating)):
        raise InputError(f"{place} holds {array.dtype} values: give numbers.")


def _numbers(frame: pd.DataFrame, name: str) -> npt.NDArray[Any]:
    try:
        if frame.shape[1] == 1 and is_object_dtype(frame.dtypes.iloc[0]):
            return np.stack([np.asarray(row, np.float64) for row in frame.iloc[:, 0]])
        return frame.to_numpy(np.float64)
    except (ValueError, TypeError) as error:
        raise InputError(
            f"{name!r} holds more than numbers: give a column for each number, or one column of lists of the "
            "same length."
        ) from error
