"""From suspicion to correction on packaged news: train, audit, correct what is ranked first, train again.

Every step is the command line in a process of its own; ``tests/test_correction.py`` takes it once,
``benchmarks/correction.py`` with several seeds.
"""

import json
import shlex
import subprocess
import sys
from dataclasses import dataclass

import numpy as np
import pandas as pd

from clear_peft.data import escape_formulas, hold_out, read_table, unescape_formulas, write_table
from clear_peft.noise import symmetric
from clear_peft.pipeline.packages import bbc_news, minilm

ROWS, NOISE_RATE, CORRECTED = 1000, 0.4, 300
# what the article is about stands in its first words; batches of 32 are too few steps for so few rows
OPTIONS = {"epochs": 5, "max_length": 16, "batch_size": 16}


@dataclass(frozen=True)
class Corrected:
    """What came out, before and after the correction.

    Attributes:
        noise_rate: Share of the 1,000 given labels that was wrong.
        wrong: Share of the rows ranked first, of which that was so.
        before: Accuracy on true test labels.
        after: The same, of the run on the corrected table.
        audits: What ``audit`` said of both runs.
        counts: What ``audit --apply`` said.
        changed: Number of labels in which the tables differ; nothing else does.
    """

    noise_rate: float
    wrong: float
    before: float
    after: float
    audits: tuple[dict, dict]
    counts: dict
    changed: int


def correct_and_train_again(folder, seed, **options) -> Corrected:
    """Give the 300 rows that ``audit`` ranks first of 1,000, 40 % of them mislabelled, their true labels.

    Args:
        folder: An empty folder.
        seed: Of the split, the noise and both runs.
        **options: Of ``clear-peft train``, in place of ``OPTIONS``.
    """
    given, true = _write_tables(folder, seed)
    run, train, fixed, listed = (folder / name for name in ("run", "train.csv", "fixed.csv", "audited.csv"))
    tables = {"model": minilm(), "data": train, "test": folder / "test.csv", "output": run}
    before = call("train", **tables, seed=seed, **(OPTIONS | options))
    audits = [call("audit", run=run, output=listed)]

    first = unescape_formulas(read_table(listed)).head(CORRECTED)
    rows = first["row"].astype(int).to_numpy()
    wrong = true[rows] != given[rows]
    decisions = pd.DataFrame(
        {
            "row": rows,
            "action": np.where(wrong, "relabel", "keep"),
            "label": np.where(wrong, true[rows], ""),
            "given_label": first["given_label"],
            "text": first["text"].str[:200],
        }
    )
    write_table(escape_formulas(decisions), folder / "corrections.csv")
    counts = call("audit", run=run, apply=folder / "corrections.csv", output=fixed)
    old, new = read_table(train), read_table(fixed)
    assert new["text"].equals(old["text"])
    assert (counts["relabelled"], counts["kept"], counts["dropped"]) == (wrong.sum(), (~wrong).sum(), 0)

    program, *words = shlex.split(counts["train"])
    assert program == "clear-peft"
    after = call(*words)
    audits.append(call("audit", run=f"{run}-corrected"))
    return Corrected(
        noise_rate=float((true != given).mean()),
        wrong=float(wrong.mean()),
        before=before["test"]["accuracy"],
        after=after["test"]["accuracy"],
        audits=tuple(audits),
        counts=counts,
        changed=int((new["label"] != old["label"]).sum()),
    )


def call(*words, **options):
    """What a command says as JSON; its options by name."""
    told = [word for name, value in options.items() for word in (f"--{name.replace('_', '-')}", value)]
    program = [sys.executable, "-c", "from clear_peft.cli import main; main()"]
    command = [*program, *map(str, [*words, *told]), "--format", "json"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    return json.loads(done.stdout)


def _write_tables(folder, seed):
    """Names of the given and the true labels of the training rows; all others are there to test on."""
    news = bbc_news()
    names, labels = np.unique(news["label"], return_inverse=True)
    test, train = hold_out(labels, ROWS / len(news), seed)
    given = names[symmetric(labels[train], len(names), NOISE_RATE, seed).labels]
    noisy = pd.DataFrame({"text": news["text"][train], "label": given})
    write_table(noisy.reset_index(drop=True), folder / "train.csv")
    write_table(news.iloc[test].reset_index(drop=True), folder / "test.csv")
    return given, names[labels[train]]
