"""One cell of a benchmark: data, noise, training, a record."""

import hashlib
import os
import platform
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from clear_peft.bench.grid import GIVEN_LABELS, TRUE_LABELS, TRUE_NOISE_RATE, Cell, with_noise_rate
from clear_peft.bench.packaged import packaged
from clear_peft.data import LabelNames, hold_out, load_examples, write_table
from clear_peft.errors import InputError
from clear_peft.noise import Corruption, NoiseSpec, corrupt
from clear_peft.pipeline.packages import minilm
from clear_peft.run_folder.config import RunConfig

# the same rows for every cell, whatever its seed
_SUBSET_SEED = 0
# a class with fewer rows may lose all of them to the noise, and then nothing can be trained or tested on it
_FEWEST_ROWS = 5
_FEWEST_GIVEN = 2
# of each epoch; they are for the page of a run, and would be more than half of a store
_LEFT_OUT = ("step_losses", "gate_rates")


@dataclass(frozen=True, eq=False)
class Tables:
    """The rows of a cell, before noise.

    Attributes:
        train: ``text``, ``label`` (as given) and ``clean_label`` (true where known, else as given).
        test: ``text`` and ``label``.
        truth_known: Whether ``clean_label`` comes from the data.
    """

    train: pd.DataFrame
    test: pd.DataFrame
    truth_known: bool


def run_cell(cell: Cell, folder: Path, data_dir: Path) -> dict[str, Any]:
    """Run one cell.

    Args:
        cell: What to run.
        folder: Existing empty folder for the tables and the run.
        data_dir: Where relative paths of data are looked up.

    Returns:
        The record: key, cell, noise, metrics (as in ``metrics.json``, without the losses of the steps and
        the rates of the gates), environment (``tables`` in it: see :func:`digests`).

    Raises:
        InputError: If the data or the settings are not what they should be.
    """
    from clear_peft.pipeline import train

    model = str(minilm()) if cell.model == "package:minilm" else cell.model
    made_of = digests(cell.data_source, data_dir)
    tables = load_tables(cell.data_source, data_dir)
    given, noise = noisy_labels(cell, tables, model)
    train_table = tables.train.assign(label=given)
    verified_column = None
    if count := cell.data_source.get("verified_rows"):
        train_table["verified"] = _verified(tables, count, cell)
        verified_column = "verified"
    write_table(train_table, folder / "train.csv")
    write_table(tables.test, folder / "test.csv")
    settings = {**cell.train, **cell.method_settings}
    if noise["rate"] is not None:
        settings = with_noise_rate(settings, noise["rate"])
    elif settings != with_noise_rate(settings, 0.0):
        raise InputError(
            f"The method {cell.method} is told the {TRUE_NOISE_RATE}, but that of {cell.data} is not known: "
            "give the data a clean_label_column."
        )
    metrics = train(
        RunConfig(
            model=model,
            data=str(folder / "train.csv"),
            test=str(folder / "test.csv"),
            clean_label_column="clean_label",
            output=str(folder / "run"),
            peft=cell.peft,
            seed=cell.seed,
            test_every_epoch=True,
            verified_column=verified_column,
            **settings,
        )
    )
    versions = metrics.pop("versions")
    for epoch in metrics["epochs"]:
        for picture in _LEFT_OUT:
            epoch.pop(picture, None)
    return {
        "key": cell.key,
        "cell": asdict(cell),
        "noise": noise,
        "metrics": metrics,
        "environment": {**_environment(versions), "tables": made_of},
    }


def load_tables(source: Mapping[str, Any], data_dir: Path) -> Tables:
    """Read a data set of a grid and take its subsets, stratified by the true label.

    Where the source has no test table, the training rows that are left over are tested on: what is chosen
    by them is not chosen by the test labels.

    Classes with fewer than five rows in the training subset are left out of both tables.

    Args:
        source: Its entry in the grid.
        data_dir: Where relative paths are looked up.

    Raises:
        InputError: If the tables are not there, or not what they should be.
    """
    truth = source.get("clean_label_column")
    test = None
    if "package" in source:
        train, test = packaged(source["package"])
        train["clean_label"] = train["label"]
    else:
        columns = {f"{role}_column": source.get(f"{role}_column", role) for role in ("text", "label")}
        train = _frame(locate(source["train"], data_dir), clean_label_column=truth, **columns)
        if "test" in source:
            test = _frame(locate(source["test"], data_dir), **columns).drop(columns="clean_label")
    everything = train
    train = _subset(everything, "clean_label", source.get("train_rows"))
    if test is None:
        left_over = everything[~everything["text"].isin(train["text"])]
        test = pd.DataFrame({"text": left_over["text"], "label": left_over["clean_label"]})
        if test.empty:
            raise InputError(f"{source['train']} has no rows left over to test on: lower train_rows.")
    counts = train["clean_label"].value_counts()
    classes = counts.index[counts >= _FEWEST_ROWS]
    train = train[train["clean_label"].isin(classes) & train["label"].isin(classes)]
    test = _subset(test[test["label"].isin(classes)], "label", source.get("test_rows"))
    return Tables(train.reset_index(drop=True), test.reset_index(drop=True), truth is not None)


