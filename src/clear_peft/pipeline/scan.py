"""``clear-peft scan``: a table in, a list of labels that look wrong out, without training."""

import time
import warnings
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from clear_peft.audit import Audit, audit, table_issues
from clear_peft.audit.table_issues import TABLE_ISSUES as KINDS
from clear_peft.data import Examples, LabelNames, LoadedTable, read_table
from clear_peft.data.examples import examples_of
from clear_peft.data.label_sets import has_label_sets
from clear_peft.data.tables import without_empty_end
from clear_peft.data.token_rows import token_columns
from clear_peft.errors import ClearWarning, InputError
from clear_peft.hardware import check_device
from clear_peft.label_quality import LabelQuality
from clear_peft.pipeline.arrays import read_array, rows_of, rows_without_label
from clear_peft.pipeline.judge import (
    Judged,
    Unlabelled,
    assess,
    check_sources,
    judge,
    sources_of,
    what_to_label_next,
)
from clear_peft.pipeline.label_issues import listed
from clear_peft.pipeline.multilabel_scan import MultilabelScan, scan_label_sets
from clear_peft.pipeline.scan_folder import write_folder
from clear_peft.pipeline.scan_options import (
    TEXT_COLUMN,
    ScanOptions,
    check_folder,
    scan_folder,
    with_defaults,
)
from clear_peft.pipeline.splits import say_which_are_rare
from clear_peft.pipeline.to_verify import NoiseRate, noise_rate, propose
from clear_peft.pipeline.token_scan import TokenScan, scan_tokens
from clear_peft.pipeline.verified import with_verified
from clear_peft.report import RunRecord
from clear_peft.report.run import save_report
from clear_peft.run_folder.layout import REPORT, TABLE_ISSUES, UNLABELLED

if TYPE_CHECKING:
    from clear_peft.pipeline.progress import Reporter

# rows that the report asks to look at first
_PROPOSED = 20
_WEIGHED = " The clean probability weighs them against how labels go wrong in this table."
_PREDICTIONS = {
    "model": "The predictions are those of linear probes on the features of a pretrained model that was not "
    "trained further, each fitted without the row, its copies and its group." + _WEIGHED,
    "embeddings": "The predictions are those of linear probes on the embeddings that were given, each fitted "
    "without the row, its copies and its group." + _WEIGHED,
    "votes": "The predictions are those of linear probes on the features of the rows, each fitted without "
    "the row, its copies and its group, and of all sources of labels. How often each source errs was fitted "
    "along with the probes.",
    "pred_probs": "The predictions are those that were given; they are taken to be by models that have not "
    "seen the row." + _WEIGHED,
}


@dataclass(frozen=True, eq=False)
class ScanResult:
    """What a scan has found.

    Attributes:
        folder: Where ``label_issues.csv``, ``table_issues.csv``, ``metrics.json``, ``report.html`` and, of
            rows without a label, ``unlabelled.csv`` are.
        quality: Of the labels.
        audit: The ranked rows, and which classes are confused.
        metrics: What ``metrics.json`` holds.
        options: Of the scan, with its defaults.
    """

    folder: Path
    quality: LabelQuality
    audit: Audit
    metrics: dict[str, Any]
    options: ScanOptions


