"""Which rows a person should look at next: a random sample, and rows that teach most.

The random sample tells the noise rate without any assumption (``noise_rate_from_sample``). So that it stays
one whatever else is looked at, the rows stand in a random order that the seed alone decides, and the sample
is its beginning: a row of it that has been looked at for another reason counts along.

As long as nobody has looked at any row, the others represent. Mistakes that have a reason are alike: like
texts with the same label. So rows are put into clusters by text and given label (k-means: Lloyd 1982), and a
random row of each is proposed. The row in the middle of a cluster would be more typical than the cluster is,
and its label right more often.

Once there are answers, a row is drawn the more often the more its label is in doubt: with a probability in
proportion to the entropy of its clean probability, and a little more, so that mistakes which look right are
drawn, too.
"""

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
from scipy.special import entr

from clear_peft.errors import InputError
from clear_peft.label_quality.groups import as_groups
from clear_peft.label_quality.quality import LabelQuality
from clear_peft.label_quality.ridge import Array, Features

Places = npt.NDArray[np.int64]

# rows that are put into clusters, at the most
_MOST_ROWS = 10_000
_STEPS = 8
# dimensions of given labels
_MOST_CODES = 256
# of a row whose label is in no doubt, beside 1 of a row whose label is as likely wrong as right
_LEAST_DOUBT = 0.05
_TINY = 1e-12
_SEED = 0


@dataclass(frozen=True, eq=False)
class Proposed:
    """Rows to look at.

    Attributes:
        rows: Positions among the N rows, in the order to show, (K,) int64.
        reason: Why each: "random sample", "represents 40 rows like it" or "its label is in doubt".
        random: Which of them continue the random sample, (K,) bool.
        sampled: The random sample of the rows verified so far, (N,) float64, as ``noise_rate_from_sample``
            takes it: 0 for a row that is not in it, else one over the probability with which it was drawn.
    """

    rows: Places
    reason: list[str]
    random: npt.NDArray[np.bool_]
    sampled: Array


def rows_to_verify(
    features: Features,
    quality: LabelQuality,
    count: int,
    *,
    verified: npt.ArrayLike | None = None,
    groups: npt.ArrayLike | None = None,
    seed: int = 0,
    random_share: float = 1 / 3,
) -> Proposed:
    """Propose rows to verify, at most one of each group.

    It takes less than two seconds for 10,000 rows of 384 features; of more, a random part is put into
    clusters.

    Args:
        features: What a model makes of the rows, (N, D), or (N, V, D) for V representations of each, of which
            the last is looked at.
        quality: Of the labels of these rows, by what is known now.
        count: How many rows to propose; fewer if there are not so many left.
        verified: Which rows have been looked at, (N,): bool, or true classes and -1 elsewhere. Rows that
            somebody could not decide belong to them. Default: those of ``quality``.
        groups: Group of each row, (N,), such as copies of a text. Default: those of ``quality``.
        seed: Of the random order; the same in all rounds of a review.
        random_share: Share of the random sample among the proposed rows, rounded up.

    Raises:
        InputError: If shapes differ, count is negative or random_share is not between 0 and 1.
    """
    size = len(quality)
    if len(features.shape) not in (2, 3) or features.shape[0] != size:
        raise InputError(
            f"features have shape {tuple(features.shape)}: give one row for each of {size} labels."
        )
    if count < 0 or not 0 <= random_share <= 1:
        raise InputError(
            f"count is {count} and random_share is {random_share}: give 0 or more rows and a share from 0 "
            "to 1."
        )
    seen = _seen(verified, quality)
    group: Places = as_groups(quality.groups if groups is None else groups, size).astype(np.int64)
    rng = np.random.default_rng(seed)
    order = _Order.of(group, rng)
    left = order.rows[~seen[order.rows]]
    # rounded up, but for the share's own rounding
    drawn = left[: int(np.ceil(min(count, len(left)) * random_share - 1e-9))]
    known = np.isin(group, group[np.r_[np.flatnonzero(seen), drawn]])
    others, wanted = left[~known[left]], count - len(drawn)
    if seen.any():
        found = _in_doubt(quality, others, wanted, rng)
        others_reasons = ["its label is in doubt"] * len(found)
    else:
        found, alike = _representatives(features, quality, others, wanted, rng)
        others_reasons = [_stands_for(rows) for rows in alike]
    if len(found) < wanted:  # copies of verified rows are all that is left
        drawn = left[~np.isin(left, found)][: count - len(found)]
    reasons = [*["random sample"] * len(drawn), *others_reasons]
    rows, random = np.r_[drawn, found], np.arange(len(drawn) + len(found)) < len(drawn)
    shown = _spread(len(drawn), len(found))
    return Proposed(rows[shown], [reasons[i] for i in shown], random[shown], order.sampled(seen))


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


