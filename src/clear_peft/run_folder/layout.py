"""The run folder: when it may be made, what lies where, and how it is finished."""

import os
import shutil
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import fields, replace
from pathlib import Path

from clear_peft.data import LabelNames
from clear_peft.errors import InputError, RunFailedError
from clear_peft.files import atomic_write
from clear_peft.run_folder.config import CONFIG_NAME, RunConfig

ADAPTER = "adapter"
LABELS = "labels.json"
CARD = "README.md"
METRICS = "metrics.json"
EPOCHS = "epochs.json"
LABEL_ISSUES = "label_issues.csv"
UNLABELLED = "unlabelled.csv"
TABLE_ISSUES = "table_issues.csv"
LABEL_QUALITY = "label_quality.safetensors"
OUT_OF_SAMPLE = "out_of_sample.safetensors"
DATA_DIGEST = "data.sha256"
REPORT = "report.html"
TENSORBOARD = "tensorboard"

_PART = f".{ADAPTER}.part"
_EARLIER = ".earlier"
# what --overwrite replaces: a file of anybody else in the folder is left alone
_OURS = (
    CONFIG_NAME,
    "checkpoint-*",
    ADAPTER,
    METRICS,
    EPOCHS,
    LABEL_ISSUES,
    UNLABELLED,
    LABEL_QUALITY,
    OUT_OF_SAMPLE,
    DATA_DIGEST,
    REPORT,
    TENSORBOARD,
    _PART,
)


def read_finished(folder: str | os.PathLike[str]) -> tuple[RunConfig, LabelNames]:
    """What a finished run was told, and its classes; the folder may come from a stranger.

    Raises:
        InputError: If the folder holds no run, or one that is not finished.
    """
    config = RunConfig.load(folder)
    labels = Path(folder) / ADAPTER / LABELS
    if not labels.is_file():
        raise InputError(f"{folder} holds a run that is not finished: carry it on with train --resume.")
    return config, LabelNames.load(labels)


def without_report(folder: str | os.PathLike[str], names: LabelNames) -> InputError:
    """What is said where a run is to be shown by the one label of each row, and rows have more."""
    what = "labels of words" if names.words else "several labels a row"
    return InputError(
        f"{folder} holds a run of {what}, of which there is no audit and no report: read "
        f"{LABEL_ISSUES} and {METRICS} there."
    )


def check(config: RunConfig, *, resume: bool, overwrite: bool) -> None:
    """Refuse an output folder that must not be written to; changes nothing.

    Raises:
        InputError: If it holds another run, or something that is no run, or nothing to resume.
    """
    folder = Path(config.output)
    _check_writable(folder)
    for name in ("model", "data", "validation", "test"):
        value = getattr(config, name)
        if value and Path(value).exists() and Path(value).resolve().is_relative_to(folder.resolve()):
            raise InputError(f"{name} {value} lies in the output folder {folder}: give another --output.")
    if resume:
        _check_resumable(config, folder, overwrite)
        return
    if not folder.exists() or not any(folder.iterdir()):
        return
    if not (folder / CONFIG_NAME).is_file():
        raise InputError(f"{folder} holds something that is no run: give another folder as --output.")
    if not overwrite:
        raise InputError(
            f"{folder} holds another run: give another --output, or --overwrite, or --resume to carry it on."
        )
    RunConfig.load(folder)  # a config.yaml of somebody else is not ours to replace


def _check_resumable(config: RunConfig, folder: Path, overwrite: bool) -> None:
    if overwrite:
        raise InputError("--resume carries a run on and --overwrite replaces it: give one of them.")
    begun = RunConfig.load(folder)
    if (folder / METRICS).is_file():
        raise InputError(f"The run in {folder} is finished: there is nothing to resume.")
    # the rows are told by what they hold
    moved = replace(begun, **{name: getattr(config, name) for name in ("output", "data", "validation")})
    others = [f.name for f in fields(config) if getattr(moved, f.name) != getattr(config, f.name)]
    if others:
        raise InputError(
            f"{folder} holds a run with other options ({', '.join(others)}): resume it with --config "
            f"{folder}/{CONFIG_NAME}."
        )


def _check_writable(folder: Path) -> None:
    try:
        nearest = next(p for p in (folder, *folder.absolute().parents) if p.exists())
        is_folder = nearest.is_dir()
        allowed = os.access(nearest, os.W_OK | os.X_OK) and (nearest != folder or os.access(nearest, os.R_OK))
    except OSError as error:
        raise InputError(f"Cannot write {folder}: {_reason(error)}; choose another --output.") from error
    if not is_folder:
        raise InputError(f"Cannot write {folder}: {nearest} is a file; give a folder as --output.")
    if not allowed:
        raise InputError(
            f"Cannot write {folder}: {nearest} is not yours to write to; choose another --output."
        )


