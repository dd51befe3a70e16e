"""How often the interval of the noise rate covers the true rate, and whether p is calibrated.

    python benchmarks/coverage.py --output coverage.jsonl --data-dir DATA
    python benchmarks/coverage.py --output coverage.jsonl --fit

Cells are numbered, and each draws its own data and noise. Half of them are synthetic: classes are mixtures of
Gaussians whose spectrum falls as that of sentence embeddings does, 2 to 150 classes, 600 to 6,000 rows, easy
to hard. The other half are rows of data sets, embedded by MiniLM: packaged ones, and those of the table in
``label_noise_cells`` that lie in --data-dir. Noise is none, symmetric, pair, class-conditional or
instance-dependent, up to .6 where labels still say more than chance; cells with the data's own noise follow.

Every cell is a line of --output; those that are there are not computed again. Prints, for each kind of noise,
how often the interval covers the true rate, its mean width, the mean error of the estimate and the expected
calibration error of p; and of all cells together the share of right labels by p.

The interval is the estimate ± (a · standard error + b). --fit prints, for a grid of a and b, the coverage of
cells with odd numbers, by which they are chosen, of cells with even numbers, by which they are confirmed, and
the mean half-width.
"""

import argparse
import json
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

from clear_peft.label_quality import fit_probe
from clear_peft.label_quality.interval import _RESOLUTION, _STANDARD_ERRORS
from label_noise_cells import (
    CLEAN,
    NOISY,
    Table,
    arguments,
    calibration_error,
    features_of,
    groups_of,
    last_layer,
    put_in,
    read,
)

KINDS = ("none", "symmetric", "pair", "class-conditional", "instance-dependent")
RATES = (0.05, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6)
CLASSES = (2, 5, 20, 77, 150)
ROWS = (600, 1200, 2500, 6000)
# spread of class centres, against that of what is around them: .97, .85 and .65 of the rows are told apart
SEPARATIONS = {"easy": 0.26, "medium": 0.16, "hard": 0.1}
MOST_CELLS = 200_000  # rows × classes
_DIMENSIONS = 128
_DECAY = 0.8
_BINS = 10
# most of each kind at which the given class is still the likeliest one; a class-conditional rate is the mean
# of classes whose own go up to twice as far
_MOST = {"symmetric": 0.6, "pair": 0.45, "class-conditional": 0.3, "instance-dependent": 0.4}
_MOST_OF_TWO = {"symmetric": 0.4, "pair": 0.4, "class-conditional": 0.2, "instance-dependent": 0.4}
_GRID = [(a, b) for a in (2.0, 2.5, 3.0, 3.5, 4.0) for b in (0.01, 0.02, 0.03, 0.04, 0.05)]


def main() -> None:
    """Compute the cells that are missing, print the tables."""
    parser = arguments(__doc__)
    parser.add_argument("--output", type=Path, required=True, help="JSON lines, one a cell")
    parser.add_argument("--cells", type=int, default=200)
    parser.add_argument("--fit", action="store_true", help="print the grid of both constants")
    options = parser.parse_args()
    if not options.fit:
        compute(options)
    cells = [json.loads(line) for line in options.output.read_text().splitlines()]
    if options.fit:
        print_grid(cells)
    else:
        print_kinds(cells)
        print_reliability(cells)


def compute(options: argparse.Namespace) -> None:
    """Append what is missing to the output."""
    done = set()
    if options.output.exists():
        done = {json.loads(line)["cell"] for line in options.output.read_text().splitlines()}
    names = options.data or [*CLEAN, *NOISY]
    tables: dict[str, tuple[Table, np.ndarray] | None] = {}

    def rows_of(name: str, size: int, seed: int) -> tuple[Table, np.ndarray] | None:
        if name not in tables:
            table = read(name, options.data_dir)
            tables[name] = table and (table, features_of(table, options))
        found = tables[name]
        if found is None:
            return None
        table, features = found
        places = np.sort(np.random.default_rng(seed).permutation(len(features))[:size])
        return table.sample(size, seed), features[places]

    with options.output.open("a") as file:
        for cell in range(options.cells + 2 * len(NOISY)):
            if cell in done:
                continue
            started = time.perf_counter()
            own = cell - options.cells
            found = given(own, cell, rows_of) if own >= 0 else drawn(cell, names, rows_of)
            if found is not None:
                seconds = time.perf_counter() - started
                file.write(json.dumps({"cell": cell, **found, "seconds": round(seconds, 2)}) + "\n")
                file.flush()


