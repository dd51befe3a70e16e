"""Tables larger than memory: Parquet files in shards, and a judgement that is fitted to a sample of rows."""

import warnings
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pandas as pd

from clear_peft.data import Examples, LabelNames
from clear_peft.data.arrow import table_to_frame
from clear_peft.data.checks import row_listing
from clear_peft.data.columns import check_column, check_roles, check_two_classes, joined, names_in, texts_in
from clear_peft.data.hub import folder_of, parquet_files
from clear_peft.errors import ClearWarning, InputError
from clear_peft.label_quality import LabelQuality, LinearProbe, fit_probe
from clear_peft.label_quality.probe import shrunk
from clear_peft.pipeline.encoder import similarities
from clear_peft.pipeline.feature_cache import key_of
from clear_peft.pipeline.judge import copies_and_groups

# rows of a shard at the most: their features take some 75 MB for MiniLM, 200 MB for a model of width 1,024
SHARD_ROWS = 1 << 15
_READ_ROWS = 1 << 12
# a column with more is one of ids
_MOST_CLASSES = 20_000
# rows × classes that are judged together
_JUDGED_CELLS = 1 << 22
_FEW_SAMPLED = 5
_SEED = 0


@dataclass(frozen=True)
class Shard:
    """Consecutive rows of a Parquet file.

    Attributes:
        number: Of the shard, from 0, in the order of the table.
        file: Name of the file, below the folder of the table.
        path: Of the file.
        start: Position of the first row in the file.
        stop: Position after the last row in the file.
        first: Position of the first row in the table: all files one after the other, sorted by name.
    """

    number: int
    file: str
    path: str
    start: int
    stop: int
    first: int

    def __len__(self) -> int:
        return self.stop - self.start

    def read(self, columns: Sequence[str] | None = None) -> pd.DataFrame:
        """Its rows, as ``read_table`` has them, in memory for no more than the shard.

        Args:
            columns: Which. Default: all.

        Raises:
            InputError: If the file is not sound.
        """
        import pyarrow as pa  # type: ignore[import-untyped]
        import pyarrow.parquet as pq  # type: ignore[import-untyped]

        try:
            with pq.ParquetFile(self.path) as file:
                sizes = [file.metadata.row_group(i).num_rows for i in range(file.num_row_groups)]
                ends = np.cumsum(sizes)
                chosen = np.flatnonzero((ends > self.start) & (ends - sizes < self.stop)).tolist()
                at, parts = int(ends[chosen[0]]) - sizes[chosen[0]], []
                for batch in file.iter_batches(_READ_ROWS, row_groups=chosen, columns=columns):
                    begin = min(max(0, self.start - at), batch.num_rows)
                    part = batch.slice(begin, max(0, self.stop - at - begin))
                    at += batch.num_rows
                    if part.num_rows:
                        parts.append(part)
                    if at >= self.stop:
                        break
                table = pa.Table.from_batches(parts).replace_schema_metadata(file.schema_arrow.metadata)
            table.validate(full=True)  # among others, that text is UTF-8
        except (pa.ArrowException, OSError, ValueError, MemoryError) as error:
            raise _unsound(self.path) from error
        return table_to_frame(table, self.path)


