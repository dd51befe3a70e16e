"""A run folder in, its report out; of a run that is not finished, or not whole, what there is of it."""

import os
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import yaml

from clear_peft.audit import Audit
from clear_peft.audit.run import audit_run
from clear_peft.data import LabelNames
from clear_peft.errors import InputError
from clear_peft.files import atomic_write
from clear_peft.report import RunRecord, render
from clear_peft.run_folder import layout
from clear_peft.run_folder.config import CONFIG_NAME, RunConfig
from clear_peft.run_folder.schema import checked_epochs, checked_metrics, plain_options, read_json

_NAMED = 3
_LARGEST_CONFIG = 2**18
_DEEPEST = 50
_OPENING = (
    yaml.BlockMappingStartToken,
    yaml.BlockSequenceStartToken,
    yaml.FlowMappingStartToken,
    yaml.FlowSequenceStartToken,
)
_CLOSING = (yaml.BlockEndToken, yaml.FlowMappingEndToken, yaml.FlowSequenceEndToken)
_ENDINGS = {".html", ".htm"}


def read_record(folder: str | os.PathLike[str]) -> RunRecord:
    """Read a run folder, finished or not.

    A piece that is missing or damaged becomes a sentence in the record, and so does a figure that is not
    what a run writes.

    Args:
        folder: Run folder.

    Returns:
        What is known of the run; without metrics where it is not finished.

    Raises:
        InputError: If there is nothing of a run in the folder, or one of several labels a row or of words.
    """
    folder = Path(folder)
    missing: list[str] = []
    config = _config(folder, missing)
    names = _more_than_one(folder, config)
    if names is not None:
        raise layout.without_report(folder, names)
    metrics, epochs = _metrics(folder, missing)
    epochs = epochs or _epochs_so_far(folder, missing)
    audit = _audit(folder, missing)
    if not (config or metrics or epochs or audit):
        because = f" ({missing[0].rstrip('.')})" if (folder / CONFIG_NAME).is_file() else ""
        raise InputError(f"{folder} is no run folder{because}: give one that train has written.")
    name = folder.resolve().name
    return RunRecord(name, config, epochs, metrics, audit, tuple(dict.fromkeys(missing)))


def write_report(folder: str | os.PathLike[str]) -> Path:
    """Write ``report.html`` into a run folder.

    Args:
        folder: Run folder, as :func:`read_record` takes it.

    Returns:
        The file.

    Raises:
        InputError: If the folder holds nothing of a run, or cannot be written to.
    """
    path = Path(folder) / layout.REPORT
    save_report(read_record(folder), path)
    return path


def save_report(record: RunRecord, path: Path) -> None:
    """Write the page of a run.

    Args:
        record: The run.
        path: File to write, ending in .html; replaced where it is there already.

    Raises:
        InputError: If the name has another ending, is a symbolic link, or cannot be written.
    """
    check_page(path)
    atomic_write(path, render(record))


def check_page(path: Path) -> None:
    """Refuse a path that a report must not be written to.

    Raises:
        InputError: If it has another ending than .html, or is a symbolic link: in the folder of a stranger
            it could point anywhere.
    """
    if path.suffix.lower() not in _ENDINGS:
        raise InputError(f"A report is a page, but {str(path)!r} does not end in .html: rename it.")
    if path.is_symlink():
        raise InputError(f"{path} is a symbolic link: delete it, or give another --output.")


def _config(folder: Path, missing: list[str]) -> dict[str, Any]:
    path = folder / CONFIG_NAME
    if not path.is_file():
        missing.append(f"{CONFIG_NAME} is missing: what the run was told is not known.")
        return {}
    try:
        if path.stat().st_size > _LARGEST_CONFIG:
            raise InputError("it is larger than any that a run writes")
        _check_simple(path.read_text(encoding="utf-8"))
        return plain_options(asdict(RunConfig.load(folder)))
    except (OSError, ValueError, yaml.YAMLError, RecursionError) as error:
        reason = " ".join(str(error).split()).rstrip(".")
        missing.append(f"{CONFIG_NAME} is damaged and left out ({reason}).")
        return {}


def _check_simple(text: str) -> None:
    """Refuse YAML that no run writes, and that would take hours or gigabytes to read."""
    depth = 0
    for token in yaml.scan(text, yaml.SafeLoader):
        if isinstance(token, yaml.AliasToken):
            raise InputError("it holds references")
        depth += isinstance(token, _OPENING) - isinstance(token, _CLOSING)
        if depth > _DEEPEST:
            raise InputError("it is nested too deeply")


def _more_than_one(folder: Path, config: Mapping[str, Any]) -> LabelNames | None:
    """The labels of a run whose rows have more than one; None of any other."""
    if config.get("label_separator") is not None or config.get("label_columns"):
        return LabelNames((), several=True)
    labels = folder / layout.ADAPTER / layout.LABELS
    try:
        names = LabelNames.load(labels) if labels.is_file() else None  # a pipe would never end
    except InputError:  # of which the audit says what is wrong
        return None
    return None if names is None or names.one_a_row else names


def _metrics(folder: Path, missing: list[str]) -> tuple[dict[str, Any] | None, list[dict[str, Any]]]:
    """The metrics of a finished run, None of another, and the epochs that they hold."""
    path = folder / layout.METRICS
    if not path.is_file():
        return None, []
    try:
        value = read_json(path)
    except InputError as error:
        missing.append(str(error))
        return None, []
    metrics, dropped = checked_metrics(value)
    _say_dropped(layout.METRICS, dropped, missing)
    held = value.get("epochs") if isinstance(value, dict) else None
    return metrics or None, [] if held is None else _epochs(layout.METRICS, held, missing)


def _epochs_so_far(folder: Path, missing: list[str]) -> list[dict[str, Any]]:
    path = folder / layout.EPOCHS
    if not path.is_file():
        return []
    try:
        return _epochs(layout.EPOCHS, read_json(path), missing)
    except InputError as error:
        missing.append(str(error))
        return []


def _epochs(name: str, value: Any, missing: list[str]) -> list[dict[str, Any]]:
    epochs, dropped = checked_epochs(value)
    _say_dropped(name, dropped, missing)
    return epochs


def _audit(folder: Path, missing: list[str]) -> Audit | None:
    """The audit; None as long as there is nothing to audit."""
    if not any((folder / name).is_file() for name in (layout.METRICS, layout.LABEL_ISSUES)):
        return None
    try:
        return audit_run(folder)
    except InputError as error:
        missing.append(f"There is no audit of the labels: {error}")
        return None


def _say_dropped(name: str, dropped: list[str], missing: list[str]) -> None:
    if dropped:
        more = len(dropped) - _NAMED
        listed = ", ".join(dropped[:_NAMED]) + (f" and {more} more" if more > 0 else "")
        missing.append(f"{name} holds what no run writes, which is left out: {listed}.")
