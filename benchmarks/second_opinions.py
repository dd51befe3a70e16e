"""What a second opinion is worth, before any training: ``fit_probe`` with ``votes``.

    OMP_NUM_THREADS=1 python benchmarks/second_opinions.py --data-dir DATA --cache FOLDER

The given labels are real ones, wrong for a reason. Second opinions: the class whose name is most like the
text (where names are words); one or two that are wrong by chance in 30 % (and 50 %) of the rows; one such
that says something of 30 % of the rows alone; and two that are not independent of the given labels:
predictions by 11 nearest neighbours, learnt from them, and the given labels with half of their errors set
right.

Prints, as means over seeds, the accuracy on true test labels of a probe on the given labels alone, on the
best opinion alone, and on all together; the average precision of the list without and with opinions; and the
noise rate: true, estimated without and with opinions.
"""

from argparse import Namespace
from collections.abc import Callable

import numpy as np
from sklearn.model_selection import cross_val_predict
from sklearn.neighbors import KNeighborsClassifier

from clear_peft.data import LabelNames, read_table
from clear_peft.label_quality import LabelQuality, LinearProbe, fit_probe
from clear_peft.pipeline.encoder import encode
from clear_peft.pipeline.packages import minilm
from label_noise_cells import (
    Table,
    arguments,
    average_precision,
    groups_of,
    name_similarity,
    number,
    suspicion,
    tables,
)

_SETS = ("trec_weak", "semeval_llm", "hausa_news", "yoruba_news", "noisyagnews")
# of trec_weak, whose labels are numbers
_NAMES = {
    "c0": "description",
    "c1": "entity",
    "c2": "human",
    "c3": "abbreviation",
    "c4": "location",
    "c5": "number",
}
_MOST_TEST_ROWS = 2000
Opinions = Callable[[Table, np.ndarray, np.random.Generator], np.ndarray]


def main() -> None:
    """Parse, judge, print."""
    parser = arguments(__doc__)
    parser.add_argument("--seeds", type=int, default=3)
    options = parser.parse_args()
    print(
        "| data | opinions | given alone | best opinion alone | together | AP | with opinions "
        "| true rate | estimated | with opinions |"
    )
    print("|---" * 10 + "|")
    for name, table, features in tables(options, list(_SETS)):
        bench = _Bench(table, features, options)
        for kind, opinions in _KINDS.items():
            cells = [
                cell for seed in range(options.seeds) if (cell := bench.judged(opinions, seed)) is not None
            ]
            if cells:
                print(
                    f"| {name} | {kind} | {' | '.join(number(x) for x in np.mean(cells, axis=0))} |",
                    flush=True,
                )


class _Bench:
    def __init__(self, table: Table, features: np.ndarray, options: Namespace) -> None:
        self._table, self._features, self._groups = table, features, groups_of(table)
        frame = read_table(options.data_dir / table.name / "test.csv").head(_MOST_TEST_ROWS)
        frame = frame[frame["label"].isin(table.names)]
        model = options.model or str(minilm())
        self._test = encode(list(frame["text"]), model, cache=options.cache)
        self._test_labels = LabelNames.fit(table.names).encode(frame["label"])
        named = Table(**{**vars(table), "names": [_NAMES.get(label, label) for label in table.names]})
        self._similarity = name_similarity(named, features, options)
        self._alone = self._fitted(table.given)

    def judged(self, opinions: Opinions, seed: int) -> list[float] | None:
        """Figures as in the heading; None where there is no such opinion."""
        table, rng = self._table, np.random.default_rng(seed)
        if opinions is by_names and self._similarity is None:
            return None
        said = opinions(table, self._similarity if opinions is by_names else self._features, rng)
        best = max(self._accuracy(self._fitted(column, column >= 0)[0]) for column in said.T)
        both = self._fitted(table.given, votes=np.column_stack([table.given, said]))
        wrong = table.given != table.true
        return [
            self._accuracy(self._alone[0]),
            best,
            self._accuracy(both[0]),
            *(average_precision(suspicion(quality), wrong) for _, quality in (self._alone, both)),
            float(wrong.mean()),
            self._alone[1].noise_rate,
            both[1].noise_rate,
        ]

    def _fitted(
        self, labels: np.ndarray, rows: np.ndarray | None = None, votes: np.ndarray | None = None
    ) -> tuple[LinearProbe, LabelQuality]:
        some = np.arange(len(labels)) if rows is None else np.flatnonzero(rows)
        return fit_probe(
            self._features[some],
            labels[some],
            self._table.num_classes,
            groups=self._groups[some],
            votes=votes,
        )

    def _accuracy(self, probe: LinearProbe) -> float:
        found = probe.judge(self._test, np.zeros(len(self._test), np.int64)).pred_probs
        return float((found.argmax(axis=1) == self._test_labels).mean())


def by_names(table: Table, similarity: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """The class whose name is most like the text."""
    return similarity.argmax(axis=1)[:, None]


def by_chance(*rates: float, cover: float = 1.0) -> Opinions:
    """Opinions that are wrong at a rate each, any class for any, on a share of the rows."""

    def opinions(table: Table, features: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        said = np.repeat(table.true[:, None], len(rates), axis=1)
        off = rng.random(said.shape) < rates
        said[off] = (said[off] + rng.integers(1, table.num_classes, off.sum())) % table.num_classes
        said[rng.random(said.shape) >= cover] = -1
        return said

    return opinions


def by_neighbours(table: Table, features: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """What 11 nearest neighbours predict, who have the given labels."""
    return cross_val_predict(KNeighborsClassifier(11), features[:, -1], table.given, cv=5)[:, None]


def half_right(table: Table, features: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """The given labels with half of their errors set right."""
    return np.where(rng.random(len(table.true)) < 0.5, table.true, table.given)[:, None]


_KINDS: dict[str, Opinions] = {
    "names of the classes": by_names,
    "by chance 30 %": by_chance(0.3),
    "by chance 30 %, on 30 % of the rows": by_chance(0.3, cover=0.3),
    "by chance 30 % and 50 %": by_chance(0.3, 0.5),
    "neighbours, not independent": by_neighbours,
    "half of the errors set right, not independent": half_right,
}

if __name__ == "__main__":
    main()
