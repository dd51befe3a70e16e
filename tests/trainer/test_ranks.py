"""What several processes agree on, with threads for processes."""

from concurrent.futures import ThreadPoolExecutor
from threading import Barrier

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from clear_peft.trainer.ranks import merged_rows


class Ranks:
    """As much of Accelerate's as is asked, for some processes that run as threads."""

    def __init__(self, size):
        self.size, self.barrier, self.given = size, Barrier(size, timeout=20), {}

    def of(self, rank):
        together = self

        class Accelerator:
            process_index = rank

            def _all(self, tensor):
                together.given[rank] = tensor
                together.barrier.wait()
                every = [together.given[other] for other in range(together.size)]
                together.barrier.wait()
                return every

            def gather(self, tensor):
                return torch.cat(self._all(tensor))

            def reduce(self, tensor, how):
                assert how == "sum"
                assert tensor.dtype != torch.bool, "not every back end adds up booleans"
                return torch.stack(self._all(tensor)).sum(dim=0)

        return Accelerator()


def merged(rows, seen):
    """What each process makes of its own rows."""
    ranks = Ranks(len(rows))
    with ThreadPoolExecutor(len(rows)) as pool:
        made = [pool.submit(merged_rows, rows[i], seen[i], ranks.of(i)) for i in range(len(rows))]
        return [future.result() for future in made]


@settings(max_examples=40, deadline=None)
@given(
    st.integers(1, 4),
    st.integers(1, 12),
    st.sampled_from([(), (3,), (2, 2)]),
    st.sampled_from([torch.float32, torch.bfloat16, torch.int64, torch.bool]),
    st.integers(0, 2**31),
)
def test_each_row_is_as_the_last_process_has_it_that_has_seen_it(processes, size, shape, dtype, seed):
    generator = torch.Generator().manual_seed(seed)
    before = torch.randint(-9, 9, (size, *shape), generator=generator).to(dtype)
    rows, seen, expected = [], [], before.clone()
    for _ in range(processes):
        own = torch.rand(size, generator=generator) < 0.4
        changed = torch.randint(-9, 9, (size, *shape), generator=generator).to(dtype)
        mine = before.clone()
        mine[own] = changed[own]
        expected[own] = changed[own]
        rows.append(mine)
        seen.append(own)
    for made in merged(rows, seen):
        assert made.dtype == dtype
        assert torch.equal(made, expected)


@pytest.mark.parametrize("value", [torch.nan, torch.inf])
def test_what_another_process_has_ruined_stays_its_own(value):
    """A row that is not finite on a process that has not seen it leaves nothing behind."""
    rows = [torch.tensor([1.0, value]), torch.tensor([value, 2.0])]
    seen = [torch.tensor([True, False]), torch.tensor([False, True])]
    for made in merged(rows, seen):
        assert made.tolist() == [1.0, 2.0]
