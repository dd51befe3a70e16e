"""Which rows a person should look at next: random ones.

They tell the noise rate without any assumption (``noise_rate_from_sample``). Whatever else is looked at, they
stay a sample: the rows stand in a random order that the seed alone decides, and the sample is its beginning.
A row of it that has been looked at for another reason counts along.

Ten ways of choosing rows that should teach more were tried: the middles of clusters by text and given label,
random rows of such clusters, rows whose label or class is in doubt, and mixtures. With as many answers none
of them makes the judgement better (docs/verified-rows.md), and a sample of fewer rows tells the noise rate
less well.
"""

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from clear_peft.errors import InputError
from clear_peft.label_quality.groups import as_groups
from clear_peft.label_quality.types import Array

Places = npt.NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class Proposed:
    """Rows to look at.

    Attributes:
        rows: Positions among the N rows, in the order to show, (K,) int64.
        sampled: The random sample of the rows verified so far, (N,) float64, as ``noise_rate_from_sample``
            takes it: 0 for a row that is not in it, else one over the probability with which it was drawn.
    """

    rows: Places
    sampled: Array


def rows_to_verify(
    size: int,
    count: int,
    *,
    verified: npt.ArrayLike | None = None,
    groups: npt.ArrayLike | None = None,
    seed: int = 0,
) -> Proposed:
    """Propose random rows to verify, one of each group.

    Args:
        size: N, the rows of the table.
        count: How many rows to propose; fewer if there are not so many left.
        verified: Which rows have been looked at, (N,): bool, or true classes and -1 elsewhere. Rows that
            somebody could not decide belong to them. Default: none.
        groups: Group of each row, (N,), such as copies of a text. Default: each row is alone.
        seed: Of the random order; the same in all rounds of a review.

    Raises:
        InputError: If shapes differ or count is negative.
    """
    if count < 0:
        raise InputError(f"count is {count}: give 0 or more rows.")
    seen = _seen(verified, size)
    group: Places = np.arange(size) if groups is None else as_groups(groups, size).astype(np.int64)
    order = _Order.of(group, np.random.default_rng(seed))
    left = order.rows[~seen[order.rows]]
    return Proposed(left[:count], order.sampled(seen))


class _Order(NamedTuple):
    """A random order of the groups, of each of which a random row stands for it.

    Attributes:
        rows: One of each group, (G,).
        keys: What they are ordered by: the least of so many numbers as the group has rows, (G,).
        counts: Rows of the groups, (G,).
        size: N.
    """

    rows: Places
    keys: Array
    counts: npt.NDArray[np.integer]
    size: int

    @classmethod
    def of(cls, group: Places, rng: np.random.Generator) -> "_Order":
        keys = rng.random(len(group))
        order = np.argsort(keys)
        _, first = np.unique(group[order], return_index=True)
        rows = order[np.sort(first)]
        return cls(rows, keys[rows], np.bincount(group)[group[rows]], len(group))

    def sampled(self, seen: npt.NDArray[np.bool_]) -> Array:
        """One over the probability of being in the beginning that has been looked at, 0 beyond it, (N,)."""
        weights, open_places = np.zeros(self.size), np.flatnonzero(~seen[self.rows])
        end = open_places[0] if len(open_places) else len(self.rows)
        key = self.keys[end] if end < len(self.rows) else 1.0
        # the group is in it if one of its numbers is below the key, and the row is one of the group's
        weights[self.rows[:end]] = self.counts[:end] / (1 - (1 - key) ** self.counts[:end])
        return weights


def _seen(verified: npt.ArrayLike | None, size: int) -> npt.NDArray[np.bool_]:
    """Which rows have been looked at, (N,)."""
    if verified is None:
        return np.zeros(size, bool)
    values = np.asarray(verified)
    if values.shape != (size,) or values.dtype.kind not in "bi":
        raise InputError(
            f"verified has shape {values.shape} and dtype {values.dtype}: give bool, or classes and -1, "
            f"for each of the {size} rows."
        )
    return values if values.dtype == bool else values >= 0