@contextmanager
def begin(config: RunConfig, data_digest: str) -> Iterator[Path]:
    """Make the folder, with its ``config.yaml``; call :func:`check` first.

    Where the body fails before there is anything to resume from, everything is afterwards as it was before,
    an earlier run that was to be replaced included; after any other end, and Ctrl-C, the run can be resumed.

    Raises:
        InputError: If it cannot be written.
    """
    folder = Path(config.output)
    made = [p for p in (folder, *folder.parents) if not p.exists()]
    earlier = folder / _EARLIER
    try:
        folder.mkdir(parents=True, exist_ok=True)
        _put_aside(folder, earlier)
    except OSError as error:
        _remove_empty(made)
        raise InputError(f"Cannot write {folder}: {_reason(error)}; choose another --output.") from error
    try:
        config.save(folder)
        atomic_write(folder / DATA_DIGEST, data_digest)
        yield folder
    except Exception as error:
        kept = last_checkpoint(folder)
        if isinstance(error, InputError | RunFailedError):
            if kept is not None:
                raise _carry_on(error, kept) from error
        elif _resumable(folder):
            raise
        for entry in _ours(folder):
            shutil.rmtree(entry) if entry.is_dir() else entry.unlink()
        _put_back(folder, earlier)
        _remove_empty(made)
        raise
    finally:
        shutil.rmtree(earlier, ignore_errors=True)


def _put_aside(folder: Path, earlier: Path) -> None:
    """Move an earlier run out of the way, all of it or nothing: a file may be open in another program."""
    if not any(_ours(folder)):
        return
    shutil.rmtree(earlier, ignore_errors=True)
    earlier.mkdir()
    try:
        for entry in _ours(folder):
            entry.rename(earlier / entry.name)
    except BaseException:
        _put_back(folder, earlier)
        raise


def _put_back(folder: Path, earlier: Path) -> None:
    if earlier.is_dir():
        for entry in earlier.iterdir():
            entry.rename(folder / entry.name)
        earlier.rmdir()


def _remove_empty(folders: Sequence[Path]) -> None:
    for folder in folders:
        with suppress(OSError):
            folder.rmdir()


@contextmanager
def carried_on(config: RunConfig, data_digest: str) -> Iterator[Path]:
    """The folder of a run that is resumed; what it was writing or replacing when it died is gone.

    Raises:
        InputError: If it was begun with other data: what it has kept goes by the positions of rows.
    """
    folder = Path(config.output)
    known = folder / DATA_DIGEST
    if not _resumable(folder):
        atomic_write(known, data_digest)  # it begins anew
    elif not known.is_file() or known.read_text(encoding="utf-8", errors="replace") != data_digest:
        raise InputError(
            f"{config.data} or its validation rows are not as they were when the run in {folder} was begun: "
            "put them back, or begin again with --overwrite."
        )
    config.save(folder)  # its tables may lie elsewhere by now
    for name in _OURS:
        for half in folder.glob(f".{name}.*.tmp"):
            half.unlink()
    shutil.rmtree(folder / _EARLIER, ignore_errors=True)
    try:
        yield folder
    except (InputError, RunFailedError) as error:
        kept = last_checkpoint(folder)
        if kept is None or kept in str(error):
            raise
        raise _carry_on(error, kept) from error


def _resumable(folder: Path) -> bool:
    """Whether there is work that a resumed run would not do again."""
    return last_checkpoint(folder) is not None or (folder / OUT_OF_SAMPLE).is_file()


def _carry_on(error: InputError | RunFailedError, checkpoint: str) -> InputError | RunFailedError:
    kind = InputError if isinstance(error, InputError) else RunFailedError
    reason = str(error).rstrip(".")
    return kind(f"{reason}; the last whole checkpoint is {checkpoint}, from which --resume carries on.")


def _ours(folder: Path) -> list[Path]:
    return [entry for pattern in _OURS for entry in folder.glob(pattern)]


def _reason(error: OSError) -> str:
    return (error.strerror or str(error)).lower()


def last_checkpoint(folder: Path) -> str | None:
    """The last checkpoint that was written whole; None where there is none, to begin anew."""
    whole = [
        (int(state.parent.name.rpartition("-")[2]), state.parent)
        for state in folder.glob("checkpoint-*/trainer_state.json")  # written last
        if state.parent.name.rpartition("-")[2].isdecimal() and _is_whole(state)
    ]
    return str(max(whole)[1]) if whole else None


def _is_whole(state: Path) -> bool:
    from transformers import TrainerState  # seconds, and only a resumed run asks

    try:
        TrainerState.load_from_json(str(state))
    except (OSError, ValueError, TypeError, RecursionError):
        return False
    return True


def save_adapter(folder: Path, write: Callable[[Path], None]) -> None:
    """Write ``adapter/`` so that it is there whole or not at all."""
    part, final = folder / _PART, folder / ADAPTER
    shutil.rmtree(part, ignore_errors=True)
    part.mkdir()
    write(part)
    shutil.rmtree(final, ignore_errors=True)
    part.rename(final)
