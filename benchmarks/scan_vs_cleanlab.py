"""Wrong labels found by frozen features, before any training: ``fit_probe`` beside cleanlab.

    OMP_NUM_THREADS=1 python benchmarks/scan_vs_cleanlab.py --data-dir DATA

Both see the same rows and labels, embedded by MiniLM, without a setting chosen for a data set. Ours takes the
layers that ``encode`` gives, or also the similarity of each text to the names of the classes ("+ names");
near copies are left out together. cleanlab takes logistic regression (C = 1) on the last layer at unit length
with five folds, and what ``find_label_issues`` and ``get_label_quality_scores`` do by default; Datalab
gets the same predictions and features. Where no name is a word, "+ names" repeats ours.

Prints, for each data set and kind of noise, the share of wrong labels, average precision of the ranking,
precision and recall of the list, the estimated noise rate, with a 95 % interval of ours, and the seconds of
each, embedding apart; at the end, in how many cells ours is below cleanlab. Needs scikit-learn and cleanlab.
"""

import contextlib
import io
import time
from pathlib import Path
from typing import Any

import numpy as np
from cleanlab import Datalab
from cleanlab.count import num_label_issues
from cleanlab.filter import find_label_issues
from cleanlab.rank import get_label_quality_scores
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import StratifiedKFold, cross_val_predict

from clear_peft.label_quality import LabelQuality, fit_probe
from label_noise_cells import (
    CLEAN,
    NOISY,
    arguments,
    average_precision,
    calibration_error,
    groups_of,
    keep_cell,
    known_cells,
    last_layer,
    name_similarity,
    noisy_labels,
    number,
    precision,
    recall,
    suspicion,
    tables,
)

OURS, NAMED, THEIRS, DATALAB = "ours", "+ names", "cleanlab", "Datalab"
JUDGES = (OURS, NAMED, THEIRS, DATALAB)
_FOLDS = 5


def main() -> None:
    """Parse, judge, print."""
    parser = arguments(__doc__)
    parser.add_argument("--noise", nargs="+", help='kinds of noise, such as "pair 0.4"; default: all')
    parser.add_argument("--output", type=Path, help="JSON lines, one a cell; what is there is not done again")
    options = parser.parse_args()
    known = known_cells(options.output, ("data", "noise"))
    print_header()
    cells = []
    for name, table, features in tables(options, [*CLEAN, *NOISY]):
        names, groups = name_similarity(table, features, options), groups_of(table)
        for kind, rate in table.noise:
            noise = f"{kind} {rate}" if rate else kind
            if options.noise and noise not in options.noise:
                continue
            cell = known.get((name, noise))
            if cell is None:
                labels = noisy_labels(table, kind, rate, features, options.seed)
                cell = {"data": name, "noise": noise}
                wrong = labels != table.true
                cell |= judged(features, names, groups, labels, wrong, table.num_classes, options.seed)
                keep_cell(cell, options.output)
            print_cell(cell)
            cells.append(cell)
    print_means(cells)
    print_losses(cells)


def judged(
    features: np.ndarray,
    names: np.ndarray | None,
    groups: np.ndarray,
    labels: np.ndarray,
    wrong: np.ndarray,
    classes: int,
    seed: int,
) -> dict[str, Any]:
    """What each judge makes of one cell, by its name."""
    cell: dict[str, Any] = {"wrong": float(wrong.mean())}
    for judge, prior in ((OURS, None), (NAMED, names)):
        if judge == NAMED and prior is None:
            cell[NAMED] = cell[OURS]
            continue
        started = time.perf_counter()
        _, quality = fit_probe(features, labels, classes, groups=groups, prior_scores=prior)
        cell[judge] = {"seconds": time.perf_counter() - started, **ours(quality, wrong)}
    # cleanlab takes no class without a row, and folds need a row of each
    kept = np.bincount(labels, minlength=classes)[labels] >= _FOLDS
    present, codes = np.unique(labels[kept], return_inverse=True)
    last = last_layer(features[kept])
    started = time.perf_counter()
    pred_probs = cross_val_predict(
        LogisticRegression(max_iter=1000),
        last,
        codes,
        cv=StratifiedKFold(_FOLDS, shuffle=True, random_state=seed),
        method="predict_proba",
    )
    predicting = time.perf_counter() - started
    listed = find_label_issues(codes, pred_probs, n_jobs=1)
    scores = get_label_quality_scores(codes, pred_probs)
    seconds = time.perf_counter() - started
    rate = num_label_issues(codes, pred_probs) / len(codes)
    cell[THEIRS] = {"seconds": seconds, "rate": rate, **found(-scores, listed, wrong[kept])}
    started = time.perf_counter()
    with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
        lab = Datalab({"label": present[codes]}, label_name="label", verbosity=0)
        lab.find_issues(features=last, pred_probs=pred_probs, issue_types={"label": {}})
        issues = lab.get_issues("label")
    seconds = time.perf_counter() - started + predicting
    listed, scores = issues["is_label_issue"].to_numpy(), issues["label_score"].to_numpy()
    cell[DATALAB] = {"seconds": seconds, "rate": listed.mean(), **found(-scores, listed, wrong[kept])}
    return cell


