"""How long a person waits between two batches of ``clear-peft review``.

    python benchmarks/review_round.py [--rows 10000] [--classes 10] [--rounds 3]

A table of made-up texts with embeddings of three representations of 384 numbers, as MiniLM's; 30 % of the
labels are wrong. Each round answers 30 rows rightly, and times what follows: all rows are judged anew, the
next batch is drawn, and the list is written. Prints a line of Markdown a round.
"""

import argparse
import os
import tempfile
import time
from pathlib import Path

import numpy as np
import pandas as pd

from clear_peft.pipeline.progress import Silent
from clear_peft.pipeline.scan_options import ScanOptions
from clear_peft.review import Review

VIEWS, WIDTH, BATCH = 3, 384, 30
WORDS = ("order", "refund", "parcel", "late", "login", "broken", "invoice", "thanks", "where", "password")


def main():
    """Time some rounds."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rows", type=int, default=10_000)
    parser.add_argument("--classes", type=int, default=10)
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    print(f"{options.rows} rows, {options.classes} classes, {os.cpu_count()} logical CPUs\n")
    print("| answers | seconds |")
    print("|---|---|")
    with tempfile.TemporaryDirectory() as folder:
        true, names = _write(Path(folder), options.rows, options.classes)
        review = Review(
            ScanOptions(
                data=str(Path(folder) / "table.csv"),
                embeddings=str(Path(folder) / "features.npy"),
                output=str(Path(folder) / "scan"),
            ),
            Silent(),
            batch_size=BATCH,
        )
        print(f"| 0, with reading and the first fit | {review.summary['seconds']:.1f} |", flush=True)
        for done in range(options.rounds):
            for one in review.state()["batch"]:
                review.answer(one["row"], "relabel", names[true[one["row"]]])
            started = time.perf_counter()
            review.judge()
            print(f"| {BATCH * (done + 1)} | {time.perf_counter() - started:.1f} |", flush=True)


def _write(folder, rows, classes):
    """The table and its embeddings; returns true classes, (N,), and the names of the classes."""
    rng = np.random.default_rng(0)
    true, centres = rng.integers(classes, size=rows), rng.normal(size=(classes, 1, WIDTH)) * 0.12
    features = rng.normal(size=(rows, VIEWS, WIDTH)) + centres[true]
    names = [f"team {i}" for i in range(classes)]
    given = np.where(rng.random(rows) < 0.3, (true + 1) % classes, true)
    texts = [" ".join([*rng.choice(WORDS, 12), str(row)]) for row in range(rows)]
    frame = pd.DataFrame({"text": texts, "label": [names[i] for i in given]})
    frame.to_csv(folder / "table.csv", index=False)
    np.save(folder / "features.npy", features.astype(np.float32))
    return true, names


if __name__ == "__main__":
    main()
