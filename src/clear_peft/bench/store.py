"""The results store: JSON Lines, one finished cell a line.

It is text, one line for each cell and the lines in the order of their keys, so that git merges what two
machines have added. Nothing in it but numbers and names: no text of any example.
"""

import json
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from clear_peft.bench.grid import key_of
from clear_peft.errors import InputError
from clear_peft.files import atomic_write, plain_json

_PARTS = {"key", "cell", "noise", "metrics", "environment"}
Record = dict[str, Any]


def read(path: str | os.PathLike[str]) -> dict[str, Record]:
    """Read the records of a store, by key; one that does not exist yet is empty.

    Raises:
        InputError: If it cannot be read, or a line is damaged; names the line.
    """
    file = Path(path)
    if not file.exists():
        return {}
    try:
        # not splitlines(): names may hold other line separators, such as U+2028
        text = file.read_text(encoding="utf-8")
        lines = text.removesuffix("\n").split("\n") if text else []
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(
            f"Cannot read {file}: {error}; give a results file that bench has written."
        ) from error
    records = {}
    for number, line in enumerate(lines, start=1):
        try:
            record = json.loads(line)
        except (ValueError, RecursionError):
            record = None
        if not _is_result(record):
            raise InputError(
                f"{file}, line {number}, is no result of bench: remove the line, and its cell is run again."
            )
        records[record["key"]] = record
    return records


def _is_result(record: Any) -> bool:
    """Whether a line has what tables and plots are made of."""
    if not isinstance(record, dict) or record.keys() != _PARTS or record["key"] != key_of(record["cell"]):
        return False
    noise, metrics, environment = record["noise"], record["metrics"], record["environment"]
    if not all(isinstance(part, dict) for part in (noise, metrics, environment)):
        return False
    epochs, test = metrics.get("epochs"), metrics.get("test")
    return (
        "rate" in noise
        and isinstance(test, dict)
        and isinstance(test.get("accuracy"), int | float)
        and isinstance(epochs, list)
        and all(isinstance(epoch, dict) and "epoch" in epoch for epoch in epochs)
        and environment.keys() >= {"gpu", "processor", "threads"}
    )


def read_all(paths: Sequence[Path], methods: Sequence[str] = (), data: Sequence[str] = ()) -> list[Record]:
    """Read the records of several stores, each once.

    Args:
        paths: The stores.
        methods: Labels of the methods that are wanted. Default: all.
        data: Names of the data sets that are wanted. Default: all.

    Raises:
        InputError: If a store is missing, empty or damaged, or a method or data set is in none of them.
    """
    records: dict[str, Record] = {}
    for path in paths:
        found = read(path)
        if not found:
            raise InputError(f"{path} holds no results: fill it with clear-peft bench run --results {path}.")
        records |= found
    wanted = {"method": methods, "data": data}
    for part, names in wanted.items():
        there = {record["cell"][part] for record in records.values()}
        missing = [name for name in names if name not in there]
        if missing:
            raise InputError(
                f"There are no results of {', '.join(missing)}: choose from {', '.join(sorted(there))}."
            )
    chosen = [
        record
        for record in records.values()
        if all(not names or record["cell"][part] in names for part, names in wanted.items())
    ]
    if not chosen:
        raise InputError(f"{', '.join(methods)} has no results on {', '.join(data)}: choose others.")
    return chosen


def add(path: str | os.PathLike[str], record: Mapping[str, Any]) -> None:
    """Add the record of a finished cell to a store, which is written whole or not at all.

    Raises:
        InputError: If the store is damaged or cannot be written.
    """
    figures = {part: _rounded(plain_json(record[part])) for part in ("noise", "metrics")}
    with _alone(Path(path).parent):
        records = read(path) | {record["key"]: {**record, **figures}}
        lines = (
            json.dumps(records[key], sort_keys=True, ensure_ascii=False, allow_nan=False)
            for key in sorted(records)
        )
        atomic_write(path, "".join(f"{line}\n" for line in lines))


@contextmanager
def _alone(folder: Path) -> Iterator[None]:
    """Let no other process add to a store of the folder meanwhile: what it adds would be lost.

    On Windows and on file systems without such locks nothing is locked.
    """
    lock = None
    with suppress(ImportError, OSError):
        from fcntl import LOCK_EX, flock

        lock = os.open(folder, os.O_RDONLY)
        flock(lock, LOCK_EX)
    try:
        yield
    finally:
        if lock is not None:
            os.close(lock)


def _rounded(value: Any) -> Any:
    """Six significant digits are enough for every figure, and keep the file small."""
    if isinstance(value, dict):
        return {key: _rounded(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_rounded(item) for item in value]
    return float(f"{value:.6g}") if isinstance(value, float) else value
