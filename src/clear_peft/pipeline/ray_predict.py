"""``clear-peft predict --engine ray``: predictions for tables larger than memory, on one machine or many."""

import warnings
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from clear_peft.data import Examples, write_table
from clear_peft.data.columns import check_roles, joined, pairs_of, texts_in
from clear_peft.data.tokens import warn_of_cut
from clear_peft.errors import ClearWarning, InputError
from clear_peft.pipeline.big_table import Shard, shards_of
from clear_peft.pipeline.commands import (
    check_new_columns,
    check_top,
    reading_of,
    say_if_ambiguous,
    with_predictions,
)
from clear_peft.pipeline.ray_shards import by_models, cluster
from clear_peft.pipeline.shard_folder import begin, check_begun, files_of, finish, model_in
from clear_peft.run_folder import layout
from clear_peft.run_folder.config import CONFIG_NAME

if TYPE_CHECKING:
    from clear_peft.pipeline.inference import Run
    from clear_peft.pipeline.progress import Reporter

_PARTS = "part-*.parquet"


def predict_with_ray(
    run: Path,
    data: str,
    output: Path,
    reporter: "Reporter",
    *,
    text_column: list[str] | None = None,
    top: int = 1,
    probabilities: bool = False,
    overwrite: bool = False,
    device: str = "auto",
    trust_remote_code: bool = False,
    cpus: float = 1,
    gpus: float = 0,
) -> int:
    """Write a folder of Parquet files with the columns of the input and what ``predict`` adds.

    Each shard is a file, written whole or not at all. Started again, the shards that lack are predicted.

    Args:
        run: Run folder.
        data: Folder of Parquet files, which all machines see by the same path, as they do the others.
        output: Folder to write.
        reporter: Told what is being done.
        text_column: Column of the texts. Default: as in the run's own table.
        top: As for ``predict``, and so what is not named here.
        probabilities: Whether a column is written for each class.
        overwrite: Whether what the folder holds is replaced.
        device: Where the model runs.
        trust_remote_code: Whether code that comes with the model may run.
        cpus: CPUs of a model. Default 1.
        gpus: GPUs of a model. Default 0.

    Returns:
        The number of rows of the table.

    Raises:
        InputError: If the folder, the table or K is not what it should be, Ray is not installed or has no
            room, or the output must not or cannot be written to.
        RunFailedError: If a task of Ray fails; started again, it goes on.
    """
    from pyarrow.parquet import read_schema  # type: ignore[import-untyped]

    config, names = layout.read_finished(run)
    if names.words:
        raise InputError(
            f"{run} holds a run of labels of words, and Ray predicts those of texts: leave --engine out."
        )
    check_top(top, names)
    texts = reading_of(config, text_column=text_column)["text_column"]
    texts = [texts] if isinstance(texts, str) else list(texts)
    check_roles([("text", name) for name in texts])
    output = output.absolute()
    reporter.stage(f"Reading {data}")
    shards = shards_of(data, texts)
    for path in dict.fromkeys(shard.path for shard in shards):
        check_new_columns(read_schema(path).names, names, path, top, probabilities)
    begun = {
        "run": str(run.resolve()),
        "model of the run": model_in(str(run / layout.ADAPTER)),
        "config.yaml": (run / CONFIG_NAME).read_text(encoding="utf-8"),
        "pretrained model": model_in(config.model),
        "data": files_of(shards),
        "text_column": texts,
        "top": top,
        "probabilities": probabilities,
    }
    check_begun(output, data, begun, overwrite=overwrite)
    separator = config.label_separator or ";"
    say_if_ambiguous(names, separator)
    done, empty, cut = 0, 0, 0
    with cluster("a model", cpus, gpus):
        begin(output, begun, [_PARTS], anew=overwrite)
        todo = [shard for shard in shards if not _part(output, shard).exists()]
        rows = sum(map(len, todo))
        reporter.stage(f"Predicting {rows} rows")
        load = partial(_loaded, run.resolve(), device, trust_remote_code)
        added = top, probabilities, separator
        work = partial(_Predict, load, texts, output, added)
        for shard, (without, longer) in by_models(todo, work, cpus=cpus, gpus=gpus):
            done, empty, cut = done + len(shard), empty + without, cut + longer
            reporter.step(done, rows)
    if empty:
        rows_are = "1 row" if empty == 1 else f"{empty} rows"
        message = f"{data!r}: the text is empty in {rows_are}: nothing is predicted there."
        warnings.warn(message, ClearWarning, stacklevel=2)
    if cut:
        warn_of_cut(cut, done - empty, "texts", config.max_length)
    total = sum(map(len, shards))
    finish(output, {"rows": total, "files": len(shards)})
    return total


def _part(folder: Path, shard: Shard) -> Path:
    return folder / f"part-{shard.number:06d}.parquet"


def _loaded(run: Path, device: str, trust_remote_code: bool) -> "Run":
    from clear_peft.pipeline.inference import load_run  # torch: seconds

    return load_run(run, device=device, trust_remote_code=trust_remote_code)


class _Predict:
    """Writes shards with their predictions."""

    def __init__(
        self,
        load: "Callable[[], Run]",
        texts: list[str],
        folder: Path,
        added: tuple[int, bool, str],
    ) -> None:
        self._run = load()
        self._texts, self._folder = texts, folder
        self._added = added

    def __call__(self, shard: Shard) -> tuple[int, int]:
        """Returns how many texts are empty and how many are cut: Ray shows no warning of a worker."""
        frame = shard.read()
        parts = [
            texts_in(frame[name], f"{shard.path!r}, column {name!r}", shard.start) for name in self._texts
        ]
        texts = joined(parts)
        every = Examples(texts, None, np.arange(shard.start, shard.stop), pairs=pairs_of(parts))
        rows = np.flatnonzero([bool(text) for text in texts])
        found, cut = self._probabilities(every.select(rows), shard)
        write_table(
            with_predictions(frame, rows, found, self._run.names, *self._added), _part(self._folder, shard)
        )
        return len(shard) - len(rows), cut

    def _probabilities(self, examples: Examples, shard: Shard) -> tuple[np.ndarray, int]:
        if not len(examples):
            return np.empty((0, len(self._run.names.names)), np.float32), 0
        try:
            return self._run.counted_probabilities(examples)
        except InputError as error:
            raise InputError(f"{shard.path!r}: {error}") from error