def shards_of(data: str, columns: Sequence[str]) -> list[Shard]:
    """The shards of a folder of Parquet files; reads no row.

    Args:
        data: ``folder``, ``folder@split``, or one Parquet file.
        columns: What each file must have, no lists.

    Raises:
        InputError: If there is no such folder, a file is not sound or lacks a column, or there are no rows.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    found = folder_of(data)
    if found is not None:
        folder, files = found[0], parquet_files(*found)
    elif data.lower().endswith(".parquet") and Path(data).is_file():
        folder, files = Path(data).parent, [Path(data)]
    else:
        raise InputError(
            f"{data!r} is no folder of Parquet files, which is what --engine ray reads: write the table as "
            "one, or leave out --engine."
        )
    shards: list[Shard] = []
    first = 0
    for path in files:
        try:
            with pq.ParquetFile(path) as file:
                rows, schema = file.metadata.num_rows, file.schema_arrow
        except (pa.ArrowException, OSError, ValueError) as error:
            raise _unsound(str(path)) from error
        for name in columns:
            check_column(pd.DataFrame(columns=schema.names), name, str(path))
            kind = schema.field(name).type
            if pa.types.is_list(kind) or pa.types.is_large_list(kind):
                raise InputError(
                    f"{str(path)!r}, column {name!r} holds lists, and --engine ray takes one text and one "
                    "label a row: leave out --engine."
                )
        for start in range(0, rows, SHARD_ROWS):
            stop = min(start + SHARD_ROWS, rows)
            name = path.relative_to(folder).as_posix()
            shards.append(Shard(len(shards), name, str(path.resolve()), start, stop, first + start))
        first += rows
    if not shards:
        raise InputError(f"{data!r} has no rows; give at least one.")
    return shards


def _unsound(path: str) -> InputError:
    return InputError(f"{path!r} is not a sound Parquet file; write it anew from its source.")


@dataclass(frozen=True)
class Columns:
    """Where texts and labels are.

    Attributes:
        texts: Columns of the texts; several are read as one text, a line each.
        label: Column of the labels.
    """

    texts: tuple[str, ...]
    label: str

    def __post_init__(self) -> None:
        check_roles([*(("text", name) for name in self.texts), ("label", self.label)])

    def of(self, shard: Shard) -> tuple[list[str], list[str]]:
        """Texts and labels of a shard.

        Raises:
            InputError: If one is missing, or none; the sentence has the first rows of the file concerned.
        """
        frame = shard.read([*self.texts, self.label])

        def place(name: str) -> str:
            return f"{shard.path!r}, column {name!r}"

        def refuse(missing: Sequence[bool], what: str, columns: Sequence[str]) -> None:
            if any(missing):
                rows = (np.flatnonzero(missing) + shard.start).tolist()
                raise InputError(
                    f"{shard.path!r}, column {' and '.join(map(repr, columns))}: the {what} in "
                    f"{row_listing(rows)}; fill it in or remove the rows."
                )

        texts = joined([texts_in(frame[name], place(name), shard.start) for name in self.texts])
        refuse([not text for text in texts], "text is empty", self.texts)
        every = np.ones(len(frame), bool)
        labels = names_in(frame[self.label], place(self.label), "label", every, first=shard.start)
        refuse([label is None for label in labels], "label is missing", [self.label])
        return texts, [str(label) for label in labels]


def counted(columns: Columns, shard: Shard) -> dict[str, int]:
    """How many rows of a shard have each label; what is wrong with its texts and labels is said here."""
    _, labels = columns.of(shard)
    return dict(Counter(labels))


def taken(columns: Columns, rows: npt.NDArray[np.integer], shard: Shard) -> tuple[list[str], list[str]]:
    """Texts and labels of those rows of a shard that are among some, ascending positions in the table."""
    texts, labels = columns.of(shard)
    places = (rows_in(rows, shard) - shard.first).tolist()
    return [texts[i] for i in places], [labels[i] for i in places]


def rows_in(rows: npt.NDArray[np.integer], shard: Shard) -> npt.NDArray[np.integer]:
    """Which of some rows, ascending positions in the table, are in a shard."""
    return rows[np.searchsorted(rows, shard.first) : np.searchsorted(rows, shard.first + len(shard))]


def class_names(counts: Mapping[str, int], data: str, normalize: bool) -> LabelNames:
    """The classes of a table.

    Args:
        counts: Number of rows by label.
        data: The table, for sentences.
        normalize: As for ``LabelNames.fit``.

    Raises:
        InputError: If there are fewer than two, or too many to be classes.
    """
    if len(counts) > _MOST_CLASSES:
        raise InputError(
            f"{data!r} has more than {_MOST_CLASSES} different labels: name the column of the labels, or "
            "scan fewer classes."
        )
    try:
        names = LabelNames.of_counts(counts, normalize=normalize)
    except InputError as error:
        raise InputError(f"{data!r}: {error}") from None
    check_two_classes(names, repr(data))
    return names


def check_class_count(counts: Mapping[str, int], data: str) -> None:
    """Refuse a column of ids before its values fill the memory."""
    if len(counts) > _MOST_CLASSES:
        class_names(counts, data, False)


def sampled_rows(total: int, size: int) -> npt.NDArray[np.int64]:
    """A random sample of the rows of a table, the same at every call.

    Args:
        total: Rows of the table.
        size: Rows of the sample; all rows if there are no more.

    Returns:
        Ascending positions.
    """
    if total <= size:
        return np.arange(total)
    return np.sort(np.random.default_rng(_SEED).choice(total, size, replace=False, shuffle=False))


@dataclass(frozen=True, eq=False)
class Sample:
    """Probe and noise model of a sample of S rows, and what they say of these.

    Attributes:
        rows: Their positions in the table, ascending, (S,).
        places: The first of them with a text, by ``key_of`` the text.
        names: Names of the C classes.
        name_features: Features of these names, (C, D); None where they say nothing.
        probe: Fitted to the sample.
        quality: Of the labels of the sample, each judged by fits that have not seen it and its copies.
    """

    rows: npt.NDArray[np.int64]
    places: dict[bytes, int]
    names: LabelNames
    name_features: npt.NDArray[np.float32] | None
    probe: LinearProbe
    quality: LabelQuality

    def judge(
        self,
        rows: npt.NDArray[np.integer],
        texts: Sequence[str],
        labels: npt.NDArray[np.integer],
        features: npt.NDArray[np.floating],
    ) -> pd.DataFrame:
        """Judge any rows of the table.

        Those of the sample have the judgement that they have there. Those with a text of the sample are
        predicted by the fits that have not seen this text, all others by the probe, which has not seen them.

        Args:
            rows: Positions in the table, (N,).
            texts: (N,).
            labels: Given labels, (N,).
            features: (N, V, D).

        Returns:
            ``given_label`` and ``predicted_label`` (categorical), ``clean_probability``, ``label_quality``
            and ``is_label_issue``, as ``LabelQuality.issues`` has them, in the order of the rows.
        """
        step = max(_JUDGED_CELLS // len(self.names.names), 256)
        parts = [
            self._judged(rows[some], texts[some], labels[some], np.asarray(features[some], np.float32))
            for some in (slice(start, start + step) for start in range(0, len(rows), step))
        ]
        predicted, p, own = (np.concatenate(column) for column in zip(*parts, strict=True))
        label = pd.CategoricalDtype(list(self.names.names))
        return pd.DataFrame(
            {
                "given_label": pd.Categorical.from_codes(labels, dtype=label),
                "predicted_label": pd.Categorical.from_codes(predicted, dtype=label),
                "clean_probability": p,
                "label_quality": own,
                "is_label_issue": p < 0.5,
            }
        )

    def _judged(
        self,
        rows: npt.NDArray[np.integer],
        texts: Sequence[str],
        labels: npt.NDArray[np.integer],
        features: npt.NDArray[np.float32],
    ) -> tuple[npt.NDArray[np.integer], npt.NDArray[np.float32], npt.NDArray[np.float32]]:
        quality, probe = self.quality, self.probe
        found = probe.judge(features, labels, _prior(features, self.name_features))
        pred_probs, p = found.pred_probs, found.clean_probability.astype(np.float32)
        place = np.array([self.places.get(key_of(text), -1) for text in texts])
        known = np.flatnonzero(place >= 0)
        if len(known):
            held_out = quality.pred_probs[place[known]].dense()
            pred_probs[known], given = held_out, labels[known]
            clean = probe.fit.noise.clean_probability(held_out, given)
            p[known] = shrunk(clean, probe.support[given] - 1, probe.rate)
        own = pred_probs[np.arange(len(labels)), labels].astype(np.float32)
        predicted = pred_probs.argmax(axis=1)
        at = np.minimum(np.searchsorted(self.rows, rows), len(self.rows) - 1)
        ours = np.flatnonzero(self.rows[at] == rows)
        p[ours], own[ours] = quality.clean_probability[at[ours]], quality.self_confidence[at[ours]]
        predicted[ours] = quality.predicted[at[ours]]
        return predicted, p, own

    def sampling_error(self, total: int) -> float:
        """Standard error of the mean of 1 − p by the drawing of the sample from ``total`` rows."""
        size = len(self.rows)
        spread = float(self.quality.clean_probability.std(dtype=np.float64))
        return spread * float(np.sqrt((1 - size / total) / size))

    def interval(self, rate: float, total: int) -> tuple[float, float]:
        """A 95 % interval for the noise rate of the table.

        That of the sample, wider at both ends by 1.96 times ``sampling_error``.

        Args:
            rate: The estimate, the mean of 1 − p of all rows, which it holds.
            total: Rows of the table.
        """
        assert self.quality.noise_rate_interval is not None  # a noise model was fitted
        low, high = self.quality.noise_rate_interval
        more = 1.96 * self.sampling_error(total)
        return max(0.0, min(low, rate) - more), min(1.0, max(high, rate) + more)


def fit_sample(
    rows: npt.NDArray[np.int64],
    texts: list[str],
    labels: npt.NDArray[np.integer],
    features: npt.NDArray[np.floating],
    names: LabelNames,
    name_features: npt.NDArray[np.float32] | None,
) -> Sample:
    """Fit probe and noise model to a sample, as a scan fits them to a table.

    Args:
        rows: Positions in the table, ascending, (S,).
        texts: (S,).
        labels: Given labels, (S,) in [0, C).
        features: (S, V, D).
        names: Names of the C classes.
        name_features: Of these names, (C, D), or None.

    Raises:
        InputError: If all texts of the sample are copies of each other.
    """
    copies, groups = copies_and_groups(Examples(texts, labels, rows), True, None)
    counts = np.bincount(labels, minlength=len(names.names))
    if counts.min() < _FEW_SAMPLED:
        few = int((counts < _FEW_SAMPLED).sum())
        warnings.warn(
            f"{few} of {len(counts)} classes have fewer than {_FEW_SAMPLED} rows in the sample, and their "
            "labels are hardly judged: raise --sample-rows.",
            ClearWarning,
            stacklevel=2,
        )
    probe, quality = fit_probe(
        features,
        labels,
        len(names.names),
        groups=groups,
        copies=copies,
        prior_scores=_prior(features, name_features),
    )
    places: dict[bytes, int] = {}
    for place, text in enumerate(texts):
        places.setdefault(key_of(text), place)
    return Sample(rows, places, names, name_features, probe, quality)


def _prior(
    features: npt.NDArray[np.floating], names: npt.NDArray[np.float32] | None
) -> npt.NDArray[np.float32] | None:
    """Likeness of rows to the names of the classes, (N, C)."""
    return None if names is None else similarities(features[:, -1].astype(np.float32), names)


def most_suspicious(
    shards: Sequence[Shard], read: Callable[[Shard], pd.DataFrame], count: int
) -> tuple[pd.DataFrame, float, int]:
    """Go through the judgement of all rows, shard by shard.

    Args:
        shards: Of the table.
        read: Gives the judgement of a shard.
        count: K.

    Returns:
        The K rows whose labels are most surely wrong, in that order, with their position in the table in
        ``place``; the mean of 1 − p of all rows; and how many have p < ½.
    """
    best, wrong, listed = pd.DataFrame(), 0.0, 0
    for shard in shards:
        frame = read(shard)
        wrong += float((1 - frame["clean_probability"].astype(np.float64)).sum())
        listed += int(frame["is_label_issue"].sum())
        frame.insert(0, "place", shard.first + np.arange(len(frame)))
        # both are sorted by place, which decides between equals
        best = pd.concat([best, _first(frame, count)]) if len(best) else _first(frame, count)
        best = _first(best, count)
    return best.reset_index(drop=True), wrong / sum(map(len, shards)), listed


def _first(frame: pd.DataFrame, count: int) -> pd.DataFrame:
    return frame.sort_values(["clean_probability", "label_quality", "place"]).head(count)