RowsOf = Callable[[str, int, int], tuple[Table, np.ndarray] | None]


def drawn(cell: int, names: list[str], rows_of: RowsOf) -> dict[str, Any] | None:
    """One numbered cell; two that follow each other, odd and even, differ only in what is drawn."""
    rng = np.random.default_rng((0, cell))
    kind = KINDS[cell // 2 % len(KINDS)]
    if cell // 10 % 2 == 0:
        place = cell // 20
        classes = CLASSES[place % len(CLASSES)]
        size = min(int(rng.choice(ROWS)), MOST_CELLS // classes)
        level = str(rng.choice(list(SEPARATIONS)))
        true = rng.choice(classes, size, p=rng.dirichlet(np.full(classes, 5.0)))
        features = world(true, classes, SEPARATIONS[level] * np.sqrt(np.log2(classes)), rng)
        source, last, groups = f"synthetic {level}", features, None
    else:
        place = cell // 20
        name = names[(2 * place + cell % 2 + 5 * (cell // 2 % len(KINDS))) % len(names)]
        found = rows_of(name, int(rng.integers(600, 3000)), cell)
        if found is None:
            return None
        table, features = found
        true, classes, source = table.true, table.num_classes, name
        last, groups = last_layer(features), groups_of(table)
    most = (_MOST_OF_TWO if classes == 2 else _MOST).get(kind, 0.0)
    rate = float(rng.choice([rate for rate in RATES if rate <= most])) if most else 0.0
    labels = put_in(true, classes, kind, rate, last, cell)
    return {"source": source, "kind": kind, "rate": rate, **judged(features, labels, true, classes, groups)}


def given(own: int, cell: int, rows_of: RowsOf) -> dict[str, Any] | None:
    """A data set with its own noise."""
    name = NOISY[own // 2]
    found = rows_of(name, 2500, cell)
    if found is None:
        return None
    table, features = found
    judgement = judged(features, table.given, table.true, table.num_classes, groups_of(table))
    return {"source": name, "kind": "given", "rate": None, **judgement}


def world(true: np.ndarray, classes: int, separation: float, rng: np.random.Generator) -> np.ndarray:
    """Features (N, D) of rows of some classes: one to three Gaussians each, with a falling spectrum."""
    spread = np.arange(1, _DIMENSIONS + 1) ** (-_DECAY / 2)
    centres = separation * spread * rng.normal(size=(classes, _DIMENSIONS))
    parts = 0.5 * separation * spread * rng.normal(size=(classes, 3, _DIMENSIONS))
    part = rng.integers(0, 1 + rng.integers(0, 3, classes)[true])
    noise = spread * rng.normal(size=(len(true), _DIMENSIONS))
    return (centres[true] + parts[true, part] + noise).astype(np.float32)


def judged(
    features: np.ndarray, labels: np.ndarray, true: np.ndarray, classes: int, groups: np.ndarray | None
) -> dict[str, Any]:
    """Estimate, interval and calibration."""
    _, quality = fit_probe(features, labels, classes, groups=groups)
    p, right = quality.clean_probability.astype(float), labels == true
    low, high = quality.noise_rate_interval
    # an end at 0 or 1 may have been cut off: the wider side shows the half-width
    half = max(high - quality.noise_rate, quality.noise_rate - low)
    bins = np.minimum((p * _BINS).astype(int), _BINS - 1)
    return {
        "classes": classes,
        "rows": len(labels),
        "true": float(1 - right.mean()),
        "estimate": quality.noise_rate,
        "low": low,
        "high": high,
        "error": max(half - _RESOLUTION, 0.0) / _STANDARD_ERRORS,
        "found": quality.noise.kind,
        "accuracy": float((quality.predicted == true).mean()),
        "ece": calibration_error(p, right),
        "bins": [np.bincount(bins, weights, _BINS).tolist() for weights in (None, p, right)],
    }


def print_kinds(cells: list[dict[str, Any]]) -> None:
    """A row for each kind of noise and each sort of data."""
    print("| noise | data | cells | covered | mean width | mean error | bias | ECE: median | 90 % |")
    print("|---|---|---|---|---|---|---|---|---|")
    for title, sort, some in kinds(cells):
        off = np.array([cell["estimate"] - cell["true"] for cell in some])
        width = np.mean([cell["high"] - cell["low"] for cell in some])
        ece = np.array([cell["ece"] for cell in some])
        print(
            f"| {title} | {sort} | {len(some)} | {coverage(some):.0%} | {width:.3f} "
            f"| {np.abs(off).mean():.3f} | {off.mean():+.3f} "
            f"| {np.median(ece):.3f} | {np.quantile(ece, 0.9):.3f} |"
        )


def kinds(cells: list[dict[str, Any]]) -> Iterator[tuple[str, str, list[dict[str, Any]]]]:
    """The cells of each kind of noise, synthetic and real ones apart, as far as there are any."""
    for kind in (*KINDS, "given"):
        for sort in ("synthetic", "real"):
            some = [
                cell
                for cell in cells
                if cell["kind"] == kind and cell["source"].startswith("synthetic") == (sort == "synthetic")
            ]
            if some:
                yield kind, sort, some
    put_in = [cell for cell in cells if cell["kind"] != "given"]
    yield "all but given", "all", put_in


def print_reliability(cells: list[dict[str, Any]]) -> None:
    """Of all rows with the same p, the share of right labels; given labels apart."""
    print("\n| p | rows | mean p | share right | given: rows | mean p | share right |")
    print("|---|---|---|---|---|---|---|")
    parts = []
    for real in (False, True):
        some = [cell["bins"] for cell in cells if (cell["kind"] == "given") == real]
        parts.append(np.sum(some or [np.zeros((3, _BINS))], axis=0))
    for place in range(_BINS):
        columns = [f"{place / _BINS:.1f}–{(place + 1) / _BINS:.1f}"]
        for part in parts:
            rows, p, right = part[:, place]
            columns += [f"{rows:.0f}", f"{p / max(rows, 1):.3f}", f"{right / max(rows, 1):.3f}"]
        print("| " + " | ".join(columns) + " |")


def coverage(cells: list[dict[str, Any]], constants: tuple[float, float] | None = None) -> float:
    """Share of the cells whose interval holds the true rate; by other constants, if given."""
    if constants is None:
        return float(np.mean([cell["low"] <= cell["true"] <= cell["high"] for cell in cells]))
    a, b = constants
    return float(np.mean([abs(cell["true"] - cell["estimate"]) <= a * cell["error"] + b for cell in cells]))


def print_grid(cells: list[dict[str, Any]]) -> None:
    """Coverage of odd and even cells for all constants."""
    sorts = {"none, symmetric": ("none", "symmetric"), "pair": ("pair",)}
    sorts |= {"all three": ("none", "symmetric", "pair"), "all five": KINDS}
    titles = [f"{half}: {sort}" for half in ("odd", "even") for sort in sorts]
    print("| a | b | mean half-width | " + " | ".join(titles) + " |\n|" + "---|" * (3 + len(titles)))
    for a, b in _GRID:
        columns = [
            f"{coverage(some, (a, b)):.0%}"
            for half in (1, 0)
            for chosen in sorts.values()
            if (some := [cell for cell in cells if cell["kind"] in chosen and cell["cell"] % 2 == half])
        ]
        half_width = np.mean([a * cell["error"] + b for cell in cells if cell["kind"] in sorts["all three"]])
        print(f"| {a} | {b} | {half_width:.3f} | " + " | ".join(columns) + " |")


if __name__ == "__main__":
    main()
