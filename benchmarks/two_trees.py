"""The same training by two source trees in turn: what a change has done to time and accuracy.

    git worktree add /tmp/old 96284e8
    OMP_NUM_THREADS=1 python benchmarks/two_trees.py /tmp/old/src src

Rows of BBC News or, by --table and --test, others with the columns `text` and `label`; 40 % of the training
labels wrong; the packaged MiniLM, LoRA, `recommended`. Trees and seeds take turns, each run in a process of
its own. Seconds are those of the processor for the whole command, start and report included; the ratio is
the median of those of runs with the same seed. Accuracy is that on test rows with right labels.
"""

import argparse
import json
import os
import resource
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
import pandas as pd

from clear_peft.bench.packaged import packaged
from clear_peft.data import LabelNames
from clear_peft.noise import NoiseSpec, corrupt
from clear_peft.pipeline.packages import minilm


def run(src: str, command: list[str], output: Path) -> tuple[float, float]:
    """Seconds of the processor, and accuracy, of one training."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    done = subprocess.run(
        [sys.executable, "-c", "from clear_peft.cli import main; main()", *command, "--output", str(output)],
        env={**os.environ, "PYTHONPATH": src, "HF_HUB_OFFLINE": "1"},
        capture_output=True,
        check=False,
    )
    if done.returncode:
        sys.exit(done.stderr.decode())
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    accuracy = json.loads((output / "metrics.json").read_text())["test"]["accuracy"]
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime, accuracy


def main() -> None:
    """Measure in turns, and print."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("src", nargs=2, help="source trees: the old one, and the new one")
    parser.add_argument("--table", type=Path, help="training rows (default: BBC News)")
    parser.add_argument("--test", type=Path, help="test rows")
    parser.add_argument("--rows", type=int, default=300)
    parser.add_argument("--test-rows", type=int, default=300)
    parser.add_argument("--epochs", type=int, default=4)
    parser.add_argument("--max-length", type=int, default=128)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    options = parser.parse_args()
    old, new = (str(Path(src).resolve()) for src in options.src)
    read = pd.read_csv
    train, test = (read(options.table), read(options.test)) if options.table else packaged("bbc")
    train = train.sample(min(options.rows, len(train)), random_state=0).reset_index(drop=True)
    test = test.sample(min(options.test_rows, len(test)), random_state=0)
    names = LabelNames.fit(train["label"])
    with tempfile.TemporaryDirectory() as scratch:
        folder, ratios = Path(scratch), []
        test.to_csv(folder / "test.csv", index=False)
        for number, seed in enumerate(options.seeds):
            noisy = corrupt(names.encode(train["label"]), len(names.names), NoiseSpec("symmetric", 0.4), seed)
            labels = np.asarray(names.names, dtype=object)[noisy.labels]
            train.assign(label=labels).to_csv(folder / "train.csv", index=False)
            command = ["train", "--model", str(minilm()), "--max-length", str(options.max_length)]
            command += ["--data", str(folder / "train.csv"), "--test", str(folder / "test.csv")]
            command += ["--epochs", str(options.epochs), "--seed", str(seed)]
            found = {
                src: run(src, command, folder / f"{seed}-{src == new}")
                for src in ((old, new) if number % 2 == 0 else (new, old))
            }
            ratios.append(found[new][0] / found[old][0])
            figures = ", ".join(
                f"{name} {found[src][0]:.0f} s and {found[src][1]:.3f}"
                for name, src in (("old", old), ("new", new))
            )
            print(f"seed {seed}: {figures}; ratio {ratios[-1]:.2f}", flush=True)
        print(f"median ratio {statistics.median(ratios):.2f}")


if __name__ == "__main__":
    main()
