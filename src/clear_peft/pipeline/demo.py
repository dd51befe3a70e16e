"""The demo: packaged news and a packaged model, wrong labels put in; a scan, plain PEFT and clean routing."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from clear_peft.data import LabelNames, hold_out, read_table, write_table
from clear_peft.errors import InputError
from clear_peft.noise import pair_flip
from clear_peft.pipeline.commands import train
from clear_peft.pipeline.packages import bbc_news, minilm
from clear_peft.pipeline.scan import ScanResult, scan
from clear_peft.pipeline.scan_options import ScanOptions, check_folder
from clear_peft.run_folder import layout
from clear_peft.run_folder.config import RunConfig

if TYPE_CHECKING:
    from clear_peft.pipeline.progress import Reporter

METHODS = ("plain", "clear")
NOISE_RATE = 0.4
EPOCHS = 5
MAX_LENGTH = 32
_TEST_FRACTION = 0.4
_SEED = 0


def prepare(output: Path, *, overwrite: bool, reporter: "Reporter") -> None:
    """Write the tables: BBC News, where a training row has the next topic's label with a probability of 40 %.

    Args:
        output: Folder for ``data/``, ``scan/``, ``plain/`` and ``clear/``.
        overwrite: Whether an earlier demo there may be replaced.
        reporter: Told of the progress.

    Raises:
        InputError: If the packages of the extra ``demo`` are missing, or the output must not be written.
    """
    news, data = bbc_news(), output / "data"
    for method in METHODS:
        layout.check(_run(output, method), resume=False, overwrite=overwrite)
    check_folder(output / "scan", _scan(output, overwrite=overwrite))
    if data.exists() and not overwrite:
        raise InputError(f"{data} is there already: give another --output, or --overwrite.")
    reporter.stage(f"Putting {NOISE_RATE:.0%} wrong labels into BBC News")
    _write_data(news, data)


def scan_demo(output: Path, *, overwrite: bool, reporter: "Reporter") -> tuple[ScanResult, dict[str, int]]:
    """Scan the training table, and compare with the true labels.

    Args:
        output: As in :func:`prepare`, which has been called.
        overwrite: Whether an earlier scan may be replaced.
        reporter: Told of the progress.

    Returns:
        The scan, and how many rows are ``listed``, how many labels are ``wrong``, and how many of these are
        ``found``, that is, listed.
    """
    done = scan(_scan(output, overwrite=overwrite), reporter)
    assert isinstance(done, ScanResult)  # an article has one topic
    table = read_table(output / "data" / "train.csv")
    wrong = (table["label"] != table["clean_label"]).to_numpy()
    listed = done.quality.is_label_issue
    counts = {"listed": listed.sum(), "wrong": wrong.sum(), "found": (listed & wrong).sum()}
    return done, {name: int(count) for name, count in counts.items()}


def train_demo(output: Path, method: str, *, overwrite: bool, reporter: "Reporter") -> dict[str, Any]:
    """Train on the same table, and measure on test rows with true labels.

    Args:
        output: As in :func:`prepare`, which has been called.
        method: One of ``METHODS``.
        overwrite: Whether an earlier run may be replaced.
        reporter: Told of the progress.

    Returns:
        What ``metrics.json`` holds.
    """
    metrics = train(_run(output, method), overwrite=overwrite, reporter=reporter)
    assert metrics is not None  # of the only process
    return metrics


def _scan(output: Path, *, overwrite: bool) -> ScanOptions:
    data = str(output / "data" / "train.csv")
    return ScanOptions(data=data, model=str(minilm()), output=str(output / "scan"), overwrite=overwrite)


def _run(output: Path, method: str) -> RunConfig:
    return RunConfig(
        model=str(minilm()),
        data=str(output / "data" / "train.csv"),
        test=str(output / "data" / "test.csv"),
        clean_label_column="clean_label",
        output=str(output / method),
        method=method,
        epochs=EPOCHS,
        max_length=MAX_LENGTH,
        seed=_SEED,
    )


def _write_data(frame: pd.DataFrame, folder: Path) -> None:
    names = LabelNames.fit(frame["label"])
    labels = names.encode(frame["label"])
    train_rows, test_rows = hold_out(labels, _TEST_FRACTION, _SEED)
    given = pair_flip(labels[train_rows], len(names.names), NOISE_RATE, _SEED).labels
    noisy = frame.iloc[train_rows].assign(
        label=np.asarray(names.names)[given], clean_label=frame["label"].iloc[train_rows]
    )
    folder.mkdir(parents=True, exist_ok=True)
    write_table(noisy.reset_index(drop=True), folder / "train.csv")
    write_table(frame.iloc[test_rows].reset_index(drop=True), folder / "test.csv")
