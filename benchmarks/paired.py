"""One method beside another, on all runs (data, noise, PEFT method, seed) that results files have of both.

Run it with `python benchmarks/paired.py "drawn by certainty" recommended results.jsonl more.jsonl`. Labels
such as `recommended, 60 epochs` are paired with those of the same ending. In points: the mean difference, the
smallest and the largest, and on how many runs it is below zero.
"""

import argparse
from pathlib import Path

from clear_peft.bench.measures import CELL, figures
from clear_peft.bench.store import read_all


def main() -> None:
    """Pair the runs, and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("before", help="label of a method")
    parser.add_argument("after", help="label of the other")
    parser.add_argument("results", nargs="+", type=Path, help="files that clear-peft bench has written")
    options = parser.parse_args()
    runs = figures(read_all(options.results))
    # label → method and ending
    runs[["label", "ending"]] = runs["method"].str.extract(r"^([^,]*)(.*)$")
    own = [*CELL, "ending", "seed"]
    before, after = (runs[runs["label"] == label].set_index(own) for label in (options.before, options.after))
    for name, column in (("accuracy", "selected"), ("macro-F1", "macro_f1")):
        # five decimals: equal figures from stores that round may differ behind them
        gain = (100 * (after[column] - before[column])).dropna().round(5)
        if gain.empty:
            parser.error(
                f"no run has both {options.before!r} and {options.after!r}: give other labels or files"
            )
        print(
            f"{name}: {gain.mean():+.1f} on {len(gain)} runs, {gain.min():+.1f} to {gain.max():+.1f}, "
            f"lower on {(gain < 0).sum()}"
        )


if __name__ == "__main__":
    main()
