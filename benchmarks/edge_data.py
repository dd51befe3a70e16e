"""Clean routing and plain PEFT on data at the edge of what makes sense: is it ever worse?

Run it with `python benchmarks/edge_data.py --seeds 8` (a tiny random model; minutes on one core). The tables
are those of tests/pipeline/test_edge_data.py; each seed draws a table and trains both methods on it; accuracy
is that on 150 other rows with true labels. Exits 1 where the 95 % interval of the paired difference (of
Student's t) lies below nought.
"""

import argparse
import json
import logging
import sys
import tempfile
import warnings
from pathlib import Path

import numpy as np
import torch
from scipy import stats

TESTS = Path(__file__).parents[1] / "tests"
sys.path[:0] = [str(TESTS), str(TESTS / "pipeline")]

from test_edge_data import TABLES  # noqa: E402

from clear_peft.pipeline import train  # noqa: E402
from clear_peft.run_folder import RunConfig  # noqa: E402
from tiny_text import keyword_table, tiny_checkpoint  # noqa: E402

METHODS = ("plain", "clear")


def accuracies(kind: str, seed: int, folder: Path, epochs: int) -> list[float]:
    """Test accuracy of both methods on one table."""
    table = TABLES[kind](seed)
    test = keyword_table(150, seed=10_000 + seed) if table["text"].nunique() > 1 else table
    if kind == "no known word":
        test = test.assign(text=[f"yy{i}" for i in range(len(test))])
    test = test[test["clean_label"].isin(table["label"])]
    table.drop(columns="clean_label").to_csv(folder / "train.csv", index=False)
    test.assign(label=test["clean_label"]).to_csv(folder / "test.csv", index=False)
    found = []
    for method in METHODS:
        config = RunConfig(
            model=str(folder / "model"),
            data=str(folder / "train.csv"),
            test=str(folder / "test.csv"),
            output=str(folder / f"{kind}-{seed}-{method}"),
            method=method,
            epochs=epochs,
            batch_size=8,
            max_length=16,
            learning_rate=0.01,
            seed=seed,
        )
        found.append(train(config)["test"]["accuracy"])
    return found


def difference(pairs: np.ndarray) -> tuple[float, float]:
    """Mean of the paired differences, second less first, and half its 95 % interval. pairs: (S, 2)."""
    differences = pairs[:, 1] - pairs[:, 0]
    half = stats.t.ppf(0.975, len(pairs) - 1) * differences.std(ddof=1) / np.sqrt(len(pairs))
    return float(differences.mean()), float(half)


def main() -> None:
    """Train, compare and print a table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, default=8)
    parser.add_argument("--epochs", type=int, default=8)
    parser.add_argument("--tables", nargs="+", choices=TABLES, default=list(TABLES))
    options = parser.parse_args()
    warnings.simplefilter("ignore")
    logging.disable(logging.WARNING)
    torch.set_num_threads(1)
    worse = []
    print(f"{'table':42} plain  clear  difference, points", flush=True)
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        tiny_checkpoint(folder / "model")
        for kind in options.tables:
            pairs = np.array([accuracies(kind, s, folder, options.epochs) for s in range(options.seeds)])
            mean, half = difference(100 * pairs)
            plain, clear = 100 * pairs.mean(axis=0)
            print(f"{kind:42} {plain:5.1f}  {clear:5.1f}  {mean:+5.1f} ± {half:.1f}", flush=True)
            print("   ", json.dumps(pairs.round(3).tolist()), file=sys.stderr, flush=True)
            worse += [kind] if mean + half < 0 else []
    print("clean routing is worse on:" if worse else "clean routing is nowhere worse", ", ".join(worse))
    sys.exit(bool(worse))


if __name__ == "__main__":
    main()
