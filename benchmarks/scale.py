"""What an epoch's bookkeeping costs for millions of examples: smoothing, mixture, probabilities, ranking.

No training: the log-odds of the losses are drawn from two Gaussians, labels from C classes. Run it with
`python benchmarks/scale.py`. Every size is measured in a process of its own, on one core: seconds on the
clock, seconds of computing (less where the machine has other work), and the peak memory of the process,
Python and libraries included. The fit to bins is compared with the fit to all values. Then the teacher:
predictions for 1,000 classes are remembered and read again, batch by batch, as training does. In the end the
probe: fitted to a block of the rows, it predicts all, and the noise model judges their labels; features are
drawn around a centre for each class, and drawing them is not counted.
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
_TEACHER_BATCH = 1024


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
    """Seconds to remember predictions and to read them, memory, and how far they are from what was given."""
    import torch

    from clear_peft.training.teacher import Teacher

    torch.set_num_threads(1)
    generator = torch.Generator().manual_seed(0)
    batch = 3 * torch.randn(
        _TEACHER_BATCH, classes, generator=generator
    )  # the same for all: only time counts
    started = _peak()
    teacher = Teacher.unknown(size, classes, torch.device("cpu"))
    lapses = {"put": 0.0, "read": 0.0}
    for start in range(0, size, _TEACHER_BATCH):
        ids = torch.arange(start, min(start + _TEACHER_BATCH, size))
        before = time.process_time()
        teacher.put(ids, batch[: len(ids)])
        lapses["put"] += time.process_time() - before
    for start in range(0, size, _TEACHER_BATCH):
        ids = torch.arange(start, min(start + _TEACHER_BATCH, size))
        before = time.process_time()
        teacher.probabilities(ids)
        lapses["read"] += time.process_time() - before
    exact, ours = torch.softmax(batch, dim=1), teacher.probabilities(torch.arange(min(_TEACHER_BATCH, size)))
    apart = (exact[: len(ours)] - ours).abs().sum(dim=1) / 2
    each = sum(tensor[0].nbytes for tensor in teacher.tensors().values())
    return {**lapses, "bytes": each, "grown": _peak() - started, "apart": float(apart.max())}


def judge(size: int, classes: int, dimensions: int, noise: float = 0.3) -> dict[str, float]:
    """Seconds that a probe and the verdict take on features of so many rows, and the peak memory."""
    import torch

    from clear_peft.training import CleaRConfig
    from clear_peft.training.probing import MOST_ROWS, probed

    torch.set_num_threads(1)
    rng = np.random.default_rng(0)
    centres = rng.normal(size=(classes, dimensions)).astype(np.float32)
    true = rng.integers(0, classes, size, np.int32)
    labels = np.where(rng.random(size) < noise, rng.integers(0, classes, size, np.int32), true)
    around = rng.normal(scale=2.5, size=(min(size, MOST_ROWS), dimensions)).astype(np.float16)
    drawing = 0.0

    def features_of(rows: np.ndarray | None) -> torch.Tensor:
        nonlocal drawing
        before = time.process_time()
        rows = np.arange(0) if rows is None else rows
        drawn = around[: len(rows)] + centres[true[rows]].astype(np.float16)
        drawing += time.process_time() - before
        return torch.from_numpy(drawn)

    args = CleaRConfig(output_dir="unused", use_cpu=True, report_to="none")
    started, computing = _peak(), time.process_time()
    state = probed(features_of, labels, labels[:0], classes, ESTIMATORS["gaussian"], args, epoch=3)
    computing = time.process_time() - computing - drawing
    wrong = float((labels != true).mean())
    return {"computing": computing, "grown": _peak() - started, "wrong": wrong, "found": state.noise_rate}


def _peak() -> float:
    """Most memory of this process so far, MB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (
        1 << 20 if sys.platform == "darwin" else 1024
    )


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
    """Print one line a size, the error of the bins, and one line for the teacher."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--sizes", type=float, nargs="+", default=[1e5, 1e6, 1e7])
    parser.add_argument("--classes", type=int, default=77)
    parser.add_argument("--estimators", nargs="+", choices=ESTIMATORS, default=["gaussian"])
    parser.add_argument("--teacher", type=float, default=1e6, help="examples of the teacher")
    parser.add_argument("--teacher-classes", type=int, default=1000)
    parser.add_argument("--compare", type=float, default=1e6, help="examples of the comparison")
    parser.add_argument("--probed", type=float, default=1e7, help="examples that a probe judges")
    parser.add_argument("--features", type=int, default=384, help="their dimensions")
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
    size, classes = int(options.teacher), options.teacher_classes
    found = _alone(teach, size, classes)
    print(
        f"teacher: {size:.0e} examples, {classes} classes: {found['bytes']:.0f} bytes each ({2 * classes} "
        f"for all logits), {found['grown']:.0f} MB, remembered in {found['put']:.2f} s, read in "
        f"{found['read']:.2f} s; total variation from what was given at most {found['apart']:.3f}"
    )
    size = int(options.probed)
    found = _alone(judge, size, options.classes, options.features)
    print(
        f"probe: {size:.0e} examples, {options.classes} classes, {options.features} features: "
        f"{found['computing']:.1f} s, {found['grown']:.0f} MB; {found['wrong']:.1%} of the labels wrong, "
        f"{found['found']:.1%} by estimate",
        flush=True,
    )
    print(
        "state: 8 bytes an example (loss and p, float32) and the teacher; 8 more with scores from the steps"
    )


if __name__ == "__main__":
    main()
