"""``clear-peft scan --engine ray``: tables larger than memory, on one machine or many.

Every pass goes through the table shard by shard. The features of each shard are kept beside the output until
the scan is finished, so that a scan that was killed goes on with the shards that lack.
"""

import io
import shutil
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from clear_peft.data import LabelNames, escape_formulas, read_table, write_table
from clear_peft.data.tokens import warn_of_cut
from clear_peft.errors import InputError
from clear_peft.files import atomic_write, replaced_folder
from clear_peft.pipeline.big_table import (
    Columns,
    Sample,
    Shard,
    check_class_count,
    class_names,
    counted,
    fit_sample,
    most_suspicious,
    rows_in,
    sampled_rows,
    shards_of,
    taken,
)
from clear_peft.pipeline.encoder import PART, encode, encode_by, forward_size, name_texts
from clear_peft.pipeline.judge import say_if_no_better_than_chance
from clear_peft.pipeline.ray_shards import by_models, cluster, over_shards
from clear_peft.pipeline.scan_options import ScanOptions, scan_folder, with_defaults
from clear_peft.pipeline.shard_folder import begin, check_begun, files_of, finish, model_in
from clear_peft.run_folder.layout import LABEL_ISSUES

if TYPE_CHECKING:
    from clear_peft.pipeline.frozen_encoder import FrozenEncoder
    from clear_peft.pipeline.progress import Reporter

SAMPLE_ROWS = 100_000
TOP_ROWS = 10_000
ALL_ISSUES = "label_issues"
_FEATURES = "features"
_PARTS = (ALL_ISSUES, LABEL_ISSUES, _FEATURES)
_PACKAGES = ("clear-peft", "numpy", "scipy", "torch", "transformers", "ray")
# options that apply
_TAKEN = {
    "data",
    "text_column",
    "label_column",
    "normalize_labels",
    "model",
    "output",
    "max_length",
    "long_texts",
    "cache",
    "device",
    "trust_remote_code",
    "overwrite",
}


@dataclass(frozen=True, eq=False)
class RayScan:
    """What a scan of a large table has found.

    Attributes:
        folder: Where ``label_issues/``, ``label_issues.csv`` and ``summary.json`` are.
        summary: What ``summary.json`` holds.
        top: What ``label_issues.csv`` holds.
    """

    folder: Path
    summary: dict[str, Any]
    top: pd.DataFrame


def scan_with_ray(
    options: ScanOptions,
    reporter: "Reporter",
    *,
    sample_rows: int = SAMPLE_ROWS,
    cpus: float = 1,
    gpus: float = 0,
    load: "Callable[[], FrozenEncoder] | None" = None,
) -> RayScan:
    """Find labels that look wrong in a folder of Parquet files, and write them down.

    Probe and noise model are fitted to a random sample of the rows and applied to all others.

    Args:
        options: What to scan. Its data and its output are folders that all machines see by the same path.
        reporter: Told what is being done.
        sample_rows: Rows of the sample at the most. Default 100,000.
        cpus: CPUs of an encoder. Default 1.
        gpus: GPUs of an encoder. Default 0.
        load: Loads the encoder. Default: as the options say.

    Raises:
        InputError: If an option does not apply, the table or the model is not what it should be, Ray is not
            installed or has no room, or the folder must not or cannot be written to.
        RunFailedError: If a task of Ray fails; started again, the scan goes on.
    """
    started = time.perf_counter()
    _check_options(options)
    options = with_defaults(options)
    folder, model = scan_folder(options).absolute(), str(options.model)
    columns = _columns(options)
    reporter.stage(f"Reading {options.data}")
    shards = shards_of(options.data, [*columns.texts, columns.label])
    begun = _begun(options, columns, shards)
    check_begun(folder, options.data, begun, overwrite=options.overwrite)
    with cluster("an encoder", cpus, gpus):
        counts = _counts(options.data, columns, shards)
        names = class_names(counts, options.data, options.normalize_labels)
        begin(folder, begun, _PARTS, anew=options.overwrite)
        # features tell much of what the texts say
        (folder / _FEATURES).mkdir(mode=0o700, exist_ok=True)
        load = load or partial(_loaded, options)
        work = partial(_Encode, load, columns, folder / _FEATURES, model, options.max_length)
        _encode(shards, work, reporter, options, cpus, gpus, folder / _FEATURES)
        total = sum(map(len, shards))
        sample = _fitted(shards, columns, names, sampled_rows(total, sample_rows), options, folder, reporter)
        reporter.stage(f"Judging {total} rows")
        top, rate, listed = _judged(shards, columns, sample, options.normalize_labels, folder)
        summary = _summary(sample, shards, rate, listed, counts, time.perf_counter() - started)
        say_if_no_better_than_chance(sample.quality, sample.probe.agreement)
        write_table(escape_formulas(top), folder / LABEL_ISSUES)
    finish(folder, summary)
    shutil.rmtree(folder / _FEATURES)
    return RayScan(folder, summary, top)


