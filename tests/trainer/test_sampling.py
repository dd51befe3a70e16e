"""Every example once, or in proportion to its share."""

import numpy as np
from accelerate.data_loader import BatchSamplerShard
from hypothesis import given
from hypothesis import strategies as st
from torch.utils.data import BatchSampler

from clear_peft.trainer.sampling import ShareSampler, balanced, own_rows


def drawn(size, batch_size=4, lengths=None, seed=0, epoch=0, shares=None):
    return list(ShareSampler(size, batch_size, lengths, seed, lambda: epoch, lambda: shares))


@given(st.integers(1, 90), st.integers(1, 7), st.integers(0, 5), st.booleans())
def test_without_shares_everyone_once(size, batch_size, epoch, grouped):
    lengths = np.arange(size) % 9 if grouped else None
    order = drawn(size, batch_size, lengths, epoch=epoch)
    assert sorted(order) == list(range(size))
    assert order == drawn(size, batch_size, lengths, epoch=epoch, shares=np.ones(size, np.float32))


@given(
    st.lists(st.floats(0, 1, width=32), min_size=1, max_size=60).filter(lambda x: sum(x) > 1e-3),
    st.integers(0, 9),
)
def test_shares_are_kept_up_to_one_draw(shares, seed):
    shares = np.asarray(shares, np.float32)
    counts = np.bincount(drawn(len(shares), seed=seed, shares=shares), minlength=len(shares))
    assert counts.sum() == len(shares)
    expected = len(shares) * shares.astype(float) / shares.astype(float).sum()
    assert (np.abs(counts - expected) < 1 + 1e-6).all()
    assert (counts[shares == 0] == 0).all()


@given(
    st.lists(st.tuples(st.floats(0.0625, 1, width=32), st.integers(0, 4)), min_size=1, max_size=60),
    st.floats(0, 1),
)
def test_balance_is_between_classes_alone(rows, balance):
    shares, classes = np.asarray([s for s, _ in rows], np.float32), np.asarray([c for _, c in rows])
    made = balanced(shares, classes, balance)
    totals = np.bincount(classes, weights=shares)
    present = totals > 0
    np.testing.assert_allclose(np.bincount(classes, weights=made)[present], totals[present] ** (1 - balance))
    for c in np.unique(classes):
        of_class = classes == c
        np.testing.assert_allclose(made[of_class] * totals[c] ** balance, shares[of_class], rtol=1e-6)


def test_no_balance_leaves_shares_as_they_are():
    shares, classes = np.array([0.3, 0.7, 1.0], np.float32), np.array([0, 0, 2])
    assert (balanced(shares, classes, 0.0) == shares).all()


def test_mean_over_epochs_is_the_share():
    shares = np.array([0.1, 0.9, 0.5, 0.5], np.float32)
    counts = sum(np.bincount(drawn(4, epoch=e, shares=shares), minlength=4) for e in range(400)) / 400
    np.testing.assert_allclose(counts, 2 * shares, atol=0.08)


def test_order_depends_on_seed_and_epoch():
    assert drawn(50) == drawn(50)
    assert drawn(50) != drawn(50, epoch=1)
    assert drawn(50) != drawn(50, seed=1)


def test_batches_of_like_length():
    lengths = np.random.default_rng(0).integers(1, 100, 400)
    order = drawn(400, batch_size=8, lengths=lengths)
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
        for batch in [*full, last[: own_rows(size, together, len(last), rank)]]:
            seen += batch
    assert sorted(seen) == list(range(size))
