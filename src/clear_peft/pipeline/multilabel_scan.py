"""``clear-peft scan`` of a table whose rows have several labels or none."""

import time
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from clear_peft.audit import table_issues
from clear_peft.audit.table_issues import TABLE_ISSUES as KINDS
from clear_peft.data import LabelNames
from clear_peft.data.columns import check_column, check_roles, if_one_hot
from clear_peft.data.examples import examples_of
from clear_peft.data.label_sets import flags_in, holds_lists, label_sets_in
from clear_peft.errors import InputError
from clear_peft.label_quality import MultilabelQuality
from clear_peft.pipeline.arrays import read_array
from clear_peft.pipeline.multilabel import judge_label_sets, listed_labels
from clear_peft.pipeline.scan_folder import write_folder
from clear_peft.run_folder.layout import REPORT, TABLE_ISSUES, UNLABELLED

if TYPE_CHECKING:
    from clear_peft.pipeline.progress import Reporter
    from clear_peft.pipeline.scan import ScanOptions

_MOST_CONFUSED = 5
# what is made for one label a row
_SINGLE = (
    ("annotator_column", "--annotator-column"),
    ("opinion_column", "--opinion-column"),
    ("verified_column", "--verified-column"),
    ("verified", "--verified"),
    ("unlabelled", "--unlabelled"),
)


@dataclass(frozen=True, eq=False)
class MultilabelScan:
    """What a scan has found in a table of several labels a row.

    Attributes:
        folder: Where ``label_issues.csv``, ``table_issues.csv`` and ``metrics.json`` are.
        quality: Of the labels.
        issues: What ``label_issues.csv`` holds.
        metrics: What ``metrics.json`` holds.
    """

    folder: Path
    quality: MultilabelQuality
    issues: pd.DataFrame
    metrics: dict[str, Any]


def has_label_sets(options: "ScanOptions", frame: pd.DataFrame) -> bool:
    """Whether the rows of a table have several labels: the options say so, or the cells are lists."""
    if options.label_separator is not None or options.label_columns:
        return True
    return options.label_column in frame.columns and holds_lists(frame[options.label_column])


def scan_label_sets(
    options: "ScanOptions",
    frame: pd.DataFrame,
    has_texts: bool,
    folder: Path,
    by: dict[str, Any],
    reporter: "Reporter",
) -> MultilabelScan:
    """Find labels that look wrong or missing, and write them down.

    Args:
        options: What to scan, with its defaults.
        frame: The table.
        has_texts: Whether its rows have texts.
        folder: Where to write.
        by: What ``judge_label_sets`` is to judge by.
        reporter: Told what is being done.

    Raises:
        InputError: If the table or the arrays are not what they should be, or an option is for one label a
            row.
    """
    started = time.perf_counter()
    for field, flag in _SINGLE:
        if getattr(options, field):
            raise InputError(f"{flag} is for tables with one label a row: leave it out.")
    given, names = _labels(options, frame)
    examples = examples_of(
        frame,
        options.data,
        text_column=options.text_column if has_texts else None,
        label_column=None,
        group_column=options.group_column,
    ).examples
    pred_probs = read_array(options.pred_probs, names.names) if options.pred_probs else None
    quality, features = judge_label_sets(examples, given, names, pred_probs=pred_probs, **by)
    issues = listed_labels(quality, examples, names)
    reporter.stage("Looking for other issues of the table")
    sets, which = np.unique(given, axis=0, return_inverse=True)
    joined = [(options.label_separator or ";").join(np.array(names.names)[row]) for row in sets]
    texts = examples.texts if has_texts else None
    others = table_issues(texts, which.ravel(), joined, features, examples.rows)
    reporter.stage(f"Writing {folder}")
    packages = ["clear-peft", "numpy", "scipy", *(["torch", "transformers"] if options.model else [])]
    listed = quality.is_label_issue
    metrics = {
        "rows": len(examples),
        "classes": len(names.names),
        "several_labels": True,
        "given_labels": int(given.sum()),
        "wrong_estimate": quality.wrong_rate,
        "missing_estimate": quality.missing_rate,
        "listed_given": int((listed & given).sum()),
        "listed_missing": int((listed & ~given).sum()),
        "labels": _by_label(quality, names),
        "confused": _confused(quality, names),
        "table_issues": {kind: int((others["issue"] == kind).sum()) for kind in KINDS},
        "seconds": time.perf_counter() - started,
        "versions": {name: version(name) for name in packages},
    }
    write_folder(folder, issues, metrics, {UNLABELLED: None, TABLE_ISSUES: others, REPORT: None})
    return MultilabelScan(folder, quality, issues, metrics)


def _labels(options: "ScanOptions", frame: pd.DataFrame) -> tuple[np.ndarray, LabelNames]:
    separator, columns, wanted = options.label_separator, options.label_columns, options.label_column
    texts = [options.text_column] if isinstance(options.text_column, str) else options.text_column
    roles: list[tuple[str, str | None]] = [("text", column) for column in texts]
    if columns:
        if separator is not None:
            raise InputError("--label-columns and --label-separator are two ways to give labels: choose one.")
        if options.normalize_labels:
            raise InputError("--normalize-labels joins names in cells: leave it out with --label-columns.")
        check_roles([*roles, *(("label", column) for column in columns), ("group", options.group_column)])
        return flags_in(frame, options.data, columns)
    if separator == "":
        raise InputError("--label-separator is empty: give what stands between labels, such as ';'.")
    check_roles([*roles, ("label", wanted), ("group", options.group_column)])
    check_column(frame, wanted, options.data, "" if wanted in frame.columns else if_one_hot(frame))
    place = f"{options.data!r}, column {wanted!r}"
    return label_sets_in(frame[wanted], place, separator, normalize=options.normalize_labels)


def _by_label(quality: MultilabelQuality, names: LabelNames) -> dict[str, dict[str, float]]:
    counts = quality.given.sum(axis=0).tolist()
    columns = zip(counts, quality.wrongly_given.tolist(), quality.wrongly_missing.tolist(), strict=True)
    return {
        name: {"given": count, "wrong_estimate": wrong, "missing_estimate": missing}
        for name, (count, wrong, missing) in zip(names.names, columns, strict=True)
    }


def _confused(quality: MultilabelQuality, names: LabelNames) -> list[dict[str, Any]]:
    """Labels that are given in place of another, most rows first."""
    lost = np.where(quality.given, 0, 1 - quality.clean_probability.astype(np.float64)).sum(axis=0)
    rows = lost[:, None] * quality.confusion
    order = np.argsort(-rows, axis=None, kind="stable")[:_MOST_CONFUSED]
    pairs = zip(*np.unravel_index(order, rows.shape), strict=True)
    return [
        {"true": names.names[i], "given": names.names[j], "rows": float(rows[i, j])}
        for i, j in pairs
        if rows[i, j] > 0
    ]
