"""The folder that a scan writes."""

from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import pandas as pd

from clear_peft.data import escape_formulas, write_table
from clear_peft.errors import InputError
from clear_peft.files import write_json
from clear_peft.run_folder.layout import LABEL_ISSUES, METRICS


def write_folder(
    folder: Path,
    issues: pd.DataFrame,
    metrics: dict[str, Any],
    tables: Mapping[str, pd.DataFrame | None],
) -> None:
    """Write what a scan has found, but for its report.

    Args:
        folder: Where to; made if it is not there.
        issues: The list of labels.
        metrics: What ``metrics.json`` holds.
        tables: Further tables by the name of their file; None: a file of an earlier scan is removed.

    Raises:
        InputError: If the folder cannot be written to.
    """
    made = not folder.exists()
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        reason = (error.strerror or str(error)).lower()
        raise InputError(f"Cannot write {folder}: {reason}; choose another --output.") from error
    try:
        write_table(escape_formulas(issues), folder / LABEL_ISSUES)
    except InputError:
        if made:
            with suppress(OSError):
                folder.rmdir()
        raise
    for name, frame in tables.items():
        if frame is None:
            (folder / name).unlink(missing_ok=True)
        else:
            write_table(escape_formulas(frame), folder / name)
    write_json(folder / METRICS, metrics)