def scan(options: ScanOptions, reporter: "Reporter") -> "ScanResult | MultilabelScan | TokenScan":
    """Find labels of a table that look wrong, and write them down.

    Where its cells are lists of words, labels are those of the words.

    Args:
        options: What to scan.
        reporter: Told what is being done.

    Returns:
        What was found, of one label a row or of several.

    Raises:
        InputError: If the table, the model or the arrays are not what they should be, there is no such
            device, or the folder must not or cannot be written to.
    """
    started = time.perf_counter()
    check_sources(options.model, options.pred_probs, options.embeddings)
    options = with_defaults(options)
    folder = scan_folder(options)
    check_folder(folder, options)
    check_device(options.device)
    frame = _read(options, reporter)
    of_words = token_columns(frame, options.text_column, options.label_column)
    if of_words is not None:
        return scan_tokens(frame, of_words, options, reporter)
    has_texts = _has_texts(options, frame)
    if has_label_sets(frame, options.label_column, options.label_separator, options.label_columns):
        by = _judged_by(options, has_texts, reporter)
        return scan_label_sets(options, frame, has_texts, folder, by, reporter)
    table = _rows_of(options, frame, has_texts)
    examples, names, unlabelled = table.examples, table.names, table.unlabelled
    assert names is not None  # there is a label column
    examples, looked_at = with_verified(examples, names, options.verified)
    if options.pred_probs:
        probabilities = read_array(options.pred_probs, names.names)
        by = _judged_by(options, has_texts, reporter)
        quality = assess(examples, names, pred_probs=rows_of(probabilities, table), **by)
        judged = next_rows = None
        left = None if unlabelled is None else rows_without_label(probabilities, table)
        if unlabelled is not None and left is not None:
            left = np.asarray(left)
            next_rows = what_to_label_next(unlabelled, left.max(axis=1), left.argmax(axis=1), names)
    else:
        judged, left_over = judge_rows(options, table, has_texts, reporter)
        judged = judged.believing(examples.verified)
        quality = judged.quality
        next_rows = None if left_over is None else left_over.to_label_next(judged)
    others = other_issues(examples, names, judged, has_texts, reporter)
    rate, proposed = NoiseRate(quality.noise_rate, quality.noise_rate_interval, 0), None
    if judged is not None and has_texts:
        proposed = propose(examples.texts, _PROPOSED, looked_at)
        rate = noise_rate(quality, proposed.sampled)
    reporter.stage(f"Writing {folder}")
    seconds = time.perf_counter() - started
    found = write_scan(options, examples, names, quality, rate, seconds, next_rows, others)
    write_scan_report(found, () if proposed is None else examples.rows[proposed.rows].tolist())
    return found


def judge_rows(
    options: ScanOptions, table: LoadedTable, has_texts: bool, reporter: "Reporter"
) -> tuple[Judged, Unlabelled | None]:
    """Judge the rows of a table by probes, as if no row was verified.

    Args:
        options: With their defaults, without ``pred_probs``.
        table: As ``read_rows`` has it.
        has_texts: Whether its rows have texts.
        reporter: Told what is being done.

    Returns:
        The judgement, and the rows without a label; None where all have one.
    """
    names, others = table.names, table.unlabelled
    assert names is not None  # there is a label column
    by = _judged_by(options, has_texts, reporter)
    embeddings = by.pop("embeddings")
    judged = judge(table.examples, names, embeddings=rows_of(embeddings, table), **by)
    if others is None:
        return judged, None
    left = None
    if embeddings is not None:
        left = rows_without_label(embeddings, table)
        if left is None:
            return judged, None
    return judged, judged.unlabelled(others, names, embeddings=left, **by)


def read_rows(options: ScanOptions, reporter: "Reporter") -> tuple[LoadedTable, bool]:
    """Read a table with one label a row, and say which classes are rare.

    Returns:
        The table, its rows without a label set apart, and whether its rows have texts.

    Raises:
        InputError: If words have labels, or as ``scan``.
    """
    frame = _read(options, reporter)
    if token_columns(frame, options.text_column, options.label_column) is not None:
        raise InputError(f"{options.data!r} has labels of words, which are not reviewed: use scan.")
    has_texts = _has_texts(options, frame)
    return _rows_of(options, frame, has_texts), has_texts


def _read(options: ScanOptions, reporter: "Reporter") -> pd.DataFrame:
    reporter.stage(f"Reading {options.data}")
    return without_empty_end(read_table(options.data, encoding=options.encoding))


def _has_texts(options: ScanOptions, frame: pd.DataFrame) -> bool:
    absent = options.text_column == TEXT_COLUMN and TEXT_COLUMN not in frame.columns
    return options.model is not None or not absent


def _rows_of(options: ScanOptions, frame: pd.DataFrame, has_texts: bool) -> LoadedTable:
    table = examples_of(
        frame,
        options.data,
        text_column=options.text_column if has_texts else None,
        label_column=options.label_column,
        id_column=options.id_column,
        group_column=options.group_column,
        verified_column=options.verified_column,
        opinion_column=options.opinion_column,
        annotator_column=options.annotator_column,
        normalize_labels=options.normalize_labels,
        unlabelled=options.unlabelled,
        set_apart=True,
    )
    assert table.names is not None  # there is a label column
    assert table.examples.labels is not None
    say_which_are_rare(table.examples.labels, table.names)
    return table


def _judged_by(options: ScanOptions, has_texts: bool, reporter: "Reporter") -> dict[str, Any]:
    """What ``judge`` is to judge by."""
    file = options.pred_probs or options.embeddings
    return {
        "has_texts": has_texts,
        "model": options.model,
        "embeddings": read_array(options.embeddings) if options.embeddings else None,
        "place": None if file is None else repr(file),
        "max_length": options.max_length,
        "long_texts": options.long_texts,
        "cache": options.cache,
        "device": options.device,
        "trust_remote_code": options.trust_remote_code,
        "reporter": reporter,
    }


