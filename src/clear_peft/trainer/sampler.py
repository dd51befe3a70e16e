"""The order in which training examples are sampled."""

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
from torch.utils.data import Sampler

from clear_peft.trainer.phases import Phase

# batches of like length come from chunks of so many, so that the order stays mostly random
_BATCHES_IN_CHUNK = 50


def sampling_weights(trainer: Any) -> np.ndarray | None:
    """How often rows are sampled in the next epoch, in proportion, (N,) float; None: all alike."""
    if trainer.phase is not Phase.ROBUST or not trainer.args.soft_labels:
        return None
    return trainer.store.sampling_weights(trainer.args.class_balance)


class WeightedLengthSampler(Sampler[int]):
    """Samples every example once in an epoch or, where weights are given, in proportion to them.

    With n examples, one of weight w is sampled n·w/Σw times an epoch, rounded up or down at random so that
    the mean is right (systematic sampling). The order depends on seed, epoch and weights alone: a resumed run
    samples as the undisturbed one does.

    Args:
        size: n.
        batch_size: Tells the number of examples that go through the model together.
        lengths: Token counts (n,), to sample examples of like length together; None: at random.
        seed: Of the order.
        epoch: Tells the number of epochs that are over.
        weights: Tells w, (n,) float, at least 0 and not all 0; None: all alike.
    """

    def __init__(
        self,
        size: int,
        batch_size: Callable[[], int],
        lengths: np.ndarray | None,
        seed: int,
        epoch: Callable[[], int],
        weights: Callable[[], np.ndarray | None],
    ) -> None:
        self.size = size
        self.batch_size = batch_size
        self.lengths = lengths
        self.seed = seed
        self.epoch = epoch
        self.weights = weights

    @classmethod
    def of(cls, trainer: Any) -> "WeightedLengthSampler":
        """The sampler of a ``CleaRTrainer``."""
        args, rows = trainer.args, trainer.store.rows
        return cls(
            rows.num_rows,
            lambda: trainer._train_batch_size,
            rows.lengths if args.train_sampling_strategy == "group_by_length" else None,
            args.seed if args.data_seed is None else args.data_seed,
            epoch=lambda: int(trainer.state.epoch or 0),
            weights=lambda: sampling_weights(trainer),
        )

    def __len__(self) -> int:
        return self.size

    def __iter__(self) -> Iterator[int]:
        generator = np.random.default_rng([self.seed, self.epoch()])
        order = generator.permutation(self._sampled())
        if self.lengths is not None:
            order = self._batched_by_length(order, self.lengths, generator)
        return iter(order.tolist())

    def _sampled(self) -> np.ndarray:
        weights = self.weights()
        if weights is None:
            return np.arange(self.size)
        # a generator of its own: equal weights leave the order as it is without them
        offset = np.random.default_rng([self.seed, self.epoch(), 1]).random()
        weights = weights.astype(np.float64)
        ends = np.floor(np.cumsum(weights) * (self.size / weights.sum()) + offset)
        ends[-1] = self.size  # whatever the rounding of the sum
        return np.repeat(np.arange(self.size), np.diff(ends, prepend=0).astype(np.int64))

    def _batched_by_length(
        self, order: np.ndarray, lengths: np.ndarray, generator: np.random.Generator
    ) -> np.ndarray:
        batch = self.batch_size()
        chunk = batch * _BATCHES_IN_CHUNK
        chunks = [order[i : i + chunk] for i in range(0, self.size, chunk)]
        order = np.concatenate([c[np.argsort(lengths[c], kind="stable")] for c in chunks])
        whole = self.size // batch * batch
        batches = generator.permutation(order[:whole].reshape(-1, batch))
        return np.concatenate([batches.ravel(), order[whole:]])


def rebalance(weights: np.ndarray, classes: np.ndarray, balance: float) -> np.ndarray:
    """Weights with which classes are sampled more alike; within a class they keep their proportions.

    Together the examples of a class of total weight S get S^(1 − balance): square-root sampling with ½, as
    compared by Kang et al. 2020 (arXiv 1910.09217, eq. 1, with q = 1 − balance).

    Args:
        weights: (n,) float, above 0.
        classes: (n,) int.
        balance: 0 (the weights as they are) to 1 (all classes alike).
    """
    return weights / np.bincount(classes, weights=weights)[classes] ** balance


def own_rows(batch: Any, trainer: Any) -> Any:
    """A batch whose labels are those of its own rows, (B',) with B' ≤ B: what fills it up comes last.

    Accelerate fills up an epoch's last batches, so that every process has one, and all are of one size.

    Args:
        batch: Of the training set of a trainer, on this process.
        trainer: A ``CleaRTrainer``.
    """
    args, accelerator = trainer.args, trainer.accelerator
    full = args.dataloader_drop_last or args.train_sampling_strategy == "batch_rebalance"
    if args.world_size > 1 and not full and accelerator.gradient_state.end_of_dataloader:
        together = trainer._train_batch_size * (1 if accelerator.split_batches else args.world_size)
        labels = batch["labels"]
        own = num_unpadded(trainer.store.rows.num_rows, together, len(labels), args.process_index)
        batch["labels"] = labels[:own]
    return batch


def num_unpadded(size: int, together: int, rows: int, rank: int) -> int:
    """How many rows of a process's last batch are sampled for it; the others, at its end, only fill it up.

    Args:
        size: Rows sampled in an epoch, of all processes.
        together: Rows that all processes take at once, in the order of their ranks.
        rows: Rows of this last batch, the same on every process.
        rank: This process.
    """
    left = size % together or together
    return min(rows, max(0, left - rank * rows))
