"""The interval of the noise rate by a random sample of verified rows: how often it covers, how wide it is.

    OMP_NUM_THREADS=1 python benchmarks/sampled_rate.py

Tables of 3,000 rows with wrong labels of a known rate and p of some quality, of which k random rows are
verified; 500 simulations of each. Beside it: the interval of Clopper and Pearson, which knows no p. Prints
coverage and mean width for each cell, and the least coverage of all.
"""

import argparse

import numpy as np
from scipy.special import expit
from scipy.stats import beta

from clear_peft.label_quality import noise_rate_from_sample

_ROWS = 3000
_RATES = (0.0, 0.02, 0.1, 0.3, 0.5, 0.8)
_SIZES = (10, 20, 30, 50, 100, 300)
# mean of the log odds of p by which right and wrong labels differ, and their slope
_JUDGES = {"useless": (0.0, 1.0), "fair": (1.4, 1.0), "good": (4.0, 1.0), "overconfident": (1.5, 5.0)}


def main() -> None:
    """Simulate, print."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--simulations", type=int, default=500)
    options = parser.parse_args()
    print("| p | wrong | k | covered | width | Clopper and Pearson: covered | width |")
    print("|---|---|---|---|---|---|---|")
    least = 1.0
    for name, (gap, slope) in _JUDGES.items():
        for rate in _RATES:
            for k in _SIZES:
                cell = simulated(rate, k, gap, slope, options.simulations)
                least = min(least, cell[0])
                covered, width, plain, plain_width = cell
                print(
                    f"| {name} | {rate:.0%} | {k} | {covered:.1%} | {width:.3f} | {plain:.1%} "
                    f"| {plain_width:.3f} |",
                    flush=True,
                )
    print(f"\nleast coverage: {least:.1%}")


def simulated(rate: float, k: int, gap: float, slope: float, simulations: int) -> tuple[float, ...]:
    """Coverage and mean width of ours and of Clopper and Pearson's."""
    rng = np.random.default_rng(0)
    found = []
    for _ in range(simulations):
        wrong = rng.random(_ROWS) < rate
        p = expit(slope * (rng.normal(size=_ROWS) + np.where(wrong, -gap / 2, gap / 2)))
        some = rng.choice(_ROWS, k, replace=False)
        verified = np.full(_ROWS, -1)
        verified[some] = wrong[some]
        _, (low, high) = noise_rate_from_sample(p, verified, np.zeros(_ROWS, int), verified >= 0)
        true, seen = wrong.mean(), int(wrong[some].sum())
        least = beta.ppf(0.025, seen, k - seen + 1) if seen else 0.0
        most = beta.ppf(0.975, seen + 1, k - seen) if seen < k else 1.0
        found.append((low <= true <= high, high - low, least <= true <= most, most - least))
    return tuple(np.mean(found, axis=0).tolist())


if __name__ == "__main__":
    main()
