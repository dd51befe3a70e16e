"""Nearest rows in feature space, and what they tell: near duplicates and outliers.

Scores and thresholds are those that cleanlab's Datalab defines (2.9: ``issue_manager/duplicate.py`` and
``outlier.py``), with its defaults. None was chosen on labels.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]
Places = npt.NDArray[np.int64]

_NEIGHBOURS = 10
# Datalab's: a share of the median distance to the nearest row, and of how far a whisker reaches
_DUPLICATE, _OUTLIER = 0.13, 0.37
# of so many rows every pair is compared
_MOST_EXACT = 10_000
_CELL = 1000
_LOOKED_AT = 8000
_STEPS = 3
# bounds the memory: pairs that are compared together
_PAIRS = 2**23
# distances below it are float32's own error
_NOTHING = 1e-6
_SEED = 0


@dataclass(frozen=True, eq=False)
class Neighbours:
    """The nearest other rows of each of N rows, the nearest first.

    Attributes:
        rows: Their positions, (N, K) int64.
        distances: Cosine distances, 1 − cos, (N, K) float64.
    """

    rows: Places
    distances: Floats

    def near_duplicates(self) -> tuple[npt.NDArray[np.bool_], Floats]:
        """Which rows nearly equal another: nearer than 0.13 of the median distance to the nearest row.

        Returns:
            Which, (N,) bool, and a score, (N,): 1 − exp(−distance / median), 0 for a copy.
        """
        nearest = self.distances[:, 0]
        middle = float(np.median(nearest))
        score = 1 - np.exp(-nearest / max(middle, _NOTHING))
        return nearest <= _DUPLICATE * middle, score

    def outliers(self) -> tuple[npt.NDArray[np.bool_], Floats]:
        """Which rows are far from all others: their mean distance is above Q3 + (1/0.37 − 1) IQR.

        Returns:
            Which, (N,) bool, and a score, (N,): exp(−mean distance / median), near 0 for an outlier.
        """
        mean = self.distances.mean(axis=1)
        first, middle, third = np.percentile(mean, (25, 50, 75))
        score = np.exp(-mean / max(middle, _NOTHING))
        return mean > third + (1 / _OUTLIER - 1) * (third - first), score


def neighbours(features: npt.NDArray[np.floating], count: int = _NEIGHBOURS) -> Neighbours:
    """Find the nearest rows by cosine distance.

    Up to 10,000 rows are compared with all others. More are put into cells of about 1,000 rows by k-means,
    and compared with 8,000 rows of the nearest cells: a neighbour in another cell is missed, so that some
    distances are too long. This takes time linear in N; 100,000 rows of 384 features take about half a minute
    on one core.

    Args:
        features: (N, D), or (N, V, D) for V representations of each row, of which the last is looked at;
            N ≥ 2.
        count: K; fewer if there are not so many other rows. Default 10.

    Returns:
        The neighbours.
    """
    points = np.array(features if features.ndim == 2 else features[:, -1], np.float32)
    points /= np.maximum(np.linalg.norm(points, axis=1, keepdims=True), np.finfo(np.float32).tiny)
    size = len(points)
    count = min(count, size - 1)
    rows, distances = np.empty((size, count), np.int64), np.empty((size, count))
    for own, others in _searched(points):
        block = max(1, _PAIRS // len(others))
        theirs = points[others].T
        for start in range(0, len(own), block):
            part = own[start : start + block]
            likeness = points[part] @ theirs
            likeness[np.arange(len(part)), start + np.arange(len(part))] = -np.inf  # the row itself
            top = np.argpartition(likeness, -count, axis=1)[:, -count:]
            found = np.take_along_axis(likeness, top, axis=1)
            order = np.argsort(-found, axis=1, kind="stable")
            rows[part] = others[np.take_along_axis(top, order, axis=1)]
            distances[part] = 1 - np.take_along_axis(found, order, axis=1)
    distances[distances < _NOTHING] = 0
    return Neighbours(rows, distances)


def _searched(points: npt.NDArray[np.float32]) -> Iterator[tuple[Places, Places]]:
    """Rows, and the rows that they are compared with, which begin with these."""
    every = np.arange(len(points))
    if len(points) <= _MOST_EXACT:
        yield every, every
        return
    cells, middles = _cells(points)
    sizes = np.array([len(cell) for cell in cells])
    for place, cell in enumerate(cells):
        nearest = np.argsort(-(middles @ middles[place]), kind="stable")
        nearest = nearest[nearest != place]
        enough = np.searchsorted(np.cumsum(sizes[nearest]), _LOOKED_AT - len(cell)) + 1
        yield cell, np.concatenate([cell, *(cells[other] for other in nearest[:enough])])


def _cells(points: npt.NDArray[np.float32]) -> tuple[list[Places], npt.NDArray[np.float32]]:
    """Rows of each cell, at most 2,000, and the middle of each (k-means by cosine, on a random part)."""
    rng = np.random.default_rng(_SEED)
    count = len(points) // _CELL
    drawn = points[rng.choice(len(points), min(len(points), 50 * count), replace=False)]
    middles = drawn[:count].copy()
    for _ in range(_STEPS):
        cell = (drawn @ middles.T).argmax(axis=1)
        for each in np.unique(cell):
            middle = drawn[cell == each].sum(axis=0)
            middles[each] = middle / max(float(np.linalg.norm(middle)), np.finfo(np.float32).tiny)
    parts = np.array_split(points, len(points) // _MOST_EXACT + 1)
    cell = np.concatenate([(part @ middles.T).argmax(axis=1) for part in parts])
    rows, place = [], []
    for each in np.unique(cell):
        within = np.flatnonzero(cell == each)  # of a table of copies, all may be in one
        pieces = np.array_split(within, -(-len(within) // (2 * _CELL)))
        rows += pieces
        place += [each] * len(pieces)
    return rows, middles[place]
