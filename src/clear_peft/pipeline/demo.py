"""The demonstration: packaged model and news, wrong labels put in, clean routing beside plain PEFT."""

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from clear_peft.data import LabelNames, hold_out, write_table
from clear_peft.errors import InputError
from clear_peft.noise import symmetric
from clear_peft.pipeline.packages import bbc_news, minilm
from clear_peft.pipeline.progress import Reporter
from clear_peft.pipeline.training import train
from clear_peft.run_folder.config import RunConfig
from clear_peft.run_folder.layout import check

_NOISE_RATE = 0.4
_TEST_FRACTION = 0.4
_SEED = 0


def run_demo(output: Path, *, overwrite: bool, reporter: Reporter) -> dict[str, dict[str, Any]]:
    """Train by clean routing and plainly on BBC News with 40 % wrong labels (symmetric, exclusive).

    Args:
        output: Folder for ``data/``, ``clear/`` and ``plain/``.
        overwrite: Whether an earlier demonstration there may be replaced.
        reporter: Told of the progress.

    Returns:
        The metrics of both runs, by method.

    Raises:
        InputError: If the packages of the extra ``demo`` are missing, or the output must not be written.
    """
    model, news = minilm(), bbc_news()
    configs = {method: _config(model, output, method) for method in ("clear", "plain")}
    for config in configs.values():
        check(config, resume=False, overwrite=overwrite)
    if (output / "data").exists() and not overwrite:
        raise InputError(f"{output / 'data'} is there already: give another --output, or --overwrite.")
    reporter.stage(f"Putting {_NOISE_RATE:.0%} wrong labels into BBC News")
    _write_data(news, output / "data")
    found = {}
    for method, config in configs.items():
        metrics = train(config, overwrite=overwrite, reporter=reporter)
        assert metrics is not None  # of the only process
        found[method] = metrics
    return found


def _config(model: Path, output: Path, method: str) -> RunConfig:
    data = output / "data"
    return RunConfig(
        model=str(model),
        data=str(data / "train.csv"),
        test=str(data / "test.csv"),
        clean_label_column="clean_label",
        output=str(output / method),
        method=method,
        epochs=8,
        max_length=64,
        seed=_SEED,
    )


def _write_data(frame: pd.DataFrame, folder: Path) -> None:
    names = LabelNames.fit(frame["label"])
    labels = names.encode(frame["label"])
    train_rows, test_rows = hold_out(labels, _TEST_FRACTION, _SEED)
    given = symmetric(labels[train_rows], len(names.names), _NOISE_RATE, _SEED).labels
    noisy = frame.iloc[train_rows].assign(
        label=np.asarray(names.names)[given], clean_label=frame["label"].iloc[train_rows]
    )
    folder.mkdir(parents=True, exist_ok=True)
    write_table(noisy.reset_index(drop=True), folder / "train.csv")
    write_table(frame.iloc[test_rows].reset_index(drop=True), folder / "test.csv")
