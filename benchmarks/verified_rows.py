"""What a few verified rows are worth, before any training: ``fit_probe`` with ``verified``.

    OMP_NUM_THREADS=1 python benchmarks/verified_rows.py --data-dir DATA --cache FOLDER --output cells.jsonl

k random rows are verified, by reviewers who err in some of their answers, and the probe judges all others.
Beside: a probe that ignores them; one on the k rows alone; one on the given labels with these k set right, or
with those k set right that cleanlab ranks first; and self-training from the k rows, by scikit-learn, without
the given labels. Features are those of the packaged MiniLM, without class names unless --names is given.

Prints, as mean ± standard deviation over seeds, the accuracy on true test labels and the average precision of
the list (rows that are not verified), for each data set and k; what it is compared with; the noise rate, and
how often intervals for it cover; and in how many cells the verified rows made the list or the probe worse.
--plot FOLDER draws the accuracy by the number of answers, and by minutes at six seconds an answer.
"""

import time
from argparse import Namespace
from functools import cached_property
from itertools import product
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from cleanlab.rank import get_label_quality_scores
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import StratifiedKFold, cross_val_predict
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.semi_supervised import SelfTrainingClassifier

from clear_peft.data import LabelNames, read_table
from clear_peft.label_quality import (
    LabelQuality,
    LinearProbe,
    fit_probe,
    noise_rate_from_sample,
    with_verified,
)
from clear_peft.label_quality.ridge import one_hot
from clear_peft.label_quality.soft_ridge import Axes, SoftRidge
from clear_peft.pipeline.encoder import encode
from clear_peft.pipeline.packages import minilm
from clear_peft.report.drawing import COLOURS, legend, panels, write_drawn
from label_noise_cells import (
    Table,
    arguments,
    average_precision,
    groups_of,
    keep_cell,
    known_cells,
    last_layer,
    name_similarity,
    noisy_labels,
    number,
    suspicion,
    tables,
)

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_GIVEN = ("trec_weak", "semeval_llm", "hausa_news", "yoruba_news", "noisyagnews")
_PUT_IN = {"trec6": (("symmetric", 0.6), ("pair", 0.4)), "banking77": (("symmetric", 0.6),)}
_KEYS = ("data", "noise", "errs", "k", "seed")
_MOST_TEST_ROWS = 2000
_FOLDS = 5
# nobody was timed
_SECONDS_PER_ANSWER = 6
OURS, IGNORING, RIGHT, ALONE = "ours", "ignoring", "set right", "k alone"
CLEANLAB, SELF = "cleanlab's first k set right", "self-training"


