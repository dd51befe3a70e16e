"""What label quality costs for millions of examples: an epoch's bookkeeping, the teacher, the probe.

    OMP_NUM_THREADS=1 python benchmarks/scale.py
    python benchmarks/scale.py --parts probe --share 0.02 --profile

No training. Every size is measured in a process of its own: seconds, and the peak memory of the process,
Python and libraries included.

Bookkeeping: smoothing, mixture and ranking of losses whose log-odds are drawn from two Gaussians; the fit to
bins is compared with the fit to all values. Teacher: predictions for 1,000 classes are remembered and read
again, batch by batch, as training does. Probe: ``fit_probe`` on 1,000,000 rows of 1,000 classes with 768
features, and on 10,000,000 rows of 20 classes with 384. Their features are drawn around a centre for each
class when they are asked for, so they take no memory; drawing is timed apart. Prints the minutes, the memory
that the process grew by and its peak, and how near the estimate came.
"""

import argparse
import cProfile
import pstats
import resource
import sys
import time
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from typing import Any

import numpy as np

from clear_peft.label_quality import (
    GaussianLossMixture,
    fit_probe,
    gaussian_mixture,
    rank_label_issues,
    smooth,
)

ESTIMATORS = {
    "gaussian": GaussianLossMixture(),
    "paper": GaussianLossMixture(scale="loss", monotone=False),
}
_PART = 1 << 20
_TEACHER_BATCH = 1024
# rows, classes, features
PROBED = ((1e6, 1000, 768), (1e7, 20, 384))
_NOISE = 0.3
_SPREAD = 4.0
_TABLES = (8191, 4093)
_HOT_SPOTS = 25


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
    clock = time.perf_counter() - clock
    return {**seconds, "clock": clock, "computing": sum(seconds.values()), "peak": _peak()}


def teach(size: int, classes: int) -> dict[str, float]:
    """Seconds to keep predictions and to read them, memory, and how far they are from what was given."""
    import torch

    from clear_peft.label_quality import TopProbs
    from clear_peft.trainer.top_logits import TopLogits

    torch.set_num_threads(1)
    generator = torch.Generator().manual_seed(0)
    batch = 3 * torch.randn(
        _TEACHER_BATCH, classes, generator=generator
    )  # the same for all: only time counts
    started = _peak()
    exact = torch.softmax(batch, dim=1)
    before = time.process_time()
    parts = [
        TopProbs.of(exact[: min(_TEACHER_BATCH, size - start)].numpy())
        for start in range(0, size, _TEACHER_BATCH)
    ]
    kept = TopLogits(TopProbs.concatenate(parts), torch.device("cpu"))
    lapses = {"put": time.process_time() - before, "read": 0.0}
    for start in range(0, size, _TEACHER_BATCH):
        ids = torch.arange(start, min(start + _TEACHER_BATCH, size))
        before = time.process_time()
        ours = kept.probs(ids)
        lapses["read"] += time.process_time() - before
    apart = (exact[: len(ours)] - ours).abs().sum(dim=1) / 2
    return {**lapses, "bytes": kept.bytes_per_row, "grown": _peak() - started, "apart": float(apart.max())}


class DrawnFeatures:
    """Rows around a centre for each class, drawn when they are asked for: they take next to no memory.

    What is around the centres is the sum of two tables whose lengths have no common divisor, so that no row
    comes twice among the first thirty million.
    """

    def __init__(self, true: np.ndarray, classes: int, dimensions: int, noise: float) -> None:
        rng = np.random.default_rng(1)
        self.shape = (len(true), dimensions)
        self.seconds = 0.0
        self.true = true
        self.centres = rng.standard_normal((classes, dimensions), np.float32)
        self.around = [
            noise / np.sqrt(2) * rng.standard_normal((length, dimensions), np.float32) for length in _TABLES
        ]

    def __getitem__(self, rows: slice | np.ndarray) -> np.ndarray:
        """Rows by slice or by position; the time is kept apart."""
        before = time.process_time()
        places = np.arange(*rows.indices(len(self.true))) if isinstance(rows, slice) else np.asarray(rows)
        drawn = self.centres[self.true[places]]
        for table in self.around:
            drawn += table[places % len(table)]
        self.seconds += time.process_time() - before
        return drawn


