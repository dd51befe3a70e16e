"""Shards of a table as work of a Ray cluster; Ray is an extra, imported when it is used."""

import json
import logging
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from typing import Any

from clear_peft.errors import InputError, RunFailedError
from clear_peft.pipeline.big_table import Shard
from clear_peft.surroundings import pip_install

Work = Callable[[Shard], Any]
# of a shard whose actor died; without a limit, one that takes too much memory would be tried for ever
_RETRIES = 3


@contextmanager
def cluster(what: str, cpus: float, gpus: float) -> Iterator[Any]:
    """Ray, connected to the cluster that ``RAY_ADDRESS`` names, or started on this machine.

    Args:
        what: What needs the CPUs and GPUs, for a sentence.
        cpus: CPUs that some machine must have.
        gpus: GPUs that the same machine must have.

    Raises:
        InputError: If Ray is not installed, or there is no such machine.
    """
    try:
        import ray
    except ImportError as error:
        raise InputError(f"The engine ray needs Ray: {pip_install('ray')}.") from error
    ours = not ray.is_initialized()
    if ours:
        ray.init(log_to_driver=False, logging_level=logging.ERROR)
    try:
        if not _room(ray, cpus, gpus):  # Ray would wait for ever
            raise InputError(
                f"No machine of the cluster has {cpus:g} CPUs and {gpus:g} GPUs for {what}: give fewer."
            )
        yield ray
    finally:
        if ours:
            ray.shutdown()


def over_shards(shards: Sequence[Shard], work: Work) -> Iterator[tuple[Shard, Any]]:
    """Do some work on each shard, on all machines of a cluster that ``cluster`` has connected.

    Ray Data streams the shards through tasks, as many as there is room for. What a process or machine has
    begun when it dies is done again.

    Args:
        shards: Whose files all machines see by the same path.
        work: Returns what JSON can hold.

    Yields:
        Each shard with what the work has returned, in the order of their ends.

    Raises:
        InputError: If the work does.
        RunFailedError: If it fails for another reason.
    """
    return _streamed(shards, _done, fn_kwargs={"work": work})


def by_models(
    shards: Sequence[Shard], load: Callable[[], Work], *, cpus: float, gpus: float
) -> Iterator[tuple[Shard, Any]]:
    """As ``over_shards``, through a pool of actors, each of which loads a model once.

    A shard whose actor dies four times is given up.

    Args:
        shards: As for ``over_shards``.
        load: Loads the model and returns the work.
        cpus: CPUs of an actor.
        gpus: GPUs of an actor.
    """
    import ray.data

    pool = ray.data.ActorPoolStrategy(min_size=1, max_size=max(1, min(len(shards), _room(ray, cpus, gpus))))
    return _streamed(
        shards,
        _Actor,
        fn_constructor_kwargs={"load": load},
        compute=pool,
        num_cpus=cpus,
        num_gpus=gpus,
        max_task_retries=_RETRIES,
    )


def _streamed(shards: Sequence[Shard], step: Any, **how: Any) -> Iterator[tuple[Shard, Any]]:
    if not shards:
        return
    import ray.data

    logging.getLogger("ray.data").setLevel(logging.ERROR)
    ray.data.DataContext.get_current().enable_progress_bars = False
    items = [{"shard": json.dumps(asdict(shard))} for shard in shards]
    blocks = ray.data.from_items(items, override_num_blocks=len(items))
    with warnings.catch_warnings():
        # Ray 2.64 is to drop max_task_retries, and has nothing in its place yet
        warnings.filterwarnings("ignore", message=".*ray_remote_args", category=DeprecationWarning)
        done = blocks.map_batches(step, batch_size=1, **how)
    try:
        for row in done.iter_rows():
            answer = json.loads(row["answer"])
            if "refused" in answer:
                raise InputError(answer["refused"])
            yield Shard(**json.loads(row["shard"])), answer["found"]
    except ray.exceptions.RayError as error:
        lines = str(error).strip().splitlines() or [type(error).__name__]
        raise RunFailedError(f"A task of Ray has failed: {lines[-1].strip()}") from error


def _done(batch: dict[str, Any], work: Work) -> dict[str, Any]:
    """On a machine of the cluster."""
    answers: list[dict[str, Any]] = []
    for shard in batch["shard"]:
        try:
            answers.append({"found": work(Shard(**json.loads(shard)))})
        except InputError as error:  # Ray would wrap it
            answers.append({"refused": str(error)})
    return {"shard": batch["shard"], "answer": [json.dumps(answer) for answer in answers]}


class _Actor:
    """On a machine of the cluster."""

    def __init__(self, load: Callable[[], Work]) -> None:
        self._load = load
        self._loaded: Work | None = None

    def __call__(self, batch: dict[str, Any]) -> dict[str, Any]:
        return _done(batch, self._work)

    def _work(self, shard: Shard) -> Any:
        if self._loaded is None:  # not when the actor is made: what is wrong is to be said in a sentence
            self._loaded = self._load()
        return self._loaded(shard)


def _room(ray: Any, cpus: float, gpus: float) -> int:
    """How many tasks with so many CPUs and GPUs the cluster has room for at a time."""
    machines = [node["Resources"] for node in ray.nodes() if node["Alive"]]
    needs = [(name, need) for name, need in (("CPU", cpus), ("GPU", gpus)) if need]
    return sum(min(int(has.get(name, 0) / need) for name, need in needs) for has in machines)