def ours(quality: LabelQuality, wrong: np.ndarray) -> dict[str, Any]:
    """Figures of a probe."""
    return {
        "rate": quality.noise_rate,
        "interval": quality.noise_rate_interval,
        "ece": calibration_error(quality.clean_probability.astype(float), ~wrong),
        **found(suspicion(quality), quality.is_label_issue, wrong),
    }


def found(suspicion: np.ndarray, listed: np.ndarray, wrong: np.ndarray) -> dict[str, float]:
    """Figures of a ranking and a list."""
    return {
        "ap": average_precision(suspicion, wrong),
        "precision": precision(listed, wrong),
        "recall": recall(listed, wrong),
        "listed": float(listed.mean()),
    }


def print_header() -> None:
    """Titles of the columns; each has ours / + names / cleanlab / Datalab."""
    print(f"each column: {' / '.join(JUDGES)}\n")
    print("| data | noise | wrong | AP | precision | recall | rate | interval | ECE | seconds |")
    print("|---|---|---|---|---|---|---|---|---|---|")


def print_cell(cell: dict[str, Any]) -> None:
    """A row."""
    columns = [
        " / ".join(number(cell[judge][key]) for judge in JUDGES) for key in ("ap", "precision", "recall")
    ]
    columns.append(" / ".join(number(cell[judge]["rate"]) for judge in (OURS, NAMED, THEIRS)))
    columns.append(" / ".join("{:.2f}–{:.2f}".format(*cell[judge]["interval"]) for judge in (OURS, NAMED)))
    columns.append(" / ".join(number(cell[judge]["ece"]) for judge in (OURS, NAMED)))
    columns.append(" / ".join(f"{cell[judge]['seconds']:.1f}" for judge in JUDGES))
    print(f"| {cell['data']} | {cell['noise']} | {cell['wrong']:.2f} | {' | '.join(columns)} |", flush=True)


def print_means(cells: list[dict[str, Any]]) -> None:
    """A row for each kind of noise: means over the data sets."""
    some = (OURS, NAMED, THEIRS)
    print(f"\nmeans over data sets, each column: {' / '.join(some)}\n")
    print("| noise | cells | AP | precision | recall | error of the rate | in the interval | ECE | seconds |")
    print("|---|---|---|---|---|---|---|---|---|")
    for noise in dict.fromkeys(cell["noise"] for cell in cells):
        same = [cell for cell in cells if cell["noise"] == noise]
        columns = [mean_of(same, some, key) for key in ("ap", "precision", "recall")]
        off = [np.mean([abs(cell[judge]["rate"] - cell["wrong"]) for cell in same]) for judge in some]
        columns.append(" / ".join(number(float(value), 3) for value in off))
        inside = [sum(covers(cell, judge) for cell in same) for judge in (OURS, NAMED)]
        columns.append(" / ".join(str(count) for count in inside))
        columns += [mean_of(same, (OURS, NAMED), "ece", 3), mean_of(same, some, "seconds", 1)]
        print(f"| {noise} | {len(same)} | {' | '.join(columns)} |")


def mean_of(cells: list[dict[str, Any]], judges: tuple[str, ...], key: str, digits: int = 2) -> str:
    """Means of one figure over the cells that have it."""
    values = np.array([[cell[judge][key] for judge in judges] for cell in cells], float)
    known = [column[~np.isnan(column)] for column in values.T]
    return " / ".join(number(float(part.mean()) if len(part) else float("nan"), digits) for part in known)


def covers(cell: dict[str, Any], judge: str) -> bool:
    """Whether the interval holds the true rate."""
    low, high = cell[judge]["interval"]
    return low <= cell["wrong"] <= high


def print_losses(cells: list[dict[str, Any]]) -> None:
    """In how many cells with wrong labels ours is below the better of cleanlab and Datalab."""
    some = [cell for cell in cells if cell["wrong"]]
    if not some:
        return
    print(f"\nOf {len(some)} cells with wrong labels:")
    for judge in (OURS, NAMED):
        gaps = {
            f"{cell['data']} {cell['noise']}": max(cell[other]["ap"] for other in (THEIRS, DATALAB))
            - cell[judge]["ap"]
            for cell in some
        }
        below = {name: gap for name, gap in gaps.items() if gap > 0}
        closer = np.mean(
            [
                abs(cell[judge]["rate"] - cell["wrong"]) < abs(cell[THEIRS]["rate"] - cell["wrong"])
                for cell in some
            ]
        )
        covered = np.mean([covers(cell, judge) for cell in some])
        worst = max(below, key=lambda name: below[name], default="")
        text = f", by at most {below[worst]:.3f} ({worst})" if below else ""
        print(
            f"- {judge}: AP below cleanlab or Datalab in {len(below)}{text}; on average "
            f"{-np.mean(list(gaps.values())):+.3f}; noise rate closer than cleanlab's in {closer:.0%}, in "
            f"the interval in {covered:.0%}"
        )


if __name__ == "__main__":
    main()
