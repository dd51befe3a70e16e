"""What ``clear-peft scan`` is asked for, and the folder that it writes."""

import os
import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from clear_peft.errors import InputError
from clear_peft.pipeline.judge import default_model
from clear_peft.run_folder.config import CONFIG_NAME
from clear_peft.run_folder.layout import LABEL_ISSUES, METRICS, REPORT, TABLE_ISSUES, UNLABELLED

TEXT_COLUMN = "text"
_NO_FILE_NAME = re.compile(r"[^\w.-]+")


@dataclass(frozen=True, kw_only=True)
class ScanOptions:
    """Options of ``clear-peft scan``.

    Attributes:
        data: What ``clear_peft.data.read_table`` takes by its name.
        text_column: Column of the texts; several are read as one text, a line each. With ``pred_probs`` or
            ``embeddings`` a table without a column ``text`` has no texts. Default ``text``.
        label_column: Column of the labels. Default ``label``.
        label_separator: What stands between several labels of a cell, such as ``;``; an empty cell is then a
            row without labels. Default: a cell is one label, unless it holds a list.
        label_columns: Columns of 0 and 1, one for each of several labels, in place of a column of labels.
            Default: there are none.
        normalize_labels: Whether labels that differ only in case, white space, hyphens and underscores
            between words, characters that cannot be seen or how Unicode composes letters are one.
            Default False.
        unlabelled: What stands for a missing label besides an empty cell. Default: nothing.
        encoding: Encoding of the table. Default: UTF-8, or UTF-16 where it is marked.
        id_column: Column of ids that differ from row to row, copied into the list. Default: there is none.
        group_column: Column that says which rows belong together, such as a customer or a document. Default:
            copies of a text alone are grouped.
        opinion_column: Columns of other labels for the same rows, by a rule, a model or another person.
            Default: there are none.
        annotator_column: Columns of several annotators, in place of a column of labels, which then is their
            consensus. Default: there are none.
        verified_column: Column that says which rows a person has looked at: their true label, or true where
            the given one is right. Default: nobody has looked at any.
        verified: A ``corrections.csv`` of a review or a report, instead, or several: rows that were kept or
            relabelled are verified, as the last file says that names them. Default: none.
        model: Hub name or path of a pretrained encoder. Default: all-MiniLM-L6-v2.
        pred_probs: .npy or Parquet file of out-of-sample probabilities, (N, C), instead of a model.
        embeddings: .npy or Parquet file of features, (N, D), instead of a model.
        output: Folder to write. Default: ``scan-`` and the name of the data.
        max_length: Tokens per text. Default 128.
        long_texts: What is read of longer texts: ``head``, ``tail``, or all in ``windows``. Default ``head``.
        cache: Whether features of texts are kept on disk for the next scan. Default True.
        device: Where the model runs, as for ``clear_peft.hardware.choose_device``. Default ``auto``.
        trust_remote_code: Whether code that comes with the model may run. Default False.
        overwrite: Whether an earlier scan in the folder is replaced. Default False.
    """

    data: str
    text_column: str | Sequence[str] = TEXT_COLUMN
    label_column: str = "label"
    label_separator: str | None = None
    label_columns: Sequence[str] = ()
    normalize_labels: bool = False
    unlabelled: Sequence[str] = ()
    encoding: str | None = None
    id_column: str | None = None
    group_column: str | None = None
    opinion_column: Sequence[str] = ()
    annotator_column: Sequence[str] = ()
    verified_column: str | None = None
    verified: str | Sequence[str] | None = None
    model: str | None = None
    pred_probs: str | None = None
    embeddings: str | None = None
    output: str | None = None
    max_length: int = 128
    long_texts: str = "head"
    cache: bool = True
    device: str = "auto"
    trust_remote_code: bool = False
    overwrite: bool = False


def with_defaults(options: ScanOptions) -> ScanOptions:
    """The options, with the model and the folder that are taken where none is given."""
    if options.model is None and not options.pred_probs and not options.embeddings:
        options = replace(options, model=default_model())
    return replace(options, output=options.output or _default_output(options.data))


def scan_folder(options: ScanOptions) -> Path:
    """The folder that is written."""
    return Path(options.output or _default_output(options.data))


def _default_output(data: str) -> str:
    """``scan-tickets`` for ``data/tickets.csv``, and what a hub name leaves of it."""
    return f"scan-{_NO_FILE_NAME.sub('-', Path(data).stem).strip('-') or 'table'}"


def held_by(folder: Path) -> set[str]:
    """Names of what a folder that is to be written holds, none if it is not there.

    Raises:
        InputError: If it cannot be written to.
    """
    try:
        nearest = next(p for p in (folder, *folder.absolute().parents) if p.exists())
        held = {entry.name for entry in folder.iterdir()} if nearest == folder and folder.is_dir() else set()
    except (OSError, ValueError) as error:
        reason = (getattr(error, "strerror", None) or str(error)).lower()
        raise InputError(f"Cannot write {folder}: {reason}; choose another --output.") from error
    if not nearest.is_dir():
        raise InputError(f"Cannot write {folder}: {nearest} is a file; give a folder as --output.")
    if not os.access(nearest, os.W_OK | os.X_OK):
        raise InputError(
            f"Cannot write {folder}: {nearest} is not yours to write to; choose another --output."
        )
    return held


def check_folder(folder: Path, options: ScanOptions) -> None:
    """Refuse a folder that must not be written to; changes nothing."""
    held = held_by(folder)
    if held and (CONFIG_NAME in held or LABEL_ISSUES not in held):
        raise InputError(f"{folder} holds something that is no scan: give another folder as --output.")
    if held and not options.overwrite:
        raise InputError(f"{folder} holds another scan: give another --output, or --overwrite.")
    ours = {(folder / name).resolve() for name in (LABEL_ISSUES, TABLE_ISSUES, UNLABELLED, METRICS, REPORT)}
    if Path(options.data).exists() and Path(options.data).resolve() in ours:
        raise InputError(f"{options.data} lies in the output folder {folder}: give another --output.")