def _seen(verified: npt.ArrayLike | None, quality: LabelQuality) -> npt.NDArray[np.bool_]:
    """Which rows have been looked at, (N,)."""
    if verified is None:
        return np.zeros(len(quality), bool) if quality.verified is None else quality.verified >= 0
    values = np.asarray(verified)
    if values.shape != (len(quality),) or values.dtype.kind not in "bi":
        raise InputError(
            f"verified has shape {values.shape} and dtype {values.dtype}: give bool, or classes and -1, "
            f"for each of the {len(quality)} rows."
        )
    return values if values.dtype == bool else values >= 0


def _in_doubt(quality: LabelQuality, others: Places, count: int, rng: np.random.Generator) -> Places:
    """Rows drawn without replacement, by how much their label is in doubt (Efraimidis and Spirakis 2006).

    Args:
        quality: Of N labels.
        others: Rows to draw from.
        count: How many to draw.
        rng: Where the draw comes from.
    """
    p = quality.clean_probability[others].astype(np.float64)
    doubt = _LEAST_DOUBT + (entr(p) + entr(1 - p)) / np.log(2)
    keys = np.log(rng.random(len(others))) / doubt
    return others[np.argsort(-keys, kind="stable")[:count]]


def _representatives(
    features: Features, quality: LabelQuality, others: Places, count: int, rng: np.random.Generator
) -> tuple[Places, list[int]]:
    """A random row of each of so many clusters, of the largest first, and how many rows each stands for.

    Args:
        features: (N, D) or (N, V, D).
        quality: Of N labels.
        others: Rows to choose from, in random order.
        count: How many to choose.
        rng: For the start, and the row of a cluster.
    """
    rows = others[:_MOST_ROWS]
    count = min(count, len(rows))
    if not count:
        return rows[:0], []
    points = _points(features, quality, rows)
    middles = points[:count].copy()  # random ones, as the rows are
    for _ in range(_STEPS):
        cluster = _distances(points, middles).argmin(axis=1)
        for each in np.unique(cluster):
            middles[each] = points[cluster == each].mean(axis=0)
    cluster = _distances(points, middles).argmin(axis=1)
    counts = np.bincount(cluster, minlength=count)
    largest = np.argsort(-counts, kind="stable")
    chosen = [int(rng.choice(np.flatnonzero(cluster == each))) for each in largest[counts[largest] > 0]]
    # of points that are alike, clusters are empty
    spare = np.setdiff1d(np.arange(len(rows)), chosen)[: count - len(chosen)]
    share = len(others) / len(rows)
    alike = [max(1, round(n * share)) for n in counts[largest]]
    return rows[np.r_[chosen, spare].astype(np.int64)], alike


def _points(features: Features, quality: LabelQuality, rows: Places) -> npt.NDArray[np.float32]:
    """Features at unit length beside given labels, each as much spread, (B, D + C)."""
    found = np.asarray(features[rows], np.float32)
    found = found[:, -1] if found.ndim == 3 else found
    found = found / np.maximum(np.linalg.norm(found, axis=1, keepdims=True), _TINY)
    labels = np.unique(quality.given[rows], return_inverse=True)[1]
    codes = np.eye(labels.max() + 1, dtype=np.float32)
    if len(codes) > _MOST_CODES:  # nearly at right angles
        codes = np.random.default_rng(_SEED).normal(size=(len(codes), _MOST_CODES)).astype(np.float32)
        codes /= np.sqrt(_MOST_CODES)
    return np.concatenate([_scaled(found), _scaled(codes[labels])], axis=1)


def _scaled(rows: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    """Around 0, with a mean squared norm of 1."""
    centred = rows - rows.mean(axis=0)
    return centred / np.sqrt(max(float((centred**2).sum(axis=1).mean()), _TINY)).astype(np.float32)


def _distances(points: npt.NDArray[np.float32], centers: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    """Squared distances, (B, K)."""
    squares = (points**2).sum(axis=1)[:, None] + (centers**2).sum(axis=1)
    return np.maximum(squares - 2 * (points @ centers.T), 0)


def _stands_for(rows: int) -> str:
    return f"represents {rows} row{'s' * (rows != 1)} like it"


def _spread(first: int, second: int) -> Places:
    """Positions of ``first`` and ``second`` rows, each spread evenly, so that a part of them is a mixture."""
    places = np.r_[(np.arange(first) + 0.5) / max(first, 1), (np.arange(second) + 0.5) / max(second, 1)]
    return np.argsort(places, kind="stable")
