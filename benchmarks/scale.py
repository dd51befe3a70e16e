"""What an epoch's bookkeeping costs for millions of examples: smoothing, mixture, probabilities, ranking.

No training: the log-odds of the losses are drawn from two Gaussians, labels from C classes. Run it with
`python benchmarks/scale.py`. Every size is measured in a process of its own, on one core: seconds on the
clock, seconds of computing (less where the machine has other work), and the peak memory of the process,
Python and libraries included. The teacher (2·C bytes an example) is not made. The last lines compare the
binned fit with the fit to all values.
"""

import argparse
import resource
import sys
import time
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context

import numpy as np

from clear_peft.cleanliness import (
    BetaMixtureCleanliness,
    GaussianMixtureCleanliness,
    mixture,
    rank_label_issues,
    smooth,
)

ESTIMATORS = {
    "gaussian": GaussianMixtureCleanliness(),
    "beta": BetaMixtureCleanliness(),
    "paper": GaussianMixtureCleanliness(scale="loss", monotone=False),
}
_PART = 1 << 20


def losses_of(size: int, seed: int = 0, noise: float = 0.3) -> np.ndarray:
    """Cross entropies (N,) float32 whose log-odds are a mixture of two Gaussians."""
    rng = np.random.default_rng(seed)
    losses = np.empty(size, np.float32)
    for start in range(0, size, _PART):  # the simulation itself must not be what takes the memory
        part = losses[start : start + _PART]
        wrong = rng.random(len(part)) < noise
        scores = rng.normal(np.where(wrong, 2.3, -2.5), np.where(wrong, 0.9, 1.1))
        part[:] = np.logaddexp(0, scores)
    return losses


def measure(size: int, classes: int, estimator: str) -> dict[str, float]:
    """Seconds of every step, and the peak memory of this process in MB."""
    before, now = losses_of(size, seed=0), losses_of(size, seed=0)
    given = np.random.default_rng(2).integers(0, classes, size)
    seconds: dict[str, float] = {}
    clock, computing = time.perf_counter(), time.process_time()

    def lap(name: str) -> None:
        seconds[name] = time.process_time() - computing - sum(seconds.values())

    losses = smooth(before, now, 0.9)
    lap("smooth")
    del before, now
    estimate = ESTIMATORS[estimator].estimate(losses, given)
    lap("estimate")
    names = [f"class {i}" for i in range(classes)]
    issues = rank_label_issues(estimate.clean_probability, losses, given=given, predicted=given, names=names)
    lap("rank")
    assert len(issues) == size
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (1 if sys.platform == "darwin" else 1024)
    clock = time.perf_counter() - clock
    return {**seconds, "clock": clock, "computing": sum(seconds.values()), "peak": peak}


def difference(size: int, estimator: str) -> tuple[float, float]:
    """Largest and mean |p of the binned fit − p of the fit to all values|."""
    losses = losses_of(size, seed=3)
    binned = ESTIMATORS[estimator].estimate(losses)
    most, mixture._MOST_VALUES = mixture._MOST_VALUES, size
    try:
        exact = ESTIMATORS[estimator].estimate(losses)
    finally:
        mixture._MOST_VALUES = most
    gap = np.abs(binned.clean_probability - exact.clean_probability)
    return float(gap.max()), float(gap.mean())


def _alone(function, *arguments):
    """Call in a new process, whose peak memory is then that of the call."""
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
        return pool.submit(function, *arguments).result()


def main() -> None:
    """Print one line a size, the bytes of state an example, and the error of the bins."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--sizes", type=float, nargs="+", default=[1e5, 1e6, 1e7])
    parser.add_argument("--classes", type=int, default=77)
    parser.add_argument("--estimators", nargs="+", choices=ESTIMATORS, default=["gaussian"])
    parser.add_argument("--compare", type=float, default=1e6, help="examples of the comparison")
    options = parser.parse_args()
    for estimator in options.estimators:
        for size in map(int, options.sizes):
            found = _alone(measure, size, options.classes, estimator)
            steps = ", ".join(f"{name} {found[name]:.2f}" for name in ("smooth", "estimate", "rank"))
            each = 1e6 * found["computing"] / size
            print(
                f"{estimator}: {size:.0e} examples: {found['clock']:.2f} s, {found['computing']:.2f} used "
                f"({steps}), {each:.2f} µs each, peak {found['peak']:.0f} MB",
                flush=True,
            )
        largest, mean = _alone(difference, int(options.compare), estimator)
        print(
            f"{estimator}: binned fit against all {options.compare:.0e} values: p differs by at most "
            f"{largest:.1e}, by {mean:.1e} on average",
            flush=True,
        )
    classes = options.classes
    print(
        f"state: 8 bytes an example (loss and p, float32) and {2 * classes} for the teacher's {classes} "
        f"logits, float16; the 8 largest, with int16 classes, would take 32: {2 * classes / 32:.1f} × less"
    )


if __name__ == "__main__":
    main()
