"""Ridge regression of one-hot labels, and what it predicts of each row without the row's group.

Leaving out one row of least squares has a closed form (Allen 1974, PRESS). Its block form leaves out a group:
with H the block of the hat matrix that belongs to the group, and ŷ the predictions of the full fit,

    prediction without the group = (I − H)⁻¹ (ŷ − H y).

One eigendecomposition serves every strength of the penalty.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import numpy.typing as npt

from clear_peft.errors import InputError
from clear_peft.label_quality.types import Array

# of features whose mean squared norm is 1
PENALTIES = 10.0 ** np.arange(-2, 5, 0.5)
_CHUNK = 1 << 14
_FLOAT32_TINY = 1e-30


class Features(Protocol):
    """An array, or anything that gives rows as one: a memory map, or a class that reads a file."""

    @property
    def shape(self) -> tuple[int, ...]:
        """(N, D)."""
        ...

    def __getitem__(self, rows: slice | npt.NDArray[np.integer]) -> npt.NDArray[np.floating]:
        """Rows by slice or by position."""
        ...


def one_hot(labels: npt.NDArray[np.integer], num_classes: int) -> Array:
    """(N,) class ids as (N, C) float64."""
    rows = np.zeros((len(labels), num_classes))
    rows[np.arange(len(labels)), labels] = 1
    return rows


def whole_groups(groups: npt.NDArray[np.integer] | None, size: int) -> Iterator[tuple[npt.NDArray, int]]:
    """Positions of rows in chunks of whole groups; of one chunk, all groups have as many rows.

    Args:
        groups: Group of each row, (N,); None if every row is a group of its own.
        size: N.

    Yields:
        Positions (B,), the rows of a group side by side, and how many rows each group has.
    """
    if groups is None:
        for start in range(0, size, _CHUNK):
            yield np.arange(start, min(start + _CHUNK, size)), 1
        return
    _, inverse, counts = np.unique(groups, return_inverse=True, return_counts=True)
    sizes = counts[inverse]
    order = np.lexsort((inverse, sizes))
    for each in np.unique(counts):
        rows = order[np.searchsorted(sizes[order], each) : np.searchsorted(sizes[order], each, side="right")]
        step = max(1, _CHUNK // int(each)) * int(each)
        for start in range(0, len(rows), step):
            yield rows[start : start + step], int(each)


@dataclass(frozen=True, eq=False)
class Ridge:
    """Weighted ridge regression of one-hot labels on standardised features, for all penalties at once.

    Attributes:
        center: Mean of the features, (D,).
        scale: Root of their mean squared norm after centring.
        values: Eigenvalues of the weighted Gram matrix, (D + 1,).
        vectors: Its eigenvectors, (D + 1, D + 1) float32.
        products: Weighted features times one-hot labels, in the basis of the eigenvectors, (D + 1, C).
    """

    center: Array
    scale: float
    values: Array
    vectors: npt.NDArray[np.float32]
    products: Array

    @classmethod
    def fit(
        cls,
        features: Features,
        labels: npt.NDArray[np.integer],
        num_classes: int,
        weights: Array | None = None,
    ) -> "Ridge":
        """Fit in two passes over the features; O(N·D² + D³) time, O(D² + D·C) memory.

        Args:
            features: (N, D), on any scale.
            labels: Class ids, (N,).
            num_classes: C.
            weights: How much each row counts, (N,). Default: all count alike.

        Raises:
            InputError: If a feature is not finite.
        """
        size, dimensions = len(labels), features.shape[1]
        chunks = [slice(start, start + _CHUNK) for start in range(0, size, _CHUNK)]
        center = sum(np.asarray(features[part], np.float32).sum(axis=0, dtype=np.float64) for part in chunks)
        center = np.asarray(center) / size
        if not np.isfinite(center).all():
            raise InputError(
                "The features are not all finite numbers: give those of a model that runs in float32 or bf16."
            )
        gram, products = np.zeros((dimensions + 1,) * 2), np.zeros((dimensions + 1, num_classes))
        for part in chunks:
            rows = np.ones((len(labels[part]), dimensions + 1), np.float32)
            rows[:, :-1] = np.asarray(features[part], np.float32) - center
            weighted = rows.T if weights is None else rows.T * weights[part].astype(np.float32)
            gram += weighted @ rows
            products += sums_by_label(weighted.T, labels[part], num_classes).T
        # every sum scales with the features: all but the last row and column, the intercept's
        trace = float(np.trace(gram[:-1, :-1]))
        total = size if weights is None else float(weights.sum())
        scale = np.sqrt(trace / total) if trace > _FLOAT32_TINY else 1.0
        shrink = np.append(np.full(dimensions, 1 / scale), 1.0)
        values, vectors = np.linalg.eigh(gram * shrink[:, None] * shrink)
        products = vectors.T @ (products * shrink[:, None])
        return cls(center, float(scale), np.maximum(values, 0), vectors.astype(np.float32), products)

    def project(self, features: npt.NDArray[np.floating]) -> npt.NDArray[np.float32]:
        """Rows (B, D) in the basis of the eigenvectors, (B, D + 1) float32."""
        rows = np.ones((len(features), len(self.values)), np.float32)
        rows[:, :-1] = (np.asarray(features, np.float32) - self.center) / self.scale
        return rows @ self.vectors

    def left_out(
        self,
        projected: npt.NDArray[np.float32],
        labels: npt.NDArray,
        group_size: int,
        penalty: float,
        weights: Array | None = None,
    ) -> Array:
        """Predictions of rows by the regression without their group.

        Args:
            projected: Rows that were fitted to, whole groups side by side, (B, D + 1).
            labels: Their labels, (B,), or class probabilities that were fitted to in their place, (B, C).
            group_size: Rows of each group.
            penalty: λ.
            weights: Those they were fitted with, (B,). Default: all 1.

        Returns:
            (B, C) float64.
        """
        shrunk = 1 / (self.values + penalty)
        predicted = projected @ (shrunk[:, None] * self.products)
        count, classes = predicted.shape
        counted = np.ones(count) if weights is None else weights
        if group_size == 1:
            own = np.minimum((projected**2 @ shrunk) * counted, 1 - 1e-9)
            if labels.ndim == 1:
                predicted[np.arange(count), labels] -= own
            else:
                predicted -= own[:, None] * labels
            return predicted / (1 - own)[:, None]
        blocks = projected.reshape(-1, group_size, len(shrunk))
        targets = one_hot(labels, classes) if labels.ndim == 1 else labels
        given = targets.reshape(-1, group_size, classes)
        of = counted.reshape(-1, group_size)
        if group_size > len(shrunk):
            return np.concatenate(
                [
                    self._without(*parts, penalty)
                    for parts in zip(blocks.astype(np.float64), given, of, strict=True)
                ]
            )
        hat = np.einsum("gid,gjd->gij", blocks * shrunk, blocks, optimize=True) * of[:, None, :]
        rest = predicted.reshape(given.shape) - hat @ given
        ridge = np.eye(group_size) * (1 + 1e-9)
        return np.linalg.solve(ridge - hat, rest).reshape(count, classes)

    def _without(self, rows: Array, given: Array, weights: Array, penalty: float) -> Array:
        """The same for one group with more rows than dimensions: (n, D + 1), (n, C), (n,) → (n, C)."""
        weighted = rows.T * weights
        remaining = np.diag(self.values + penalty) - weighted @ rows
        return rows @ np.linalg.solve(remaining, self.products - weighted @ given)

    def coefficients(self, penalty: float) -> tuple[Array, Array]:
        """The map from features as they come to predictions: slopes (D, C) and intercepts (C,)."""
        solved = self.vectors @ (self.products / (self.values + penalty)[:, None])
        slopes = solved[:-1] / self.scale
        return slopes, solved[-1] - self.center @ slopes


def sums_by_label(rows: npt.NDArray[np.floating], labels: npt.NDArray[np.integer], num_classes: int) -> Array:
    """Sum of the rows (N, D) of each label, (C, D) float64, in O(N·D)."""
    sums = np.zeros((num_classes, rows.shape[1]))
    if len(labels):
        order = np.argsort(labels, kind="stable")
        present, starts = np.unique(labels[order], return_index=True)
        sums[present] = np.add.reduceat(rows[order], starts, axis=0, dtype=np.float64)
    return sums
