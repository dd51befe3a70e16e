"""Which labels are listed by what any classifier predicts out of sample: ours beside cleanlab's.

    OMP_NUM_THREADS=1 python benchmarks/pred_probs.py --data-dir DATA
    python benchmarks/pred_probs.py --data-dir DATA --data trec6 --logits FILE.npy --noise "pair 0.4"

Both get the same predictions: of logistic regression, ten nearest neighbours and gradient boosting (few and
small trees; left out for 77 classes, where it takes minutes) on the last layer of MiniLM at unit length, by
five stratified folds. A fine-tuned model's folds can be judged too: --logits is a file of its out-of-sample
logits, (N, C), of the rows of one data set (--rows and --seed say which) with one kind of noise.

Prints, for each data set, classifier and kind of noise, the share of wrong labels, and for both, ours
(``label_quality_from_pred_probs``) and cleanlab's (``find_label_issues``, ``get_label_quality_scores``):
average precision of the ranking, precision and recall of the first rows, as many as cleanlab lists, and noise
rate; of ours also the interval, precision and recall of its own list and the expected calibration error. At
the end, in how many cells ours is below. Needs scikit-learn and cleanlab.
"""

from pathlib import Path
from typing import Any

import numpy as np
from cleanlab.count import num_label_issues
from cleanlab.filter import find_label_issues
from cleanlab.rank import get_label_quality_scores
from scipy.special import softmax
from sklearn.base import ClassifierMixin
from sklearn.ensemble import HistGradientBoostingClassifier
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import StratifiedKFold, cross_val_predict
from sklearn.neighbors import KNeighborsClassifier

from clear_peft.label_quality import label_quality_from_pred_probs
from label_noise_cells import (
    NOISE,
    Table,
    arguments,
    average_precision,
    calibration_error,
    first,
    keep_cell,
    known_cells,
    last_layer,
    noisy_labels,
    number,
    precision,
    recall,
    suspicion,
    tables,
)

TABLES = ("trec6", "banking77", "bbc", "r8", "sst5")
_FOLDS = 5
_MOST_CLASSES_OF_TREES = 20
_NEIGHBOURS = 10
_MEASURES = {"ap": "AP", "precision": "precision", "recall": "recall"}


def main() -> None:
    """Parse, predict, list, print."""
    parser = arguments(__doc__)
    parser.add_argument("--noise", nargs="+", help='kinds of noise, such as "pair 0.4"; default: all')
    parser.add_argument("--logits", type=Path, help="a fine-tuned model's out-of-sample logits, (N, C), .npy")
    parser.add_argument("--output", type=Path, help="JSON lines, one a cell; what is there is not done again")
    options = parser.parse_args()
    kinds = {f"{kind} {rate}" if rate else kind: (kind, rate) for kind, rate in NOISE}
    del kinds["symmetric 0.6"]
    chosen = options.noise or list(kinds)
    known = known_cells(options.output, ("data", "model", "noise"))
    print("AP to ECE: ours / cleanlab; precision and recall at the length of cleanlab's list\n")
    print("| data | model | noise | wrong | AP | precision | recall | rate | interval | own list | ECE |")
    print("|---|---|---|---|---|---|---|---|---|---|---|")
    cells = []
    for name, table, features in tables(options, TABLES):
        for noise in chosen:
            kind, rate = kinds[noise]
            labels = noisy_labels(table, kind, rate, features, options.seed)
            for model, classifier in classifiers(table, options.logits).items():
                cell = known.get((name, model, noise))
                if cell is None:
                    pred_probs = (
                        softmax(np.load(options.logits).astype(float), axis=1)
                        if classifier is None
                        else predicted(
                            classifier, last_layer(features), labels, table.num_classes, options.seed
                        )
                    )
                    cell = {"data": name, "model": model, "noise": noise}
                    cell |= judged(pred_probs, labels, labels != table.true)
                    keep_cell(cell, options.output)
                print_cell(cell)
                cells.append(cell)
    print_means(cells)
    print_losses(cells)


def classifiers(table: Table, logits: Path | None) -> dict[str, ClassifierMixin | None]:
    """Those that are fitted to a data set, by name; None stands for a file of logits."""
    if logits:
        return {logits.stem: None}
    found = {
        "logistic": LogisticRegression(max_iter=1000),
        "neighbours": KNeighborsClassifier(_NEIGHBOURS),
    }
    if table.num_classes <= _MOST_CLASSES_OF_TREES:
        found["trees"] = HistGradientBoostingClassifier(
            max_iter=15, max_leaf_nodes=8, max_bins=32, early_stopping=False, random_state=0
        )
    return found


