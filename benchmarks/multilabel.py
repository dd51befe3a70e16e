"""Wrong and missing labels of rows that have several: ours beside cleanlab, before any training.

    OMP_NUM_THREADS=1 python benchmarks/multilabel.py --data-dir DATA

No packaged table of texts has several labels a row. So texts with one label are joined: a row is one, two or
three texts of different classes (40, 40 and 20 %), the first 40 words of each, and has the labels of all.
``clusters`` has no texts: points around random centres, and a label for each centre that is near enough, as
in cleanlab's own tests. Noise is put into the labels:

- ``missing 0.15``: so many of the given labels are left out;
- ``symmetric 0.1``: so many are left out, and each label is given to as many random rows that lack it;
- ``own rates 0.15``: the same, with two rates for each label, from 0 to twice the mean;
- ``confused 0.15``: so many are replaced by the next label, always the same one.

Judges: ours (``fit_multilabel``, as ``scan`` does), cleanlab by five folds of logistic regression (C = 1) on
the last layer at unit length, ours by the same predictions (``multilabel_quality_from_pred_probs``), and
cleanlab by the predictions that ours has made. cleanlab's are ``get_label_quality_scores`` of rows and of
labels, and ``find_label_issues``, by default.

Prints, for each cell, average precision of the wrong labels (given ones that are wrong, and missing ones) and
of the rows that have some, precision and recall of the rows that are flagged, and the shares of wrong and of
missing labels, true and as ours estimates them. Needs scikit-learn and cleanlab.
"""

import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from cleanlab.multilabel_classification.filter import find_label_issues
from cleanlab.multilabel_classification.rank import (
    get_label_quality_scores,
    get_label_quality_scores_per_class,
)
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import StratifiedKFold, cross_val_predict

from clear_peft.label_quality import MultilabelQuality, fit_multilabel, multilabel_quality_from_pred_probs
from label_noise_cells import (
    Table,
    arguments,
    average_precision,
    features_of,
    keep_cell,
    known_cells,
    last_layer,
    name_similarity,
    number,
    precision,
    read,
    recall,
)

DATA = ("clusters", "bbc", "trec6", "20news", "r52", "banking77")
NOISE = (("none", 0.0), ("missing", 0.15), ("symmetric", 0.1), ("own rates", 0.15), ("confused", 0.15))
OURS, OURS_THEIR = "ours", "ours by cleanlab's predictions"
THEIRS, THEIRS_OUR = "cleanlab", "cleanlab by ours"
JUDGES = (OURS, OURS_THEIR, THEIRS, THEIRS_OUR)
_WORDS, _SHARES = 40, (0.4, 0.4, 0.2)
_CLUSTERS, _DIMENSIONS, _NEAREST = 12, 32, 0.2
_FOLDS = 5


def main() -> None:
    """Parse, judge, print."""
    parser = arguments(__doc__)
    parser.add_argument("--output", type=Path, help="JSON lines, one a cell; what is there is not done again")
    parser.set_defaults(rows=2000)
    options = parser.parse_args()
    known = known_cells(options.output, ("data", "noise"))
    print(f"AP: {' / '.join(JUDGES)}; flags: ours / cleanlab; shares: true / ours\n")
    print("| data | noise | AP of labels | AP of rows | precision | recall | wrong | missing | seconds |")
    print("|---|---|---|---|---|---|---|---|---|")
    cells = []
    for name, true, features, names in worlds(options):
        for kind, rate in NOISE:
            noise = f"{kind} {rate}" if rate else kind
            cell = known.get((name, noise))
            if cell is None:
                given = put_in(true, kind, rate, options.seed)
                cell = {"data": name, "noise": noise, **judged(features, names, given, true, options.seed)}
                keep_cell(cell, options.output)
            print_cell(cell)
            cells.append(cell)
    print_means(cells)


def worlds(options: Any) -> Iterator[tuple[str, np.ndarray, np.ndarray, np.ndarray | None]]:
    """Name, true labels (N, C), features (N, V, D) and likeness to the names of each data set."""
    for name in options.data or DATA:
        if name == "clusters":
            true, features = clusters(options.rows, options.seed)
            yield name, true, features, None
            continue
        table = read(name, options.data_dir)
        if table is None:
            print(f"{name}: not in {options.data_dir}")
            continue
        true, rows = joined(table, options.rows, options.seed)
        features = features_of(rows, options)
        yield name, true, features, name_similarity(table, features, options)


def joined(table: Table, size: int, seed: int) -> tuple[np.ndarray, Table]:
    """Rows of one to three texts of different classes: labels (N, C), and their texts."""
    rng = np.random.default_rng(seed)
    starts = [" ".join(text.split()[:_WORDS]) for text in table.texts]
    left: list[int] = []
    true, texts = np.zeros((size, table.num_classes), bool), []
    for row, count in enumerate(rng.choice([1, 2, 3], size, p=_SHARES)):
        parts: list[str] = []
        while len(parts) < count:
            left = left or rng.permutation(len(starts)).tolist()
            place = left.pop()
            if not true[row, table.true[place]]:
                true[row, table.true[place]] = True
                parts.append(starts[place])
        texts.append(" ".join(parts))
    nothing = np.zeros(size, np.int64)
    return true, Table(table.name, texts, nothing, nothing, table.names)


