"""What a few verified rows are worth, before any training: ``fit_probe`` with ``verified``.

    OMP_NUM_THREADS=1 python benchmarks/verified_rows.py --data-dir DATA --cache FOLDER --output cells.jsonl

k random rows are verified, by reviewers who err in some of their answers, and the probe judges all others.
Beside it: a probe on the k rows alone, one on the given labels with these k set right, and one that ignores
them. Features are those of the packaged MiniLM, without class names unless --names is given.

Prints, for each data set and k, means over seeds of the average precision of the list (rows that are not
verified), of the accuracy on true test labels, and of the estimated noise rate beside the true one; how often
its interval covers; and in how many cells the verified rows made the list or the probe worse.
"""

import time
from argparse import Namespace
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np

from clear_peft.data import LabelNames, read_table
from clear_peft.label_quality import LabelQuality, LinearProbe, fit_probe, with_verified
from clear_peft.label_quality.ridge import one_hot
from clear_peft.label_quality.soft_ridge import Axes, SoftRidge
from clear_peft.pipeline.encoder import encode
from clear_peft.pipeline.packages import minilm
from label_noise_cells import (
    Table,
    arguments,
    average_precision,
    groups_of,
    keep_cell,
    known_cells,
    name_similarity,
    noisy_labels,
    number,
    suspicion,
    tables,
)

_GIVEN = ("trec_weak", "semeval_llm", "hausa_news", "yoruba_news", "noisyagnews")
_PUT_IN = {"trec6": (("symmetric", 0.6), ("pair", 0.4)), "banking77": (("symmetric", 0.6),)}
_KEYS = ("data", "noise", "k", "errs", "seed")
_MOST_TEST_ROWS = 2000
OURS, IGNORING, RIGHT, ALONE = "ours", "ignoring", "set right", "k alone"


def main() -> None:
    """Parse, judge, print."""
    parser = arguments(__doc__)
    parser.add_argument("--k", type=int, nargs="+", default=[5, 10, 30, 100, 300])
    parser.add_argument("--errs", type=float, nargs="+", default=[0.0], help="share of wrong answers")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--names", action="store_true", help="use the names of the classes too")
    parser.add_argument("--output", type=Path, help="JSON lines, one a cell; what is there is not done again")
    options = parser.parse_args()
    known = known_cells(options.output, _KEYS)
    cells = []
    for name, table, features in tables(options, [*_GIVEN, *_PUT_IN]):
        for kind, rate in _PUT_IN.get(name, (("given", 0.0),)):
            noise = f"{kind} {rate}" if rate else kind
            bench = None
            for errs, k, seed in product(options.errs, options.k, range(options.seeds)):
                cell = known.get((name, noise, k, errs, seed))
                if cell is None:
                    bench = bench or Bench(table, features, kind, rate, options)
                    cell = dict(zip(_KEYS, (name, noise, k, errs, seed), strict=True))
                    cell |= bench.judged(k, errs, seed)
                    keep_cell(cell, options.output)
                cells.append(cell)
            print(f"{name} {noise}: done", flush=True)
    print_means(cells)
    print_losses(cells)


