"""Text that a spreadsheet must not run.

A spreadsheet takes a cell that begins with ``=``, ``+``, ``-``, ``@``, a tab or a line break for a formula,
and a formula can send the neighbouring cells to a stranger. A single quote in front makes it text.
"""

import re
from collections.abc import Callable

import pandas as pd

# The last four are the full-width forms, which some spreadsheets read as the plain ones.
_STARTS = r"[=+\-@\t\r\n＝＋－＠]"
_RISKY = re.compile(rf"'*{_STARTS}")
_ESCAPED = re.compile(rf"'+{_STARTS}")
_NUMBER = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?", re.ASCII)


def escape_formulas(frame: pd.DataFrame) -> pd.DataFrame:
    """Put a single quote before each text cell and column name that a spreadsheet could run.

    Numbers stay as they are, also those written as text (``-1.5``). A cell that already begins with quotes
    and such a sign gets one more, so that :func:`unescape_formulas` restores every table exactly. A
    spreadsheet that splits cells at another sign than the file's own delimiter is beyond what escaping can
    guard against.

    Args:
        frame: Any table.

    Returns:
        A new table.
    """
    return _map_text(
        frame, lambda text: f"'{text}" if _RISKY.match(text) and not _NUMBER.fullmatch(text) else text
    )


def unescape_formulas(frame: pd.DataFrame) -> pd.DataFrame:
    """Undo :func:`escape_formulas`.

    Args:
        frame: Table whose cells were escaped.

    Returns:
        A new table.
    """
    return _map_text(frame, lambda text: text[1:] if _ESCAPED.match(text) else text)


def _map_text(frame: pd.DataFrame, change: Callable[[str], str]) -> pd.DataFrame:
    def apply(value: object) -> object:
        return change(value) if isinstance(value, str) else value

    def column(series: pd.Series) -> pd.Series:
        # A categorical column cannot take values outside its categories.
        dtype = object if isinstance(series.dtype, pd.CategoricalDtype) else series.dtype
        return pd.Series([apply(value) for value in series], index=series.index, dtype=dtype)

    columns = [column(frame.iloc[:, position]) for position in range(frame.shape[1])]
    mapped = pd.concat(columns, axis="columns") if columns else frame.copy()
    return mapped.set_axis([apply(name) for name in frame.columns], axis="columns")