def locate(name: str, data_dir: Path) -> str:
    """The file of that name in the data folder; where there is none, the name itself: one of the hub."""
    path = data_dir / name
    return str(path) if path.exists() else name


def digests(source: Mapping[str, Any], data_dir: Path) -> dict[str, str]:
    """SHA-256, in 16 hex digits, of a data set's local tables, ``train`` and ``test``.

    Args:
        source: Its entry in the grid.
        data_dir: Where relative paths are looked up.
    """
    files = {part: Path(locate(source[part], data_dir)) for part in ("train", "test") if part in source}
    return {
        part: hashlib.sha256(file.read_bytes()).hexdigest()[:16]
        for part, file in files.items()
        if file.is_file()
    }


def _frame(source: str, **columns: Any) -> pd.DataFrame:
    table = load_examples(source, **columns)
    examples, names = table.examples, table.names
    assert names is not None  # a label column was asked for
    known = np.asarray(names.names, dtype=object)
    true = examples.labels if examples.clean_labels is None else examples.clean_labels
    return pd.DataFrame({"text": examples.texts, "label": known[examples.labels], "clean_label": known[true]})


def _subset(frame: pd.DataFrame, column: str, rows: int | None) -> pd.DataFrame:
    if rows is None or rows >= len(frame):
        return frame
    # what is kept for training has every class in it
    kept, _ = hold_out(frame[column].to_numpy(), 1 - rows / len(frame), _SUBSET_SEED)
    return frame.iloc[kept]


def noisy_labels(cell: Cell, tables: Tables, model: str) -> tuple[np.ndarray, dict[str, Any]]:
    """Draw the given labels of a cell.

    Args:
        cell: With its noise and seed.
        tables: Its rows.
        model: Hub name or path of the model whose embedding is the feature of instance-dependent noise.

    Returns:
        Names of the given labels, (N,), and what was realised: ``rate`` (None where the truth is not known),
        ``rows``, ``test_rows`` and ``classes``.
    """
    names = LabelNames.fit(tables.train["clean_label"])
    true, given = (names.encode(tables.train[column]) for column in ("clean_label", "label"))
    counts = {"rows": len(true), "test_rows": len(tables.test), "classes": len(names.names)}
    if cell.noise == TRUE_LABELS:
        made = Corruption.between(true, true, len(names.names))
    elif cell.noise == GIVEN_LABELS:
        made = Corruption.between(true, given, len(names.names))
    else:
        spec = NoiseSpec(**cell.noise_spec)
        features = None
        if spec.needs_features:
            from clear_peft.pipeline.frozen_encoder import embed

            features = embed(tables.train["text"].tolist(), model)
        drawn = corrupt(true, len(names.names), spec, cell.seed, features=features).labels
        made = Corruption.between(true, _every_class_given(drawn, true), len(names.names))
    known = tables.truth_known or cell.noise != GIVEN_LABELS
    rate = made.rate if known else None
    return np.asarray(names.names, dtype=object)[made.labels], {"rate": rate, **counts}


def _verified(tables: Tables, count: int, cell: Cell) -> pd.Series:
    """True labels of ``count`` random rows, and empty cells elsewhere: what a person would have said."""
    if not tables.truth_known and cell.noise == GIVEN_LABELS:
        raise InputError(
            f"The true labels of {cell.data} are not known, so none of its rows can be verified: give the "
            "data a clean_label_column, or leave out verified_rows."
        )
    if count > len(tables.train):
        raise InputError(
            f"{cell.data} has {len(tables.train)} training rows, and {count} are to be verified: lower "
            "verified_rows."
        )
    shown = np.random.default_rng(cell.seed).permutation(len(tables.train))[:count]
    return tables.train["clean_label"].where(tables.train.index.isin(shown), "")


def _every_class_given(labels: np.ndarray, true: np.ndarray) -> np.ndarray:
    """The same, but every class has two rows, as training needs: one that lost more gets its own back."""
    labels, classes = labels.copy(), true.max() + 1
    while (counts := np.bincount(labels, minlength=classes)).min() < _FEWEST_GIVEN:
        rarest = counts.argmin()
        lost = np.flatnonzero((true == rarest) & (labels != rarest))
        labels[lost[counts[labels[lost]].argmax()]] = rarest
    return labels


def _environment(versions: dict[str, str]) -> dict[str, Any]:
    import torch

    from clear_peft.hardware import bf16_pays, choose_device

    return {
        "processor": _processor(),
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "bf16": bf16_pays(choose_device()),
        "gpu": torch.cuda.get_device_name() if torch.cuda.is_available() else None,
        "versions": versions,
        "date": datetime.now(UTC).date().isoformat(),
    }


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return platform.processor()
    return next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), "")