def _check_options(options: ScanOptions) -> None:
    others = [f.name for f in fields(options) if f.name not in _TAKEN and getattr(options, f.name)]
    if others:
        names = " and ".join(f"--{name.replace('_', '-')}" for name in others)
        raise InputError(
            f"--engine ray judges one label a row by a model, and knows no {names}: leave out that, or "
            "--engine."
        )


def _columns(options: ScanOptions) -> Columns:
    texts = options.text_column
    return Columns((texts,) if isinstance(texts, str) else tuple(texts), options.label_column)


def _begun(options: ScanOptions, columns: Columns, shards: Sequence[Shard]) -> dict[str, Any]:
    """What features hang on."""
    return {
        "data": files_of(shards),
        "text_column": list(columns.texts),
        "model": model_in(str(options.model)),
        "max_length": options.max_length,
        "long_texts": options.long_texts,
    }


def _counts(data: str, columns: Columns, shards: Sequence[Shard]) -> Counter[str]:
    """How many rows have each label."""
    counts: Counter[str] = Counter()
    for _, part in over_shards(shards, partial(counted, columns)):
        counts.update(part)
        check_class_count(counts, data)
    return counts


def _features_file(folder: Path, shard: Shard) -> Path:
    return folder / f"{shard.number:06d}.npy"


def _loaded(options: ScanOptions) -> "FrozenEncoder":
    from clear_peft.pipeline.frozen_encoder import FrozenEncoder  # torch takes seconds

    return FrozenEncoder(
        str(options.model),
        max_length=options.max_length,
        long_texts=options.long_texts,
        device=options.device,
        trust_remote_code=options.trust_remote_code,
    )


class _Encode:
    """Writes the features of shards, (N, V, D) float16, or float32 where one is too large."""

    def __init__(
        self, load: "Callable[[], FrozenEncoder]", columns: Columns, folder: Path, model: str, max_length: int
    ) -> None:
        self._encoder = load()
        self._columns, self._folder, self._model = columns, folder, model
        self._size = forward_size(max_length)

    def __call__(self, shard: Shard) -> int:
        """Returns how many texts are cut."""
        texts, _ = self._columns.of(shard)
        rows = np.arange(shard.start, shard.stop)
        parts, cut = [], 0
        for some in (slice(start, start + PART) for start in range(0, len(texts), PART)):
            try:
                made, longer = encode_by(self._encoder, texts[some], rows[some], self._model, self._size)
            except InputError as error:
                raise InputError(f"{shard.path!r}: {error}") from error
            half = np.abs(made).max() <= np.finfo(np.float16).max
            parts.append(made.astype(np.float16) if half else made)
            cut += int(longer.sum())
        buffer = io.BytesIO()
        np.save(buffer, np.concatenate(parts))
        atomic_write(_features_file(self._folder, shard), buffer.getvalue())
        return cut


def _encode(
    shards: Sequence[Shard],
    load: Callable[[], _Encode],
    reporter: "Reporter",
    options: ScanOptions,
    cpus: float,
    gpus: float,
    folder: Path,
) -> None:
    """Write the features of the shards that lack them."""
    todo = [shard for shard in shards if not _features_file(folder, shard).exists()]
    done, cut, rows = 0, 0, sum(map(len, todo))
    known = sum(map(len, shards)) - rows
    reporter.stage(f"Encoding {rows} texts with {options.model}" + (f", {known} are known" if known else ""))
    for shard, longer in by_models(todo, load, cpus=cpus, gpus=gpus):
        done, cut = done + len(shard), cut + longer
        reporter.step(done, rows)
    if cut:
        warn_of_cut(cut, rows, "texts", options.max_length)


