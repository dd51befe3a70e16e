"""Runs the cells of a grid that a store lacks, each in a fresh process.

A fresh process makes the peak memory the cell's own, and a cell that is killed takes no other with it. This
side must not import torch: on Linux a process begins with the peak memory of the one that started it.
"""

import json
import logging
import os
import shutil
import signal
import threading
import time
import traceback
import warnings
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from multiprocessing import get_context, parent_process
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from clear_peft.bench import store
from clear_peft.bench.cell import digests, locate, run_cell
from clear_peft.bench.grid import Cell
from clear_peft.data import check_writable
from clear_peft.errors import InputError, RunFailedError

Work = Callable[[Cell, Path, Path], dict[str, Any]]
# each cell with its record, or a sentence if it failed, and its seconds; in the order of their ends
Ended = Generator[tuple[Cell, dict[str, Any] | str, float]]
Engine = Callable[[Sequence[Cell], Work, Path], Ended]
_SPAWN: Any = get_context("spawn")
# what decides the settings of a cell's training, but for the defaults
_RECIPE = ("peft", "method", "method_settings", "train")
_TABLES = {".csv", ".tsv", ".jsonl", ".ndjson", ".parquet"}


@dataclass
class Outcome:
    """What became of a grid.

    Attributes:
        cells: Number of cells of the grid.
        skipped: Those that were in the store already.
        done: Those that were run now.
        failed: A sentence for each that failed, by its name.
    """

    cells: int
    skipped: int
    done: int = 0
    failed: dict[str, str] = field(default_factory=dict)


def run_grid(
    cells: Sequence[Cell],
    results: Path,
    *,
    data_dir: Path,
    workers: int = 1,
    limit: int | None = None,
    say: Callable[[str], None],
    work: Work = run_cell,
    engine: Engine | None = None,
) -> Outcome:
    """Run the cells that the store lacks; every finished one is in the store at once.

    Args:
        cells: The grid, in the order in which it is to be run.
        results: The store, a file ending in .jsonl.
        data_dir: Where relative paths of data are looked up.
        workers: Cells at the same time; they share the cores. Default 1.
        limit: Cells to run at most. Default: all.
        say: Told of the progress, a line at a time.
        work: Runs one cell; a function of a module, as another process has to find it.
        engine: Runs cells by ``work`` on tables of the data folder. Default: processes of this machine.

    Raises:
        InputError: If the store is damaged or cannot be written, or a table of the grid is missing, or is
            another than the one of that name that the store has results of.
    """
    if results.suffix != ".jsonl":
        raise InputError(f"The results file is {results}: give one that ends in .jsonl.")
    check_writable(results)
    _check_files(cells, data_dir)
    known = store.read(results)
    _check_unchanged(cells, known.values(), results, data_dir)
    pending = [cell for cell in cells if cell.key not in known]
    outcome = Outcome(len(cells), skipped=len(cells) - len(pending))
    if outcome.skipped:
        say(f"{outcome.skipped} of {len(cells)} cells are in {results} already")
    pending = pending[:limit]
    started = time.monotonic()
    with (
        TemporaryDirectory(prefix="clear-peft-bench-") as scratch,
        # closed before its folder goes, whatever happens here: its processes write there
        closing(
            _in_processes(pending, work, Path(scratch), data_dir, workers)
            if engine is None
            else engine(pending, work, data_dir)
        ) as finished,
    ):
        for number, (cell, record, seconds) in enumerate(finished, start=1):
            if isinstance(record, str):
                outcome.failed[cell.name] = record
                figure = f"failed: {record}"
            else:
                _check_same_recipe(record, known.values(), results)
                store.add(results, record)
                outcome.done += 1
                figure = _figure(record)
            left = (time.monotonic() - started) / number * (len(pending) - number)
            ahead = f", about {_duration(left)} left" if number < len(pending) else ""
            say(
                f"[{outcome.skipped + number}/{len(cells)}] {cell.name}: {figure} "
                f"({_duration(seconds)}){ahead}"
            )
    return outcome


def _check_files(cells: Sequence[Cell], data_dir: Path) -> None:
    """Refuse tables that are missing now, not in the middle of the night."""
    for cell in cells:
        for part in ("train", "test"):
            name = cell.data_source.get(part)
            if name and Path(name).suffix in _TABLES and not Path(locate(name, data_dir)).exists():
                raise InputError(
                    f"data.{cell.data}.{part}: there is no {name} in {data_dir}; give its folder as "
                    "--data-dir."
                )