def judge(size: int, classes: int, dimensions: int, noise: float, profiled: bool) -> dict[str, Any]:
    """Seconds that ``fit_probe`` takes for so many rows, and the peak memory."""
    rng = np.random.default_rng(0)
    true = rng.integers(0, classes, size, np.int32)
    labels = np.where(rng.random(size) < noise, rng.integers(0, classes, size, np.int32), true)
    features = DrawnFeatures(true, classes, dimensions, _SPREAD)
    profile = cProfile.Profile()
    started, clock, computing = _peak(), time.perf_counter(), time.process_time()
    if profiled:
        profile.enable()
    _, quality = fit_probe(features, labels, classes)
    profile.disable()
    used = time.process_time() - computing - features.seconds
    if profiled:
        pstats.Stats(profile).sort_stats("tottime").print_stats(_HOT_SPOTS)
    wrong = labels != true
    return {
        "clock": time.perf_counter() - clock,
        "computing": used,
        "drawing": features.seconds,
        "grown": _peak() - started,
        "peak": _peak(),
        "wrong": float(wrong.mean()),
        "found": quality.noise_rate,
        "interval": quality.noise_rate_interval,
        "right": float((quality.is_label_issue == wrong).mean()),
    }


def _peak() -> float:
    """Most memory of this process so far, MB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (
        1 << 20 if sys.platform == "darwin" else 1024
    )


def difference(size: int, estimator: str) -> tuple[float, float]:
    """Largest and mean |p of the binned fit − p of the fit to all values|."""
    losses = losses_of(size, seed=3)
    binned = ESTIMATORS[estimator].estimate(losses)
    most, gaussian_mixture._MOST_VALUES = gaussian_mixture._MOST_VALUES, size
    try:
        exact = ESTIMATORS[estimator].estimate(losses)
    finally:
        gaussian_mixture._MOST_VALUES = most
    gap = np.abs(binned.clean_probability - exact.clean_probability)
    return float(gap.max()), float(gap.mean())


def _alone(function, *arguments):
    """Call in a new process, whose peak memory is then that of the call."""
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
        return pool.submit(function, *arguments).result()


def main() -> None:
    """Run the parts that are asked for, each size in a process of its own."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=list(PARTS))
    parser.add_argument("--sizes", type=float, nargs="+", default=[1e5, 1e6, 1e7])
    parser.add_argument("--classes", type=int, default=77)
    parser.add_argument("--estimators", nargs="+", choices=ESTIMATORS, default=["gaussian"])
    parser.add_argument("--compare", type=float, default=1e6, help="examples of the comparison")
    parser.add_argument("--teacher", type=float, default=1e6, help="examples of the teacher")
    parser.add_argument("--teacher-classes", type=int, default=1000)
    parser.add_argument(
        "--probe",
        type=float,
        nargs=3,
        action="append",
        metavar=("ROWS", "CLASSES", "FEATURES"),
        help="a size of the probe; may be given several times",
    )
    parser.add_argument(
        "--share", type=float, default=1.0, help="of the probe's rows, such as .02 to profile"
    )
    parser.add_argument("--profile", action="store_true", help="print where the probe's time goes")
    options = parser.parse_args()
    for part in options.parts:
        PARTS[part](options)


def print_bookkeeping(options: argparse.Namespace) -> None:
    """A line for each size, and the error of the bins."""
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


def print_teacher(options: argparse.Namespace) -> None:
    """One line."""
    size, classes = int(options.teacher), options.teacher_classes
    found = _alone(teach, size, classes)
    print(
        f"teacher: {size:.0e} examples, {classes} classes: {found['bytes']:.0f} bytes each ({2 * classes} "
        f"for all logits), {found['grown']:.0f} MB, remembered in {found['put']:.2f} s, read in "
        f"{found['read']:.2f} s; total variation from what was given at most {found['apart']:.3f}",
        flush=True,
    )


def print_probe(options: argparse.Namespace) -> None:
    """A row of a table for each size."""
    print(
        "| rows | classes | features | minutes | drawing, minutes | memory, MB | in all | wrong | estimated "
        "| rows judged rightly |\n|---|---|---|---|---|---|---|---|---|---|"
    )
    for rows, classes, dimensions in options.probe or PROBED:
        size = int(rows * options.share)
        found = _alone(judge, size, int(classes), int(dimensions), _NOISE, options.profile)
        interval = "{:.1%} to {:.1%}".format(*found["interval"])
        print(
            f"| {size:,} | {classes:.0f} | {dimensions:.0f} | {found['computing'] / 60:.2f} "
            f"| {found['drawing'] / 60:.2f} | {found['grown']:.0f} | {found['peak']:.0f} "
            f"| {found['wrong']:.1%} | {found['found']:.1%} ({interval}) "
            f"| {found['right']:.1%} |",
            flush=True,
        )


PARTS = {"bookkeeping": print_bookkeeping, "teacher": print_teacher, "probe": print_probe}


if __name__ == "__main__":
    main()