def _fitted(
    shards: Sequence[Shard],
    columns: Columns,
    names: LabelNames,
    rows: npt.NDArray[np.int64],
    options: ScanOptions,
    folder: Path,
    reporter: "Reporter",
) -> Sample:
    drawn = [shard for shard in shards if len(rows_in(rows, shard))]
    found = dict(over_shards(drawn, partial(taken, columns, rows)))
    texts = [text for shard in drawn for text in found[shard][0]]
    labels = names.find(
        [label for shard in drawn for label in found[shard][1]], normalize=options.normalize_labels
    )
    features = np.concatenate(
        [
            np.load(_features_file(folder / _FEATURES, shard), mmap_mode="r")[
                rows_in(rows, shard) - shard.first
            ]
            for shard in drawn
        ]
    )
    words, name_features = name_texts(names.names), None
    if words is not None:
        name_features = encode(
            words,
            str(options.model),
            max_length=options.max_length,
            long_texts=options.long_texts,
            device="cpu",  # where the command runs there may be nothing else
            trust_remote_code=options.trust_remote_code,
        )[:, -1]
    reporter.stage(f"Judging the labels of a sample of {len(rows)} rows")
    return fit_sample(rows, texts, labels, features, names, name_features)


def _judge(
    sample: Sample, columns: Columns, normalize: bool, features: Path, folder: Path, shard: Shard
) -> None:
    """Write the judgement of a shard."""
    texts, given = columns.of(shard)
    labels = sample.names.find(given, normalize=normalize)
    rows = np.arange(shard.first, shard.first + len(shard))
    frame = sample.judge(rows, texts, labels, np.load(_features_file(features, shard), mmap_mode="r"))
    frame.insert(0, "file", shard.file)
    frame.insert(0, "row", np.arange(shard.start, shard.stop))
    write_table(frame, _issues_file(folder, shard))


def _issues_file(folder: Path, shard: Shard) -> Path:
    return folder / f"part-{shard.number:06d}.parquet"


def _judged(
    shards: Sequence[Shard], columns: Columns, sample: Sample, normalize: bool, folder: Path
) -> tuple[pd.DataFrame, float, int]:
    """Write the judgement of all rows; the rows most surely wrong, the noise rate and how many are listed."""
    with replaced_folder(folder / ALL_ISSUES) as part:
        features = folder / _FEATURES
        for _ in over_shards(shards, partial(_judge, sample, columns, normalize, features, part)):
            pass
        top, rate, listed = most_suspicious(
            shards, lambda shard: read_table(_issues_file(part, shard)), TOP_ROWS
        )
    rows = np.sort(top["place"].to_numpy())
    chosen = [shard for shard in shards if len(rows_in(rows, shard))]
    found = dict(over_shards(chosen, partial(taken, columns, rows)))
    texts = dict(zip(rows.tolist(), (text for shard in chosen for text in found[shard][0]), strict=True))
    top.insert(3, "text", pd.Series([texts[place] for place in top["place"].tolist()], dtype=object))
    return top.drop(columns="place"), rate, listed


def _summary(
    sample: Sample, shards: Sequence[Shard], rate: float, listed: int, counts: Counter[str], seconds: float
) -> dict[str, Any]:
    total, names = sum(map(len, shards)), sample.names
    by_class: Counter[str] = Counter()
    for place, count in zip(names.find(list(counts)).tolist(), counts.values(), strict=True):
        by_class[names.names[place]] += count
    noise = sample.quality.noise
    return {
        "rows": total,
        "files": len({shard.file for shard in shards}),
        "classes": len(names.names),
        "sampled": len(sample.rows),
        "noise_rate_estimate": rate,
        "noise_rate_interval": sample.interval(rate, total),
        "sampling_error": sample.sampling_error(total),
        "noise": None if noise is None else noise.kind,
        "listed": listed,
        "class_counts": {name: by_class[name] for name in names.names},
        "seconds": seconds,
        "versions": {name: version(name) for name in _PACKAGES},
    }