def _check_unchanged(
    cells: Sequence[Cell], known: Iterable[Mapping[str, Any]], results: Path, data_dir: Path
) -> None:
    """Refuse to put results of two tables of one name beside each other."""
    sources = {json.dumps(cell.data_source, sort_keys=True): cell for cell in cells}
    now = {source: digests(cell.data_source, data_dir) for source, cell in sources.items()}
    for record in known:
        source = json.dumps(record["cell"]["data_source"], sort_keys=True)
        then = record["environment"].get("tables", {})  # older records lack it
        changed = [part for part in then if source in now and then[part] != now[source].get(part)]
        if changed:
            cell, part = sources[source], changed[0]
            raise InputError(
                f"data.{cell.data}.{part}: {cell.data_source[part]} in {data_dir} is not the table that "
                f"{results} has results of: give another results file, or that table."
            )


def _check_same_recipe(record: Mapping[str, Any], known: Iterable[Mapping[str, Any]], results: Path) -> None:
    """Refuse to put results of two versions of this package, whose defaults differ, beside each other."""
    cell, now = record["cell"], record["metrics"].get("training", {})
    chosen = cell["train"].get("training", {}).keys() | cell["method_settings"].get("training", {}).keys()
    for other in known:
        if any(other["cell"][part] != cell[part] for part in _RECIPE):
            continue
        then = other["metrics"].get("training", {})  # older records lack it
        for name in sorted((now.keys() & then.keys()) - chosen):
            if now[name] != then[name]:
                raise InputError(
                    f"{cell['method']} has {name} {now[name]!r}, and {then[name]!r} in {results}, which "
                    "another version of clear-peft has written: take that one, or give another results file."
                )


def _in_processes(cells: Sequence[Cell], work: Work, scratch: Path, data_dir: Path, workers: int) -> Ended:
    """Run so many cells at a time, each in a process of its own."""
    waiting = iter(cells)
    running: dict[Any, tuple[Cell, BaseProcess, Path, float]] = {}
    try:
        while True:
            while len(running) < workers and (cell := next(waiting, None)) is not None:
                folder = scratch / cell.key
                folder.mkdir()
                receiver, sender = _SPAWN.Pipe(duplex=False)
                process = _SPAWN.Process(target=_child, args=(sender, work, cell, folder, data_dir))
                with _threads(_cores() // workers):
                    process.start()
                sender.close()
                running[receiver] = cell, process, folder, time.monotonic()
            if not running:
                return
            ready: Any = wait(list(running))
            for receiver in ready:
                cell, process, folder, started = running.pop(receiver)
                try:
                    answer = receiver.recv()
                except EOFError:
                    answer = None
                process.join()
                receiver.close()
                shutil.rmtree(folder, ignore_errors=True)
                if answer is None:
                    answer = f"its process died with status {process.exitcode}, perhaps for want of memory"
                yield cell, answer, time.monotonic() - started
    finally:
        for _, process, _, _ in running.values():
            process.terminate()
            process.join()


def _cores() -> int:
    """Those that this process may use: of a cluster's node, or under taskset, they are not all."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


@contextmanager
def _threads(count: int) -> Iterator[None]:
    """Let processes that are started inside use so many threads: they read it as numpy and torch load."""
    before = os.environ.get("OMP_NUM_THREADS")
    os.environ["OMP_NUM_THREADS"] = str(max(1, count))
    try:
        yield
    finally:
        if before is None:
            del os.environ["OMP_NUM_THREADS"]
        else:
            os.environ["OMP_NUM_THREADS"] = before


def _child(sender: Connection, work: Work, cell: Cell, folder: Path, data_dir: Path) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent ends us
    threading.Thread(target=_end_with_parent, args=(folder,), daemon=True).start()
    sender.send(answer_of(work, cell, folder, data_dir))


def answer_of(work: Work, cell: Cell, folder: Path, data_dir: Path) -> dict[str, Any] | str:
    """Run a cell in a process of its own, quietly: its record, or a sentence if it fails."""
    warnings.simplefilter("ignore")
    logging.disable(logging.WARNING)
    try:
        return work(cell, folder, data_dir)
    except (InputError, RunFailedError) as error:
        return str(error)
    except Exception as error:
        place = traceback.extract_tb(error.__traceback__)[-1]
        reason = " ".join(str(error).split())
        return f"{type(error).__name__}: {reason} ({Path(place.filename).name}, line {place.lineno})"


def _end_with_parent(folder: Path) -> None:
    """Where the parent was killed, nobody waits for the result."""
    parent = parent_process()
    assert parent is not None
    parent.join()
    shutil.rmtree(folder.parent, ignore_errors=True)
    os._exit(1)


def _figure(record: dict[str, Any]) -> str:
    return f"{100 * record['metrics']['test']['accuracy']:.1f}"


def _duration(seconds: float) -> str:
    for unit, length in (("h", 3600), ("min", 60)):
        if seconds >= 2 * length:
            return f"{seconds / length:.0f} {unit}"
    return f"{seconds:.0f} s"
