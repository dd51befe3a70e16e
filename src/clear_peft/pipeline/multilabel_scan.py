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
from clear_peft.data.examples import examples_of
from clear_peft.data.label_sets import refuse_for_one_label
from clear_peft.label_quality import MultilabelQuality
from clear_peft.pipeline.arrays import read_array, rows_of
from clear_peft.pipeline.multilabel import estimates_of, judge_label_sets, listed_labels
from clear_peft.pipeline.scan_folder import write_folder
from clear_peft.run_folder.layout import REPORT, TABLE_ISSUES, UNLABELLED

if TYPE_CHECKING:
    from clear_peft.pipeline.progress import Reporter
    from clear_peft.pipeline.scan_options import ScanOptions


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
    refuse_for_one_label(options)
    table = examples_of(
        frame,
        options.data,
        text_column=options.text_column if has_texts else None,
        label_column=options.label_column,
        label_separator=options.label_separator,
        label_columns=options.label_columns,
        id_column=options.id_column,
        group_column=options.group_column,
        normalize_labels=options.normalize_labels,
        set_apart=True,
        lists=True,
    )
    examples, names = table.examples, table.names
    assert examples.labels is not None  # as is asked for
    assert names is not None
    given = examples.labels
    pred_probs = read_array(options.pred_probs, names.names) if options.pred_probs else None
    by["embeddings"] = rows_of(by["embeddings"], table)
    quality, features = judge_label_sets(examples, given, names, pred_probs=rows_of(pred_probs, table), **by)
    issues = listed_labels(quality, examples, names)
    reporter.stage("Looking for other issues of the table")
    sets, which = np.unique(given, axis=0, return_inverse=True)
    joined = [(options.label_separator or ";").join(np.array(names.names)[row]) for row in sets]
    texts = examples.texts if has_texts else None
    others = table_issues(texts, which.ravel(), joined, features, examples.rows)
    reporter.stage(f"Writing {folder}")
    packages = ["clear-peft", "numpy", "scipy", *(["torch", "transformers"] if options.model else [])]
    metrics = {
        "rows": len(examples),
        "classes": len(names.names),
        **estimates_of(quality, names),
        "table_issues": {kind: int((others["issue"] == kind).sum()) for kind in KINDS},
        "seconds": time.perf_counter() - started,
        "versions": {name: version(name) for name in packages},
    }
    write_folder(folder, issues, metrics, {UNLABELLED: None, TABLE_ISSUES: others, REPORT: None})
    return MultilabelScan(folder, quality, issues, metrics)
