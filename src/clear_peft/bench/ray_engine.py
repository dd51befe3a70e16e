"""Cells as tasks of a Ray cluster."""

import time
from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from clear_peft.bench.grid import Cell
from clear_peft.bench.runner import Ended, Work, answer_of
from clear_peft.pipeline.ray_shards import cluster

# how often a cell is run again whose process or machine has died
_AGAIN = 2


def in_ray(cells: Sequence[Cell], work: Work, data_dir: Path, *, cpus: float, gpus: float) -> Ended:
    """Run cells on the cluster that ``RAY_ADDRESS`` names, or on this machine.

    Each cell has a fresh process. A cell whose process or machine dies is run again, twice at the most.

    Args:
        cells: What to run.
        work: Runs one cell; a function of a module that is installed on all machines.
        data_dir: Where relative paths of data are looked up: a path that all machines see.
        cpus: CPUs of a cell.
        gpus: GPUs of a cell; 0.25 puts four cells on one.

    Yields:
        Each cell with its record, or a sentence if it failed, and its seconds since all were handed over; in
        the order of their ends.

    Raises:
        InputError: If Ray is not installed, or no machine of the cluster has so many CPUs or GPUs.
    """
    with cluster("a cell", cpus, gpus) as ray:
        task = ray.remote(num_cpus=cpus, num_gpus=gpus, max_retries=_AGAIN, max_calls=1)(_run)
        started = time.monotonic()
        running = {task.remote(work, cell, str(data_dir.resolve())): cell for cell in cells}
        while running:
            (ended,), _ = ray.wait(list(running), num_returns=1)
            cell = running.pop(ended)
            try:
                answer: dict[str, Any] | str = ray.get(ended)
            except ray.exceptions.RayError as error:
                answer = f"{type(error).__name__}: {' '.join(str(error).split())}"
            yield cell, answer, time.monotonic() - started


def _run(work: Work, cell: Cell, data_dir: str) -> dict[str, Any] | str:
    """On a machine of the cluster."""
    with TemporaryDirectory(prefix="clear-peft-bench-") as folder:
        return answer_of(work, cell, Path(folder), Path(data_dir))
