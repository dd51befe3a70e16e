"""Plain PEFT beside `recommended`, each at the learning rate that doubtful validation labels choose.

Run it with `python benchmarks/tuned_rates.py tuned.jsonl` on what `clear-peft bench run --grid tuned` wrote.
The rate with the best accuracy on the given labels of the validation rows of seed 0 is chosen, the smaller of
two equal ones; test labels decide nothing. The first table has the mean test accuracy over the seeds that
have the chosen rates of both methods, and the paired difference with its standard error. The second has
every rate of seed 0: test accuracy, and in brackets that on the given labels of the validation rows.
"""

import argparse
from pathlib import Path

import pandas as pd

from clear_peft.bench.store import read_all

ROW = ["data", "noise"]


def main() -> None:
    """Read, choose, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("results", type=Path, help="file that clear-peft bench has written")
    runs = _runs(parser.parse_args().results)
    chosen = _chosen(runs)
    at_chosen = runs.merge(chosen, on=[*ROW, "method", "rate"])

    print("| data | noise | plain PEFT | recommended | difference | seeds | learning rates |")
    print("|---|---|---|---|---|---|---|")
    for (data, noise), cell in at_chosen.groupby(ROW, sort=False):
        pairs = cell.pivot(index="seed", columns="method", values="test").dropna()
        if pairs.shape[1] < 2:
            continue
        gain = pairs["recommended"] - pairs["plain"]
        rates = cell.groupby("method")["rate"].first()
        error = f" ± {gain.sem():.1f}" if len(gain) > 1 else ""
        print(
            f"| {data} | {noise} | {pairs['plain'].mean():.1f} | {pairs['recommended'].mean():.1f} "
            f"| {gain.mean():+.1f}{error} | {len(gain)} | {rates['plain']:g}, {rates['recommended']:g} |"
        )

    first = runs[runs["seed"] == 0]
    rates = sorted(first["rate"].unique())
    print("\n| data | noise | method | " + " | ".join(f"{rate:g}" for rate in rates) + " |")
    print("|---|---|---|" + "---|" * len(rates))
    for (data, noise, method), cell in first.groupby([*ROW, "method"], sort=False):
        by_rate = cell.set_index("rate")
        figures = (
            f"{by_rate['test'][rate]:.1f} ({by_rate['validation'][rate]:.1f})"
            if rate in by_rate.index
            else "–"
            for rate in rates
        )
        print(f"| {data} | {noise} | {method} | " + " | ".join(figures) + " |")


def _runs(path: Path) -> pd.DataFrame:
    """A row a run: data, noise, method, rate, seed, and accuracies in percent."""
    return pd.DataFrame(
        {
            "data": record["cell"]["data"],
            "noise": record["cell"]["noise"],
            "method": record["cell"]["method"].split(" at ")[0],
            "rate": record["cell"]["method_settings"]["learning_rate"],
            "seed": record["cell"]["seed"],
            "validation": 100 * record["metrics"]["validation"]["accuracy"],
            "test": 100 * record["metrics"]["test"]["accuracy"],
        }
        for record in read_all([path])
    )


def _chosen(runs: pd.DataFrame) -> pd.DataFrame:
    """The rate of each cell and method: by the given validation labels of seed 0."""
    first = runs[runs["seed"] == 0].sort_values(
        ["validation", "rate"], ascending=[False, True], kind="stable"
    )
    return first.groupby([*ROW, "method"], sort=False).first().reset_index()[[*ROW, "method", "rate"]]


if __name__ == "__main__":
    main()
