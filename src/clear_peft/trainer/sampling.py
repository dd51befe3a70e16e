"""The order in which training examples are drawn."""

from collections.abc import Callable, Iterator

import numpy as np
from torch.utils.data import Sampler

# batches of like length come from chunks of so many, so that the order stays mostly random
_BATCHES_IN_CHUNK = 50


class ShareSampler(Sampler[int]):
    """Draws every example once in an epoch or, where shares are given, in proportion to them.

    With n examples, one of share s is drawn n·s/Σs times an epoch, rounded up or down at random so that the
    mean is right (systematic sampling). The order depends on seed, epoch and shares alone: a resumed run
    draws as the undisturbed one does.

    Args:
        size: n.
        batch_size: Examples that go through the model together.
        lengths: Token counts (n,), to draw examples of like length together; None: at random.
        seed: Seed of all draws.
        epoch: Tells the number of epochs that are over.
        shares: Tells s, (n,) float, at least 0 and not all 0; None: all alike.
    """

    def __init__(
        self,
        size: int,
        batch_size: int,
        lengths: np.ndarray | None,
        seed: int,
        epoch: Callable[[], int],
        shares: Callable[[], np.ndarray | None],
    ) -> None:
        self.size = size
        self.batch_size = batch_size
        self.lengths = lengths
        self.seed = seed
        self.epoch = epoch
        self.shares = shares

    def __len__(self) -> int:
        return self.size

    def __iter__(self) -> Iterator[int]:
        generator = np.random.default_rng([self.seed, self.epoch()])
        order = generator.permutation(self._drawn())
        if self.lengths is not None:
            order = self._batched_by_length(order, self.lengths, generator)
        return iter(order.tolist())

    def _drawn(self) -> np.ndarray:
        shares = self.shares()
        if shares is None:
            return np.arange(self.size)
        # a generator of its own: equal shares leave the order as it is without them
        offset = np.random.default_rng([self.seed, self.epoch(), 1]).random()
        shares = shares.astype(np.float64)
        ends = np.floor(np.cumsum(shares) * (self.size / shares.sum()) + offset)
        ends[-1] = self.size  # whatever the rounding of the sum
        return np.repeat(np.arange(self.size), np.diff(ends, prepend=0).astype(np.int64))

    def _batched_by_length(
        self, order: np.ndarray, lengths: np.ndarray, generator: np.random.Generator
    ) -> np.ndarray:
        chunk = self.batch_size * _BATCHES_IN_CHUNK
        chunks = [order[i : i + chunk] for i in range(0, self.size, chunk)]
        order = np.concatenate([c[np.argsort(lengths[c], kind="stable")] for c in chunks])
        whole = self.size // self.batch_size * self.batch_size
        batches = generator.permutation(order[:whole].reshape(-1, self.batch_size))
        return np.concatenate([batches.ravel(), order[whole:]])


def balanced(shares: np.ndarray, classes: np.ndarray, balance: float) -> np.ndarray:
    """Shares with which classes are drawn more alike; within a class they keep their proportions.

    Together the examples of a class of total share S get S^(1 − balance): square-root sampling with ½, as
    compared by Kang et al. 2020 (arXiv 1910.09217, eq. 1, with q = 1 − balance).

    Args:
        shares: (n,) float, above 0.
        classes: (n,) int.
        balance: 0 (the shares as they are) to 1 (all classes alike).
    """
    return shares / np.bincount(classes, weights=shares)[classes] ** balance


def own_rows(size: int, together: int, rows: int, rank: int) -> int:
    """How many rows of a process's last batch are drawn for it; the others, at its end, only fill it up.

    Args:
        size: Rows drawn in an epoch, of all processes.
        together: Rows that all processes take at once, in the order of their ranks.
        rows: Rows of this last batch, the same on every process.
        rank: This process.
    """
    left = size % together or together
    return min(rows, max(0, left - rank * rows))