def main() -> None:
    """Parse, judge, print."""
    parser = arguments(__doc__)
    parser.add_argument("--k", type=int, nargs="+", default=[5, 10, 30, 100, 300])
    parser.add_argument("--reviewer-errors", type=float, nargs="+", default=[0.0], help="of their answers")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--names", action="store_true", help="use the names of the classes too")
    parser.add_argument("--plot", type=Path, metavar="FOLDER", help="folder for verified_rows.svg")
    parser.add_argument("--output", type=Path, help="JSON lines, one a cell; what is there is not done again")
    options = parser.parse_args()
    known = known_cells(options.output, _KEYS)
    cells = []
    for name, table, features in tables(options, [*_GIVEN, *_PUT_IN]):
        for kind, rate in _PUT_IN.get(name, (("given", 0.0),)):
            noise = f"{kind} {rate}" if rate else kind
            bench = None
            # seeds come first, so that a part of the cells has all of k
            for seed, errs, k in product(range(options.seeds), options.reviewer_errors, sorted(options.k)):
                key = (name, noise, errs, k, seed)
                if key not in known:
                    bench = bench or Bench(table, features, kind, rate, options)
                    known[key] = dict(zip(_KEYS, key, strict=True)) | bench.judged(k, errs, seed)
                    keep_cell(known[key], options.output)
                cells.append(known[key])
            print(f"{name} {noise}: done", flush=True)
    print_by_k(cells)
    print_compared(cells)
    print_rates(cells)
    print_losses(cells)
    if options.plot:
        write_drawn({"verified_rows": lambda: drawn(cells)}, options.plot, "svg")


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
        """Figures of k rows, each as average precision and test accuracy."""
        size, started = len(self._labels), time.perf_counter()
        rows = np.random.default_rng(1000 + seed).choice(size, k, replace=False)
        verified = np.full(size, -1)
        verified[rows] = self._answers(errs, seed)[rows]
        probe, quality = with_verified(*self._ignoring, self._features, verified, prior_scores=self._names)
        seconds, others = time.perf_counter() - started, verified < 0
        true = float(self._wrong.mean())
        low, high = quality.noise_rate_interval or (0.0, 1.0)
        p = quality.clean_probability if quality.blind_probability is None else quality.blind_probability
        rate, sample = noise_rate_from_sample(p, verified, self._labels, ~others)
        cell: dict[str, Any] = {
            OURS: self._figures(probe, quality, others),
            IGNORING: self._figures(*self._ignoring, others),
            "true": true,
            "rate": quality.noise_rate,
            "covered": low <= true <= high,
            "width": high - low,
            "sample_rate": rate,
            "sample_covered": sample[0] <= true <= sample[1],
            "sample_width": sample[1] - sample[0],
            "seconds": seconds,
        }
        some = np.flatnonzero(~others)
        cell[ALONE] = self._alone(some, verified[some], others)
        if not errs:
            right = np.where(others, self._labels, verified)
            cell[RIGHT] = self._figures(*self._fitted(right), others)
            first = self._cleanlabs_order[:k]
            right, others = self._labels.copy(), np.ones(size, bool)
            right[first], others[first] = self._table.true[first], False
            cell[CLEANLAB] = self._figures(*self._fitted(right), others)
            cell[SELF] = self._self_trained(verified)
        return cell

    @cached_property
    def _cleanlabs_order(self) -> np.ndarray:
        """All rows, those first that cleanlab would have looked at first."""
        folds = StratifiedKFold(_FOLDS, shuffle=True, random_state=0)
        pred_probs = cross_val_predict(
            LogisticRegression(max_iter=1000),
            last_layer(self._features),
            self._labels,
            cv=folds,
            method="predict_proba",
        )
        return np.argsort(get_label_quality_scores(self._labels, pred_probs), kind="stable")

    def _self_trained(self, verified: np.ndarray) -> tuple[float, float]:
        """From the verified rows, -1 elsewhere, with scikit-learn's defaults."""
        if len(np.unique(verified)) < 3:  # of a single class
            return np.nan, np.nan
        model = make_pipeline(
            StandardScaler(), SelfTrainingClassifier(LogisticRegression(max_iter=1000), max_iter=20)
        ).fit(self._features[:, -1], verified)
        found = model.predict(self._test[:, -1]) == self._test_labels
        pred_probs, others = model.predict_proba(self._features[:, -1]), verified < 0
        place = {label: i for i, label in enumerate(model.classes_.tolist())}
        own = np.array(
            [p[place[y]] if y in place else 0.0 for p, y in zip(pred_probs, self._labels, strict=True)]
        )
        return average_precision(-own[others], self._wrong[others]), float(found.mean())

    def _answers(self, errs: float, seed: int) -> np.ndarray:
        """What reviewers say of every row, if they are asked."""
        rng, classes = np.random.default_rng(2000 + seed), self._table.num_classes
        answers = self._table.true.copy()
        off = rng.random(len(answers)) < errs
        answers[off] = (answers[off] + rng.integers(1, classes, off.sum())) % classes
        return answers

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


def print_by_k(cells: list[dict[str, Any]]) -> None:
    """Tables of k: of each data set the mean ± standard deviation over seeds, and at first without."""
    for place, what in enumerate(("average precision of the list", "accuracy of the probe")):
        for errs in dict.fromkeys(cell["errs"] for cell in cells):
            alike = [cell for cell in cells if cell["errs"] == errs]
            counts = list(dict.fromkeys(cell["k"] for cell in alike))
            print(f"\n{what}, {errs:.0%} of answers wrong\n")
            print(f"| data | seeds | k = 0 | {' | '.join(map(str, counts))} |")
            print("|---" * (len(counts) + 3) + "|")
            for name, some in _by_data(alike):
                values = [[c[OURS][place] for c in some if c["k"] == k] for k in counts]
                ignoring = number(float(np.mean([c[IGNORING][place] for c in some])))
                seeds = "–".join(map(str, sorted({len(each) for each in values})))
                print(f"| {name} | {seeds} | {ignoring} | {' | '.join(map(_spread, values))} |")


def print_compared(cells: list[dict[str, Any]]) -> None:
    """Accuracy beside what else may be done with the same rows."""
    judges = [j for j in (IGNORING, RIGHT, CLEANLAB, ALONE, SELF, OURS) if all(j in c for c in cells)]
    print(f"\naccuracy: {' / '.join(judges)}; answers right\n")
    some = [cell for cell in cells if not cell["errs"]]
    counts = list(dict.fromkeys(cell["k"] for cell in some))
    print(f"| data | {' | '.join(map(str, counts))} |\n" + "|---" * (len(counts) + 1) + "|")
    for name, of_data in _by_data(some):
        columns = [
            " / ".join(number(float(np.nanmean([c[j][1] for c in of_data if c["k"] == k]))) for j in judges)
            for k in counts
        ]
        print(f"| {name} | {' | '.join(columns)} |")


