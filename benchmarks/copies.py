"""What copies of a text do to the verdict on labels, with and without ``groups``.

    OMP_NUM_THREADS=1 python benchmarks/copies.py --data-dir DATA

A fifth of the rows stands twice in the table and 300 rows five times; copies carry the same label, right or
wrong, as they do where labels were copied with the texts. A model that has seen a copy has seen the label:
without groups, wrong labels of copies look right. Prints average precision, recall of wrong labels among
copied and among other rows, and the estimated noise rate, for ``fit_probe`` with the copies as groups and
with groups=None. Features are those of MiniLM; BBC is packaged, TREC-6 is read from --data-dir.
"""

import numpy as np

from clear_peft.label_quality import fit_probe
from label_noise_cells import (
    arguments,
    average_precision,
    calibration_error,
    noisy_labels,
    number,
    precision,
    recall,
    suspicion,
    tables,
)

NOISE = (("symmetric", 0.4), ("pair", 0.4))
_TWICE = 0.2
_FIVE_TIMES = 300


def main() -> None:
    """Copy, judge, print."""
    parser = arguments(__doc__)
    options = parser.parse_args()
    print(
        "| data | noise | groups | wrong | estimated | AP | precision | recall: copied | others | ECE |\n"
        "|---|---|---|---|---|---|---|---|---|---|"
    )
    for name, table, features in tables(options, ("bbc", "trec6")):
        source = with_copies(len(features), options.seed)
        copied = np.bincount(source)[source] > 1
        for kind, rate in NOISE:
            noisy = noisy_labels(table, kind, rate, features, options.seed)
            labels, wrong = noisy[source], (noisy != table.true)[source]
            for groups in (source, None):
                _, quality = fit_probe(features[source], labels, table.num_classes, groups=groups)
                listed, p = quality.is_label_issue, quality.clean_probability.astype(float)
                low, high = quality.noise_rate_interval
                columns = (
                    number(average_precision(suspicion(quality), wrong), 3),
                    number(precision(listed, wrong)),
                    number(recall(listed[copied], wrong[copied])),
                    number(recall(listed[~copied], wrong[~copied])),
                    number(calibration_error(p, ~wrong), 3),
                )
                print(
                    f"| {name} | {kind} {rate} | {'copies' if groups is source else 'None'} "
                    f"| {wrong.mean():.3f} | {quality.noise_rate:.3f} ({low:.2f} to {high:.2f}) "
                    f"| {' | '.join(columns)} |",
                    flush=True,
                )


def with_copies(size: int, seed: int) -> np.ndarray:
    """The row that each row of the longer table comes from, in random order."""
    rng = np.random.default_rng(seed)
    order = rng.permutation(size)
    five = order[:_FIVE_TIMES]
    twice = order[_FIVE_TIMES : _FIVE_TIMES + int(_TWICE * size)]
    return rng.permutation(np.concatenate([np.arange(size), twice, np.repeat(five, 4)]))


if __name__ == "__main__":
    main()
