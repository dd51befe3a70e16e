"""What the benchmarks of label quality have in common: data sets, features, label noise and measures.

A cell is a data set with one kind of noise in its labels. Data sets are tables with the columns text and
label in the folder --data-dir, or packaged ones, which need no folder. A column clean_label, if there is one,
is the truth, and label is then real noise: the kind "given".
"""

import argparse
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from sklearn.metrics import average_precision_score

from clear_peft.bench.packaged import PACKAGED, packaged
from clear_peft.data import LabelNames, read_table
from clear_peft.label_quality import LabelQuality, duplicate_groups
from clear_peft.noise import instance_dependent, pair_flip, symmetric, transition
from clear_peft.pipeline.encoder import encode, name_texts, similarities
from clear_peft.pipeline.packages import minilm

CLEAN = ("trec6", "banking77", "sst5", "bbc", "r8", "tweets", "20news")
NOISY = ("noisyagnews", "trec_weak", "semeval_llm", "hausa_news", "yoruba_news", "crowd")
# kind and rate; of class-conditional noise, the rate is the mean of the classes' own
NOISE = (
    ("none", 0.0),
    ("symmetric", 0.2),
    ("symmetric", 0.4),
    ("symmetric", 0.6),
    ("pair", 0.2),
    ("pair", 0.4),
    ("class-conditional", 0.3),
    ("instance-dependent", 0.4),
)
GIVEN = ("given", 0.0)
MOST_ROWS = 12_000
_CONFUSED_WITH = 3
_ECE_BINS = 15


@dataclass(frozen=True, eq=False)
class Table:
    """Texts with given and true labels."""

    name: str
    texts: list[str]
    given: np.ndarray
    true: np.ndarray
    names: tuple[str, ...]

    @property
    def num_classes(self) -> int:
        """C."""
        return len(self.names)

    @property
    def noise(self) -> tuple[tuple[str, float], ...]:
        """All kinds of noise that there can be in it."""
        return (*NOISE, GIVEN) if (self.given != self.true).any() else NOISE

    def sample(self, rows: int, seed: int) -> "Table":
        """At most so many rows, in their order."""
        order = np.random.default_rng(seed).permutation(len(self.texts))
        some = np.sort(order[:rows])
        return Table(self.name, [self.texts[i] for i in some], self.given[some], self.true[some], self.names)


