"""A run folder in, the audit of its labels out; and corrections carried out on the table it trained on."""

import os
import warnings
from pathlib import Path

import numpy as np
import pandas as pd

from clear_peft.audit import Audit, audit, corrected, read_corrections, read_issues
from clear_peft.data import (
    LabelNames,
    LoadedTable,
    check_output,
    escape_formulas,
    load_examples,
    write_table,
)
from clear_peft.data.checks import row_listing
from clear_peft.errors import ClearWarning, InputError
from clear_peft.run_folder import layout
from clear_peft.run_folder.config import RunConfig
from clear_peft.run_folder.quality_file import load_label_quality

# what a spreadsheet opens by itself
_SPREADSHEETS = {".csv", ".tsv"}


def audit_run(folder: str | os.PathLike[str], *, threshold: float = 0.5) -> Audit:
    """Audit the labels that a run was trained on.

    Args:
        folder: Run folder.
        threshold: Rows with a clean probability below it are listed. Default 0.5.

    Returns:
        The audit.

    Raises:
        InputError: If the run is not finished, a piece is missing or damaged, or pieces are of different
            runs.
    """
    _, names, issues = _read(folder)
    path = Path(folder) / layout.LABEL_QUALITY
    if not path.is_file():
        raise InputError(f"{path} is missing: give the run folder as train has written it.")
    quality, noise_found = load_label_quality(path, names.names)
    by_row = issues.sort_values("row")
    for column, ids in (("given_label", quality.given), ("predicted_label", quality.predicted)):
        if len(issues) == len(quality) and not np.array_equal(names.encode(by_row[column]), ids):
            raise InputError(
                f"{path} is about other labels than {layout.LABEL_ISSUES}: give the run folder as train has "
                "written it."
            )
    return audit(issues, quality, names.names, noise_found=noise_found, threshold=threshold)


def write_audit(
    folder: str | os.PathLike[str], found: Audit, output: str | os.PathLike[str], *, overwrite: bool = False
) -> None:
    """Write the audited rows, most suspicious first; formulas are escaped where a spreadsheet may open them.

    Args:
        folder: Run folder; its list, and the table that it was trained on, are never overwritten.
        found: Its audit.
        output: CSV, TSV, JSONL or Parquet file.
        overwrite: Whether it may be there already. Default False.

    Raises:
        InputError: If the output must not or cannot be written.
    """
    listed = Path(folder) / layout.LABEL_ISSUES
    check_output(output, [RunConfig.load(folder).data, listed], overwrite=overwrite)
    risky = Path(output).suffix.lower() in _SPREADSHEETS
    write_table(escape_formulas(found.issues) if risky else found.issues, output)


def apply_corrections(
    folder: str | os.PathLike[str],
    corrections: str | os.PathLike[str],
    output: str | os.PathLike[str],
    *,
    data: str | None = None,
    overwrite: bool = False,
) -> dict[str, int]:
    """Write the table that a run was trained on, corrected: relabelled, dropped and kept rows.

    Rows keep their order, and all other columns and values are as they were; the table itself and the
    corrections are never overwritten.

    Args:
        folder: Run folder.
        corrections: What :func:`clear_peft.audit.read_corrections` takes.
        output: CSV, TSV, JSONL or Parquet file to write.
        data: The table, where it is no longer where ``config.yaml`` says.
        overwrite: Whether the output may be there already. Default False.

    Returns:
        ``rows`` (written), ``relabelled``, ``dropped`` and ``kept``: numbers of rows.

    Raises:
        InputError: If the run, the table or the corrections are not what they should be, do not belong
            together, or the output must not or cannot be written.
    """
    config, names, issues = _read(folder)
    listed = Path(folder) / layout.LABEL_ISSUES
    check_output(output, [data or config.data, corrections, listed], overwrite=overwrite)
    table = _table(config, data)
    _check_table(table, names, issues, data or config.data)
    examples = table.examples
    assert examples.labels is not None  # a label column was asked for
    decisions = read_corrections(corrections, examples, names)
    labels = np.full(len(table.frame), -1, np.int64)
    labels[examples.rows] = examples.labels
    frame = corrected(table.frame, labels, config.label_column, decisions)
    write_table(frame, output)
    return {
        "rows": len(frame),
        "relabelled": len(decisions.relabel),
        "dropped": len(decisions.drop),
        "kept": len(decisions.keep),
    }


def _read(folder: str | os.PathLike[str]) -> tuple[RunConfig, LabelNames, pd.DataFrame]:
    """Configuration, labels and label issues of a finished run."""
    config = RunConfig.load(folder)
    labels = Path(folder) / layout.ADAPTER / layout.LABELS
    listed = Path(folder) / layout.LABEL_ISSUES
    for piece in (labels, listed):
        if piece.is_file():
            continue
        if (Path(folder) / layout.METRICS).is_file():
            raise InputError(f"{piece} is missing: give the run folder as train has written it.")
        raise InputError(f"{folder} holds a run that is not finished: carry it on with train --resume.")
    names = LabelNames.load(labels)
    if not names.one_a_row:
        raise layout.without_report(folder, names)
    return config, names, read_issues(listed, list(names.names))


def _table(config: RunConfig, data: str | None) -> LoadedTable:
    source = config.data if data is None else data
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ClearWarning)  # train has said it
            return load_examples(source, **config.reading, **config.sources, set_apart=True)
    except InputError as error:
        if data is not None:
            raise
        hint = "if the table has moved, say where with --data"
        raise InputError(f"{str(error).rstrip('.')}; {hint}.") from error


def _check_table(table: LoadedTable, names: LabelNames, issues: pd.DataFrame, source: str) -> None:
    """Refuse a table that is not the one that the run was trained on."""
    mend = "give the table that the run was trained on as --data"
    examples = table.examples
    if len(examples) != len(issues):
        raise InputError(f"{source!r} has {len(examples)} rows, but the run had {len(issues)}: {mend}.")
    listed = issues.sort_values("row")
    assert table.names is not None  # a label column was asked for
    assert examples.labels is not None
    given = [table.names.names[i] for i in examples.labels]
    for what, here, there in (
        ("text", examples.texts, listed["text"].tolist()),
        ("label", given, listed["given_label"].tolist()),
    ):
        rows = zip(examples.rows.tolist(), here, there, strict=True)
        other = [row for row, a, b in rows if a != b]
        if other:
            where = row_listing(other)
            raise InputError(f"{source!r} has another {what} than {layout.LABEL_ISSUES} in {where}: {mend}.")
    if table.names != names:
        raise InputError(f"{source!r} has other labels than the run: {mend}.")
