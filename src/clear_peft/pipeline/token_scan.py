"""``clear-peft scan`` of sentences whose words have labels: a list of spans that look wrong."""

import time
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from clear_peft.data.columns import check_column, groups_in
from clear_peft.data.token_rows import sentences_of
from clear_peft.errors import InputError
from clear_peft.pipeline.scan_folder import write_folder
from clear_peft.pipeline.scan_options import ScanOptions, scan_folder
from clear_peft.pipeline.token_issues import judge_words, listed_spans
from clear_peft.run_folder.layout import REPORT, TABLE_ISSUES, UNLABELLED

if TYPE_CHECKING:
    from clear_peft.pipeline.progress import Reporter

# options of scan that words know nothing of
_OF_TEXTS = (
    "normalize_labels",
    "label_separator",
    "label_columns",
    "unlabelled",
    "id_column",
    "opinion_column",
    "annotator_column",
    "verified_column",
    "verified",
    "pred_probs",
    "embeddings",
)


@dataclass(frozen=True, eq=False)
class TokenScan:
    """What a scan of words has found.

    Attributes:
        folder: Where ``label_issues.csv`` and ``metrics.json`` are.
        spans: What ``label_issues.csv`` holds.
        metrics: What ``metrics.json`` holds.
    """

    folder: Path
    spans: pd.DataFrame
    metrics: dict[str, Any]


def scan_tokens(
    frame: pd.DataFrame, columns: tuple[str, str], options: ScanOptions, reporter: "Reporter"
) -> TokenScan:
    """Find tags of words that look wrong, and write them down.

    Args:
        frame: The table.
        columns: Its columns of words and of their tags.
        options: Of the scan, with its defaults.
        reporter: Told what is being done.

    Raises:
        InputError: If the table or the model is not what it should be, options are given that are for whole
            texts, or the folder cannot be written to.
    """
    started, data = time.perf_counter(), options.data
    for_texts = [f"--{name.replace('_', '-')}" for name in _OF_TEXTS if getattr(options, name)]
    for_texts += ["--long-texts tail"] if options.long_texts == "tail" else []
    if for_texts:
        raise InputError(
            f"{data!r} has labels of words, and {' and '.join(for_texts)} is for those of whole texts: leave "
            "it out."
        )
    groups = None
    if options.group_column is not None:
        check_column(frame, options.group_column, data)
        place = f"{data!r}, column {options.group_column!r}"
        groups = groups_in(frame[options.group_column], place)
    sentences = sentences_of(frame, data, *columns)
    quality = judge_words(
        sentences,
        groups=groups,
        model=options.model,
        max_length=options.max_length,
        cache=options.cache,
        device=options.device,
        trust_remote_code=options.trust_remote_code,
        reporter=reporter,
    )
    spans = listed_spans(quality, sentences)
    if "line" in frame.columns:  # of a CoNLL file, in which rows are hard to count
        spans.insert(1, "line", frame["line"].to_numpy()[spans["row"]] + spans["start"])
    folder, names = scan_folder(options), sentences.names.names
    reporter.stage(f"Writing {folder}")
    counts = np.bincount(quality.given, minlength=len(names))
    metrics = {
        "sentences": len(sentences),
        "words": len(quality),
        "classes": len(names),
        "noise_rate_estimate": quality.noise_rate,
        "listed": int(quality.is_label_issue.sum()),
        "spans": len(spans),
        "class_counts": dict(zip(names, counts.tolist(), strict=True)),
        "seconds": time.perf_counter() - started,
        "versions": {
            name: version(name) for name in ("clear-peft", "numpy", "scipy", "torch", "transformers")
        },
    }
    write_folder(folder, spans, metrics, {UNLABELLED: None, TABLE_ISSUES: None, REPORT: None})
    return TokenScan(folder, spans, metrics)
