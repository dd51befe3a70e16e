"""Every example once, or in proportion to its weight."""

import numpy as np
from accelerate.data_loader import BatchSamplerShard
from hypothesis import given
from hypothesis import strategies as st
from torch.utils.data import BatchSampler

from clear_peft.trainer.sampler import WeightedLengthSampler, num_unpadded, rebalance


def sampled(size, batch_size=4, lengths=None, seed=0, epoch=0, weights=None):
    return list(
        WeightedLengthSampler(size, lambda: batch_size, lengths, seed, lambda: epoch, lambda: weights)
    )


@given(st.integers(1, 90), st.integers(1, 7), st.integers(0, 5), st.booleans())
def test_without_weights_everyone_once(size, batch_size, epoch, grouped):
    lengths = np.arange(size) % 9 if grouped else None
    order = sampled(size, batch_size, lengths, epoch=epoch)
    assert sorted(order) == list(range(size))
    assert order == sampled(size, batch_size, lengths, epoch=epoch, weights=np.ones(size, np.float32))


@given(
    st.lists(st.floats(0, 1, width=32), min_size=1, max_size=60).filter(lambda x: sum(x) > 1e-3),
    st.integers(0, 9),
)
def test_weights_are_kept_up_to_one_sample(weights, seed):
    weights = np.asarray(weights, np.float32)
    counts = np.bincount(sampled(len(weights), seed=seed, weights=weights), minlength=len(weights))
    assert counts.sum() == len(weights)
    expected = len(weights) * weights.astype(float) / weights.astype(float).sum()
    assert (np.abs(counts - expected) < 1 + 1e-6).all()
    assert (counts[weights == 0] == 0).all()


@given(
    st.lists(st.tuples(st.floats(0.0625, 1, width=32), st.integers(0, 4)), min_size=1, max_size=60),
    st.floats(0, 1),
)
def test_balance_is_between_classes_alone(rows, balance):
    weights, classes = np.asarray([s for s, _ in rows], np.float32), np.asarray([c for _, c in rows])
    made = rebalance(weights, classes, balance)
    totals = np.bincount(classes, weights=weights)
    present = totals > 0
    np.testing.assert_allclose(np.bincount(classes, weights=made)[present], totals[present] ** (1 - balance))
    for c in np.unique(classes):
        of_class = classes == c
        np.testing.assert_allclose(made[of_class] * totals[c] ** balance, weights[of_class], rtol=1e-6)


def test_no_balance_leaves_weights_as_they_are():
    weights, classes = np.array([0.3, 0.7, 1.0], np.float32), np.array([0, 0, 2])
    assert (rebalance(weights, classes, 0.0) == weights).all()


def test_mean_over_epochs_is_the_weight():
    weights = np.array([0.1, 0.9, 0.5, 0.5], np.float32)
    counts = sum(np.bincount(sampled(4, epoch=e, weights=weights), minlength=4) for e in range(400)) / 400
    np.testing.assert_allclose(counts, 2 * weights, atol=0.08)


def test_order_depends_on_seed_and_epoch():
    assert sampled(50) == sampled(50)
    assert sampled(50) != sampled(50, epoch=1)
    assert sampled(50) != sampled(50, seed=1)


def test_batches_of_like_length():
    lengths = np.random.default_rng(0).integers(1, 100, 400)
    order = sampled(400, batch_size=8, lengths=lengths)
    spread = np.ptp(lengths[order].reshape(-1, 8), axis=1)
    assert spread.mean() < 5
    starts = lengths[order].reshape(-1, 8)[:, 0]
    assert (np.diff(starts) < 0).sum() > 10, "the batches themselves come in random order"


@given(st.integers(1, 60), st.integers(1, 5), st.integers(1, 4), st.booleans())
def test_own_rows_of_all_processes_are_every_row_once(size, batch_size, processes, split):
    together = batch_size * processes
    batches = BatchSampler(range(size), together if split else batch_size, drop_last=False)
    seen = []
    for rank in range(processes):
        *full, last = BatchSamplerShard(batches, processes, rank, split_batches=split, even_batches=True)
        for batch in [*full, last[: num_unpadded(size, together, len(last), rank)]]:
            seen += batch
    assert sorted(seen) == list(range(size))