def other_issues(
    examples: Examples, names: LabelNames, judged: Judged | None, has_texts: bool, reporter: "Reporter"
) -> pd.DataFrame:
    """What is wrong with a table beside its labels; a warning says so where its texts are mostly codes.

    Args:
        examples: N rows, with labels.
        names: Names of the classes.
        judged: Their judgement, for its features; None: near duplicates and outliers are not looked for.
        has_texts: Whether the texts are those of the rows.
        reporter: Told what is being done.

    Returns:
        As ``clear_peft.audit.table_issues``.
    """
    assert examples.labels is not None  # there is a label column
    reporter.stage("Looking for other issues of the table")
    features, texts = None if judged is None else judged.features, examples.texts if has_texts else None
    found = table_issues(texts, examples.labels, names.names, features, examples.rows)
    codes = int((found["issue"] == "only_code").sum())
    if 2 * codes > len(examples):
        warnings.warn(
            f"{codes} of {len(examples)} texts are only a number or code: is --text-column the right one?",
            ClearWarning,
            stacklevel=2,
        )
    return found


def write_scan(
    options: ScanOptions,
    examples: Examples,
    names: LabelNames,
    quality: LabelQuality,
    rate: NoiseRate,
    seconds: float,
    unlabelled: pd.DataFrame | None = None,
    others: pd.DataFrame | None = None,
) -> ScanResult:
    """Write down what was found, but for the page.

    Args:
        options: Of the scan, with its defaults.
        examples: All rows.
        names: Names of the classes.
        quality: Of the labels.
        rate: The estimated share of wrong ones.
        seconds: How long it took.
        unlabelled: Rows without a label, as ``what_to_label_next`` has them. Default: there are none.
        others: Other issues of the table, as ``table_issues`` has them. Default: nobody has looked for them.

    Raises:
        InputError: If the folder cannot be written to.
    """
    folder = scan_folder(options)
    source = "pred_probs" if options.pred_probs else "embeddings" if options.embeddings else "model"
    quality = replace(quality, row=examples.rows)
    issues = listed(quality, examples, names)
    found = audit(issues, quality, names.names, noise_found=False)
    predictions = _PREDICTIONS["votes" if quality.source == "votes" else source]
    found = replace(
        found,
        predictions=predictions,
        noise_rate=rate.rate,
        noise_rate_interval=rate.interval,
        random_rows=rate.random_rows,
    )
    packages = ["clear-peft", "numpy", "scipy", *(["torch", "transformers"] if source == "model" else [])]
    counts = np.bincount(quality.given, minlength=len(names.names))
    metrics = {
        "rows": len(examples),
        "classes": len(names.names),
        "noise_rate_estimate": rate.rate,
        "noise_rate_interval": rate.interval,
        "random_rows": rate.random_rows,
        "noise": None if quality.noise is None or quality.source == "votes" else quality.noise.kind,
        **sources_of(
            examples, quality, options.annotator_column or options.label_column, options.opinion_column
        ),
        "unlabelled": 0 if unlabelled is None else len(unlabelled),
        "listed": int(quality.is_label_issue.sum()),
        "verified": 0 if quality.verified is None else int((quality.verified >= 0).sum()),
        **({} if others is None else {"table_issues": {k: int((others["issue"] == k).sum()) for k in KINDS}}),
        "class_counts": dict(zip(names.names, counts.tolist(), strict=True)),
        "seconds": seconds,
        "versions": {name: version(name) for name in packages},
    }
    write_folder(folder, issues, metrics, {UNLABELLED: unlabelled, TABLE_ISSUES: others})
    return ScanResult(folder, quality, found, metrics, options)


def write_scan_report(found: ScanResult, proposed: Sequence[int] = ()) -> None:
    """Write the page of a scan.

    Args:
        found: As ``write_scan`` returns it.
        proposed: Rows that somebody should look at first. Default: the page names none.

    Raises:
        InputError: If it cannot be written.
    """
    config = {name: value for name, value in asdict(found.options).items() if value is not None}
    shown = {**found.metrics, "rows": {"scanned": found.metrics["rows"]}}
    name = found.folder.resolve().name
    record = RunRecord(name, config, (), shown, found.audit, trained=False, proposed=proposed)
    save_report(record, found.folder / REPORT)