def clusters(size: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Points, and which of twelve centres are near: labels (N, C) and features (N, 1, D)."""
    rng = np.random.default_rng(seed)
    centers = rng.normal(size=(_CLUSTERS, _DIMENSIONS))
    points = rng.normal(size=(size, _DIMENSIONS)) + centers[rng.integers(_CLUSTERS, size=size)]
    distances = np.linalg.norm(points[:, None] - centers, axis=2)
    return distances < np.quantile(distances, _NEAREST, axis=0), points[:, None].astype(np.float32)


def put_in(true: np.ndarray, kind: str, rate: float, seed: int) -> np.ndarray:
    """True labels (N, C) with one kind of noise."""
    rng = np.random.default_rng(seed + 1)
    labels = true.shape[1]
    if kind == "confused":
        hit = true & (rng.random(true.shape) < rate)
        return (true & ~hit) | np.roll(hit, 1, axis=1)
    dropped, added = np.full(labels, rate), np.full(labels, 0.0 if kind == "missing" else rate)
    if kind == "own rates":
        dropped, added = rng.uniform(0, 2 * rate, (2, labels))
    given = true & (rng.random(true.shape) >= dropped)
    for label in range(labels):
        lacking = np.flatnonzero(~true[:, label])
        many = min(rng.binomial(true[:, label].sum(), added[label]), len(lacking))
        given[rng.choice(lacking, many, replace=False), label] = True
    return given


def judged(
    features: np.ndarray, names: np.ndarray | None, given: np.ndarray, true: np.ndarray, seed: int
) -> dict[str, Any]:
    """What each judge makes of one cell, by its name."""
    wrong = given != true
    started = time.perf_counter()
    mine = fit_multilabel(features, given, prior_scores=names)
    seconds = time.perf_counter() - started
    started = time.perf_counter()
    pred_probs = predictions(last_layer(features), given, seed)
    same = multilabel_quality_from_pred_probs(pred_probs, given)
    cell = {
        "wrong": (given & ~true).sum() / given.sum(),
        "missing": (true & ~given).sum() / true.sum(),
        OURS: ours(mine, wrong),
        OURS_THEIR: ours(same, wrong),
        THEIRS: cleanlab(given, pred_probs, wrong),
        THEIRS_OUR: cleanlab(given, mine.pred_probs.astype(np.float64), wrong),
    }
    return cell | {"seconds": [seconds, time.perf_counter() - started]}


def predictions(rows: np.ndarray, given: np.ndarray, seed: int) -> np.ndarray:
    """Out-of-sample probabilities by logistic regression, (N, C); of labels in too few rows, their share."""
    found = np.tile(given.mean(axis=0), (len(given), 1))
    for label, flags in enumerate(given.T):
        if min(flags.sum(), (~flags).sum()) >= _FOLDS:
            folds = StratifiedKFold(_FOLDS, shuffle=True, random_state=seed)
            model = LogisticRegression(max_iter=1000)
            found[:, label] = cross_val_predict(model, rows, flags, cv=folds, method="predict_proba")[:, 1]
    return found


def ours(quality: MultilabelQuality, wrong: np.ndarray) -> dict[str, Any]:
    """Figures of a quality."""
    flagged = quality.is_label_issue.any(axis=1)
    shares = {"wrong": quality.wrong_rate, "missing": quality.missing_rate}
    return shares | figures(quality.clean_probability, quality.row_probability, flagged, wrong)


def cleanlab(given: np.ndarray, pred_probs: np.ndarray, wrong: np.ndarray) -> dict[str, Any]:
    """Figures of cleanlab's scores."""
    lists = [np.flatnonzero(row).tolist() for row in given]
    flagged = find_label_issues(lists, pred_probs, n_jobs=1)
    return figures(
        get_label_quality_scores_per_class(lists, pred_probs),
        get_label_quality_scores(lists, pred_probs),
        flagged,
        wrong,
    )


def figures(labels: np.ndarray, rows: np.ndarray, flagged: np.ndarray, wrong: np.ndarray) -> dict[str, Any]:
    """Of scores that are low where labels (N, C), or rows (N,), are wrong."""
    wrong_rows = wrong.any(axis=1)
    return {
        "labels": average_precision(-labels.ravel(), wrong.ravel()),
        "rows": average_precision(-rows, wrong_rows),
        "precision": precision(flagged, wrong_rows),
        "recall": recall(flagged, wrong_rows),
    }


def print_cell(cell: dict[str, Any]) -> None:
    """A row."""
    columns = [" / ".join(number(cell[judge][key]) for judge in JUDGES) for key in ("labels", "rows")]
    columns += [
        " / ".join(number(cell[judge][key]) for judge in (OURS, THEIRS)) for key in ("precision", "recall")
    ]
    columns += [f"{number(cell[key], 3)} / {number(cell[OURS][key], 3)}" for key in ("wrong", "missing")]
    columns.append(" / ".join(f"{seconds:.1f}" for seconds in cell["seconds"]))
    print(f"| {cell['data']} | {cell['noise']} | {' | '.join(columns)} |", flush=True)


def print_means(cells: list[dict[str, Any]]) -> None:
    """A row for each kind of noise: means over the data sets, and absolute errors of the shares."""
    print("\nmeans over data sets; shares: mean absolute error of ours\n")
    print("| noise | cells | AP of labels | AP of rows | precision | recall | wrong | missing |")
    print("|---|---|---|---|---|---|---|---|")
    for noise in dict.fromkeys(cell["noise"] for cell in cells):
        same = [cell for cell in cells if cell["noise"] == noise]

        def mean(judges: tuple[str, ...], key: str, same: list[dict[str, Any]] = same) -> str:
            values = np.array([[cell[judge][key] for judge in judges] for cell in same], float)
            return " / ".join(number(float(value)) for value in values.mean(axis=0))

        columns = [mean(JUDGES, key) for key in ("labels", "rows")]
        columns += [mean((OURS, THEIRS), key) for key in ("precision", "recall")]
        for key in ("wrong", "missing"):
            columns.append(number(float(np.mean([abs(c[OURS][key] - c[key]) for c in same])), 3))
        print(f"| {noise} | {len(same)} | {' | '.join(columns)} |")


if __name__ == "__main__":
    main()