class Bench:
    """One data set with one kind of noise; what ignores verified rows is fitted once."""

    def __init__(
        self, table: Table, features: np.ndarray, kind: str, rate: float, options: Namespace
    ) -> None:
        self._table, self._features, self._options = table, features, options
        self._labels = noisy_labels(table, kind, rate, features, options.seed)
        self._wrong = self._labels != table.true
        self._groups = groups_of(table)
        self._names = name_similarity(table, features, options) if options.names else None
        self._test, self._test_labels, self._test_names = self._read_test()
        self._ignoring = self._fitted(self._labels)

    def judged(self, k: int, errs: float, seed: int) -> dict[str, Any]:
        """Figures of k random rows, each as average precision and test accuracy."""
        size, classes = len(self._labels), self._table.num_classes
        rng = np.random.default_rng(1000 + seed)
        some = rng.choice(size, k, replace=False)
        answers = self._table.true[some].copy()
        off = rng.random(k) < errs
        answers[off] = (answers[off] + rng.integers(1, classes, off.sum())) % classes
        verified = np.full(size, -1)
        verified[some] = answers
        started = time.perf_counter()
        probe, quality = with_verified(*self._ignoring, self._features, verified, prior_scores=self._names)
        seconds = time.perf_counter() - started
        others = verified < 0
        low, high = quality.noise_rate_interval or (0.0, 1.0)
        true = float(self._wrong.mean())
        cell: dict[str, Any] = {
            OURS: self._figures(probe, quality, others),
            IGNORING: self._figures(*self._ignoring, others),
            ALONE: self._alone(some, answers, others),
            "true": true,
            "rate": quality.noise_rate,
            "covered": low <= true <= high,
            "width": high - low,
            "seconds": seconds,
        }
        if not errs:
            right = np.where(others, self._labels, verified)
            cell[RIGHT] = self._figures(*self._fitted(right), others)
        return cell

    def _fitted(self, labels: np.ndarray) -> tuple[LinearProbe, LabelQuality]:
        return fit_probe(
            self._features,
            labels,
            self._table.num_classes,
            groups=self._groups,
            prior_scores=self._names,
        )

    def _figures(self, probe: LinearProbe, quality: LabelQuality, others: np.ndarray) -> tuple[float, float]:
        found = probe.judge(self._test, np.zeros(len(self._test), np.int64), self._test_names)
        right = float((found.pred_probs.argmax(axis=1) == self._test_labels).mean())
        return average_precision(suspicion(quality)[others], self._wrong[others]), right

    def _alone(self, some: np.ndarray, answers: np.ndarray, others: np.ndarray) -> tuple[float, float]:
        axes = Axes.of(self._features, self._table.num_classes)
        fitted = SoftRidge(axes(self._features[some]), None, np.ones(len(some)), None)
        targets = one_hot(answers, self._table.num_classes)
        probe, _ = fitted.probe(targets, fitted.best_penalty(targets))
        pred_probs = probe(axes(self._features), None)
        own = pred_probs[np.arange(len(others)), self._labels]
        found = probe(axes(self._test), None).argmax(axis=1)
        right = float((found == self._test_labels).mean())
        return average_precision(-own[others], self._wrong[others]), right

    def _read_test(self) -> tuple[np.ndarray, np.ndarray, np.ndarray | None]:
        frame = read_table(self._options.data_dir / self._table.name / "test.csv").head(_MOST_TEST_ROWS)
        names = LabelNames.fit(self._table.names)
        kept = frame["label"].isin(self._table.names)
        texts, model = list(frame["text"]), self._options.model or str(minilm())
        features = encode(texts, model, cache=self._options.cache)
        labels = np.full(len(frame), -1)
        labels[kept] = names.encode(frame["label"][kept])
        prior = None
        if self._names is not None:
            prior = name_similarity(self._table, features, self._options)
        return features, labels, prior


def print_means(cells: list[dict[str, Any]]) -> None:
    """A row for each data set, k and share of wrong answers: means over seeds."""
    judges = (OURS, IGNORING, RIGHT, ALONE)
    print(f"\neach of the first two columns: {' / '.join(judges)}\n")
    print("| data | answers wrong | k | AP | test accuracy | wrong | estimated | covered | width | seconds |")
    print("|---|---|---|---|---|---|---|---|---|---|")
    keys = dict.fromkeys((cell["data"], cell["noise"], cell["errs"], cell["k"]) for cell in cells)
    for data, noise, errs, k in keys:
        some = [
            cell
            for cell in cells
            if (cell["data"], cell["noise"], cell["errs"], cell["k"]) == (data, noise, errs, k)
        ]
        columns = []
        for place in range(2):
            values = [np.mean([cell.get(judge, (np.nan,) * 2)[place] for cell in some]) for judge in judges]
            columns.append(" / ".join(number(float(value)) for value in values))
        mean = {key: np.mean([cell[key] for cell in some]) for key in ("true", "rate", "covered", "width")}
        seconds = np.mean([cell["seconds"] for cell in some])
        print(
            f"| {data} {noise} | {errs:.0%} | {k} | {' | '.join(columns)} | {mean['true']:.2f} "
            f"| {mean['rate']:.2f} | {mean['covered']:.0%} | {mean['width']:.2f} | {seconds:.1f} |"
        )


def print_losses(cells: list[dict[str, Any]]) -> None:
    """How often, and by how much at most, verified rows made things worse than ignoring them."""
    print()
    for k in dict.fromkeys(cell["k"] for cell in cells):
        for place, what in enumerate(("AP", "test accuracy")):
            gaps = np.array([cell[OURS][place] - cell[IGNORING][place] for cell in cells if cell["k"] == k])
            print(
                f"- k = {k}, {what}: {gaps.mean():+.3f} on average; worse than ignoring in "
                f"{(gaps < 0).sum()} of {len(gaps)} cells, at most by {max(0.0, -gaps.min()):.3f}"
            )


if __name__ == "__main__":
    main()