def arguments(description: str) -> argparse.ArgumentParser:
    """Options of the data."""
    parser = argparse.ArgumentParser(
        description=description, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data-dir", type=Path, help="folder of the tables that are not packaged")
    parser.add_argument("--data", nargs="+", help="names of data sets")
    parser.add_argument("--model", help="default: the packaged MiniLM")
    parser.add_argument("--cache", type=Path, help="folder that keeps features; default: none")
    parser.add_argument("--rows", type=int, default=2500)
    parser.add_argument("--seed", type=int, default=0)
    return parser


def read(name: str, data_dir: Path | None) -> Table | None:
    """A data set by name; None where it is not there."""
    if name in PACKAGED:
        frame = packaged(name)[0]
    else:
        file = Path(data_dir or ".") / name / "train.csv"
        if not file.exists():
            return None
        frame = read_table(file)
    frame = frame.head(MOST_ROWS)
    true = frame["clean_label" if "clean_label" in frame else "label"]
    names = LabelNames.fit([*frame["label"], *true])
    given = names.encode(frame["label"])
    return Table(name, list(frame["text"]), given, names.encode(true), tuple(names.names))


def tables(options: argparse.Namespace, default: Sequence[str]) -> Iterator[tuple[str, Table, np.ndarray]]:
    """Name, rows and features of each data set that was asked for; says which are not there."""
    for name in options.data or default:
        table = read(name, options.data_dir)
        if table is None:
            print(f"{name}: not in {options.data_dir}")
            continue
        table = table.sample(options.rows, options.seed)
        yield name, table, features_of(table, options)


def known_cells(path: Path | None, keys: Sequence[str]) -> dict[tuple[str, ...], dict[str, Any]]:
    """Cells that a file of JSON lines holds, by the values of some keys."""
    if path is None or not path.exists():
        return {}
    cells = [json.loads(line) for line in path.read_text().splitlines()]
    return {tuple(cell[key] for key in keys): cell for cell in cells}


def keep_cell(cell: dict[str, Any], path: Path | None) -> None:
    """Append a cell to a file of JSON lines, if there is one."""
    if path is not None:
        with path.open("a") as file:
            file.write(json.dumps(cell) + "\n")


def features_of(table: Table, options: argparse.Namespace) -> np.ndarray:
    """Layers of a frozen encoder, (N, V, D) float32."""
    return encode(table.texts, options.model or str(minilm()), cache=options.cache)


def last_layer(features: np.ndarray) -> np.ndarray:
    """The last layer at unit length, (N, D), as sentence embeddings are commonly used.

    Logistic regression with the usual penalty ranks wrong labels far better on it than on rows as they come.
    """
    last = features[:, -1].astype(np.float32)
    return last / np.linalg.norm(last, axis=1, keepdims=True)


def name_similarity(table: Table, features: np.ndarray, options: argparse.Namespace) -> np.ndarray | None:
    """Cosine of the last layer of each text and of each class's name, (N, C); None if no name is a word."""
    words = name_texts(table.names)
    if words is None:
        return None
    classes = encode(words, options.model or str(minilm()), cache=options.cache)
    return similarities(features[:, -1].astype(np.float32), classes[:, -1].astype(np.float32))


def groups_of(table: Table) -> np.ndarray:
    """Copies of a text in one group, (N,)."""
    return duplicate_groups(table.texts)


def noisy_labels(table: Table, kind: str, rate: float, features: np.ndarray, seed: int) -> np.ndarray:
    """Labels with one kind of noise, (N,); instance-dependent noise looks at the last layer."""
    if kind == "given":
        return table.given
    return put_in(table.true, table.num_classes, kind, rate, last_layer(features), seed)


def put_in(
    true: np.ndarray, num_classes: int, kind: str, rate: float, features: np.ndarray, seed: int
) -> np.ndarray:
    """True labels with one kind of noise, (N,); instance-dependent noise looks at the features, (N, D)."""
    match kind:
        case "none":
            return true
        case "symmetric":
            return symmetric(true, num_classes, rate, seed).labels
        case "pair":
            return pair_flip(true, num_classes, rate, seed).labels
        case "class-conditional":
            return transition(true, confusions(num_classes, 2 * rate, seed), seed).labels
        case "instance-dependent":
            rows = np.asarray(features, np.float32)
            return instance_dependent(true, rows, num_classes, rate, seed).labels
        case _:
            raise ValueError(kind)


def confusions(num_classes: int, most: float, seed: int) -> np.ndarray:
    """T with a rate of up to ``most`` for each class, and up to three classes that it is confused with."""
    rng = np.random.default_rng(seed)
    matrix = np.zeros((num_classes, num_classes))
    for label, rate in enumerate(rng.uniform(0, most, num_classes)):
        others = np.delete(np.arange(num_classes), label)
        taken = rng.choice(others, min(_CONFUSED_WITH, len(others)), replace=False)
        matrix[label, taken] = rate * rng.dirichlet(np.ones(len(taken)))
        matrix[label, label] = 1 - rate
    return matrix


def suspicion(quality: LabelQuality) -> np.ndarray:
    """A score that is higher the earlier a row stands in the list, (N,)."""
    order = np.lexsort((quality.self_confidence, quality.clean_probability))
    score = np.empty(len(order))
    score[order] = -np.arange(len(order))
    return score


def average_precision(suspicion: np.ndarray, wrong: np.ndarray) -> float:
    """Of a ranking by falling suspicion; nan where no label is wrong."""
    return float(average_precision_score(wrong, suspicion)) if wrong.any() else float("nan")


def precision(listed: np.ndarray, wrong: np.ndarray) -> float:
    """Share of the listed rows that are wrong; nan where none is listed or none is wrong."""
    return float(wrong[listed].mean()) if listed.any() and wrong.any() else float("nan")


def recall(listed: np.ndarray, wrong: np.ndarray) -> float:
    """Share of the wrong rows that are listed; nan where none is wrong."""
    return float(listed[wrong].mean()) if wrong.any() else float("nan")


def first(suspicion: np.ndarray, length: int) -> np.ndarray:
    """The most suspicious rows as a mask, (N,)."""
    listed = np.zeros(len(suspicion), bool)
    listed[np.argsort(-suspicion, kind="stable")[:length]] = True
    return listed


def calibration_error(p: np.ndarray, right: np.ndarray) -> float:
    """Expected calibration error of p with 15 bins of equal width."""
    bins = np.minimum((p * _ECE_BINS).astype(int), _ECE_BINS - 1)
    gaps = np.bincount(bins, p - right.astype(float), _ECE_BINS)
    return float(np.abs(gaps).sum() / len(p))


def number(value: float, digits: int = 2) -> str:
    """A number of a table; – where there is none."""
    return "–" if np.isnan(value) else f"{value:.{digits}f}"