def predicted(
    classifier: ClassifierMixin, features: np.ndarray, labels: np.ndarray, num_classes: int, seed: int
) -> np.ndarray:
    """Out-of-sample probabilities of all classes, (N, C); a class that a fold does not know gets 0."""
    folds = StratifiedKFold(_FOLDS, shuffle=True, random_state=seed)
    present, codes = np.unique(labels, return_inverse=True)
    pred_probs = np.zeros((len(labels), num_classes))
    pred_probs[:, present] = cross_val_predict(classifier, features, codes, cv=folds, method="predict_proba")
    return pred_probs


def judged(pred_probs: np.ndarray, labels: np.ndarray, wrong: np.ndarray) -> dict[str, Any]:
    """Figures of ours and of cleanlab."""
    quality = label_quality_from_pred_probs(pred_probs, labels)
    order, listed = suspicion(quality), quality.is_label_issue
    theirs = find_label_issues(labels, pred_probs, n_jobs=1)
    as_many = first(order, int(theirs.sum()))
    scores = get_label_quality_scores(labels, pred_probs)
    return {
        "wrong": float(wrong.mean()),
        "ap": [average_precision(order, wrong), average_precision(-scores, wrong)],
        "precision": [precision(as_many, wrong), precision(theirs, wrong)],
        "recall": [recall(as_many, wrong), recall(theirs, wrong)],
        "rate": [quality.noise_rate, num_label_issues(labels, pred_probs) / len(labels)],
        "interval": quality.noise_rate_interval,
        "list": [precision(listed, wrong), recall(listed, wrong)],
        "ece": calibration_error(quality.clean_probability.astype(float), ~wrong),
    }


def print_cell(cell: dict[str, Any]) -> None:
    """A row."""
    columns = [" / ".join(number(value) for value in cell[key]) for key in (*_MEASURES, "rate")]
    columns.append("{:.2f}–{:.2f}".format(*cell["interval"]))
    columns.append(", ".join(number(value) for value in cell["list"]))
    print(
        f"| {cell['data']} | {cell['model']} | {cell['noise']} | {cell['wrong']:.2f} | {' | '.join(columns)} "
        f"| {number(cell['ece'], 3)} |",
        flush=True,
    )


def print_means(cells: list[dict[str, Any]]) -> None:
    """A row for each classifier and kind of noise: means over the data sets."""
    print("\nmeans over data sets\n")
    print(
        "| model | noise | AP | precision | recall | error of the rate | in the interval | own list | ECE |"
    )
    print("|---|---|---|---|---|---|---|---|---|")
    for model, noise in sorted({(cell["model"], cell["noise"]) for cell in cells}):
        same = [cell for cell in cells if (cell["model"], cell["noise"]) == (model, noise)]
        columns = [" / ".join(means(same, key)) for key in _MEASURES]
        off = np.mean([[abs(rate - cell["wrong"]) for rate in cell["rate"]] for cell in same], axis=0)
        columns.append(" / ".join(number(value, 3) for value in off))
        columns.append(f"{sum(covers(cell) for cell in same)} of {len(same)}")
        columns += [", ".join(means(same, "list")), number(float(np.mean([cell["ece"] for cell in same])), 3)]
        print(f"| {model} | {noise} | {' | '.join(columns)} |")


def means(cells: list[dict[str, Any]], key: str) -> list[str]:
    """Means of a figure's two numbers over the cells that have them."""
    columns = np.array([cell[key] for cell in cells], float).T
    known = [column[~np.isnan(column)] for column in columns]
    return [number(float(part.mean()) if len(part) else float("nan")) for part in known]


def covers(cell: dict[str, Any]) -> bool:
    """Whether the interval holds the true rate."""
    low, high = cell["interval"]
    return low <= cell["wrong"] <= high


def print_losses(cells: list[dict[str, Any]]) -> None:
    """In how many cells with wrong labels ours is below cleanlab, and by how much."""
    some = [cell for cell in cells if cell["wrong"]]
    if not some:
        return
    print(f"\nOf {len(some)} cells with wrong labels:")
    for key, title in _MEASURES.items():
        gaps = {
            f"{cell['data']} {cell['model']} {cell['noise']}": cell[key][1] - cell[key][0] for cell in some
        }
        below = {name: gap for name, gap in gaps.items() if gap > 0}
        worst = max(below, key=lambda name: below[name], default="")
        text = f", by at most {below[worst]:.3f} ({worst})" if below else ""
        mean = -np.nanmean(list(gaps.values()))
        print(f"- {title}: below cleanlab in {len(below)}{text}; on average {mean:+.3f}")
    off = np.array([[abs(rate - cell["wrong"]) for rate in cell["rate"]] for cell in some])
    covered = np.mean([covers(cell) for cell in some])
    print(
        f"- noise rate: mean error {off[:, 0].mean():.3f}, cleanlab's {off[:, 1].mean():.3f}; further off "
        f"than cleanlab's in {(off[:, 0] > off[:, 1]).sum()}; in the interval in {covered:.0%}"
    )


if __name__ == "__main__":
    main()