def print_rates(cells: list[dict[str, Any]]) -> None:
    """How far noise rates are off, and how often and how wide intervals cover."""
    print("\nnoise rate: by all that is known, and by the random sample without any assumption\n")
    print("| answers wrong | k | cells | off by | covered | width | sample: off by | covered | width |")
    print("|---" * 9 + "|")
    for errs, k in dict.fromkeys((cell["errs"], cell["k"]) for cell in cells):
        some = [cell for cell in cells if (cell["errs"], cell["k"]) == (errs, k)]
        mean = {
            name: float(np.mean([cell[name] for cell in some]))
            for name in ("covered", "width", "sample_covered", "sample_width")
        }
        off, sample_off = (
            float(np.mean([abs(cell[name] - cell["true"]) for cell in some]))
            for name in ("rate", "sample_rate")
        )
        print(
            f"| {errs:.0%} | {k} | {len(some)} | {off:.2f} | {mean['covered']:.0%} | {mean['width']:.2f} "
            f"| {sample_off:.2f} | {mean['sample_covered']:.0%} | {mean['sample_width']:.2f} |"
        )


def drawn(cells: list[dict[str, Any]]) -> "Figure":
    """Accuracy of the probe by the number of right answers, a panel for each data set."""
    right = _by_data([cell for cell in cells if not cell["errs"]])
    figure, axes = panels([name for name, _ in right])
    lines = (
        (OURS, "verified"),
        (RIGHT, "labels set right"),
        (ALONE, "these rows alone"),
    )
    for panel, (_, some) in zip(axes, right, strict=True):
        start = float(np.mean([cell[IGNORING][1] for cell in some]))
        for colour, (judge, label) in zip(COLOURS, lines, strict=False):
            points = {} if judge == ALONE else {0: start}
            for k in sorted({cell["k"] for cell in some}):
                points[k] = float(np.mean([cell[judge][1] for cell in some if cell["k"] == k]))
            panel.plot(
                list(points), list(points.values()), color=colour, marker="o", markersize=3, label=label
            )
        panel.set_xscale("symlog", linthresh=5)
        ticks = [0, *sorted({cell["k"] for cell in some})]
        panel.set_xticks(ticks, [f"{k}\n{k * _SECONDS_PER_ANSWER / 60:g}" for k in ticks], fontsize=7)
        panel.minorticks_off()
        panel.set_xlabel("answers, and minutes", fontsize=8)
        panel.set_ylabel("accuracy", fontsize=8)
    legend(figure, axes)
    return figure


def print_losses(cells: list[dict[str, Any]]) -> None:
    """How often, and by how much at most, verified rows made things worse than ignoring them."""
    print()
    for errs, k in dict.fromkeys((cell["errs"], cell["k"]) for cell in cells):
        some = [cell for cell in cells if (cell["errs"], cell["k"]) == (errs, k)]
        for place, what in enumerate(("AP", "test accuracy")):
            gaps = np.array([cell[OURS][place] - cell[IGNORING][place] for cell in some])
            print(
                f"- {errs:.0%} wrong, k = {k}, {what}: {gaps.mean():+.3f} on average; "
                f"worse than ignoring in {(gaps < 0).sum()} of {len(gaps)} cells, at most by "
                f"{max(0.0, -gaps.min()):.3f}; in the mean over seeds, in {_worse_sets(some, place)}"
            )


def _worse_sets(cells: list[dict[str, Any]], place: int) -> str:
    """Data sets that are worse on average."""
    sets = _by_data(cells)
    worse = [n for n, some in sets if np.mean([c[OURS][place] - c[IGNORING][place] for c in some]) < 0]
    return f"{len(worse)} of {len(sets)} data sets" + (f" ({', '.join(worse)})" if worse else "")


def _by_data(cells: list[dict[str, Any]]) -> list[tuple[str, list[dict[str, Any]]]]:
    names = dict.fromkeys((cell["data"], cell["noise"]) for cell in cells)
    return [
        (f"{data} {noise}", [c for c in cells if (c["data"], c["noise"]) == (data, noise)])
        for data, noise in names
    ]


def _spread(values: list[float]) -> str:
    """Mean ± standard deviation, if there are several."""
    if not values:
        return "–"
    return number(float(np.mean(values))) + (f" ± {np.std(values, ddof=1):.2f}" if len(values) > 1 else "")


if __name__ == "__main__":
    main()
