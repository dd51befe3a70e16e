"""What several processes have to agree on."""

from typing import Any

import torch
from accelerate.utils import broadcast_object_list
from torch import Tensor


def of_main_process(value: Any) -> Any:
    """What the first process has, on all of them; called by all. Rounding differs from one to another."""
    return broadcast_object_list([value])[0]


def merged_rows(rows: Tensor, seen: Tensor, accelerator: Any) -> Tensor:
    """Rows that processes have changed, each as the last process has it that has seen the row.

    Args:
        rows: (N, …), the same on all processes but where one has seen a row.
        seen: Whether this process has seen a row, (N,) bool.
        accelerator: Accelerate's.
    """
    rank = accelerator.process_index
    owners = torch.where(seen.to(rows.device), rank, -1)
    owner = accelerator.gather(owners[None]).max(dim=0).values.clamp(min=0)
    mine = (owner == rank).view(-1, *[1] * (rows.ndim - 1))
    # not every back end adds up booleans
    values = rows.int() if rows.dtype == torch.bool else rows
    return accelerator.reduce(torch.where(mine, values, torch.zeros_like(values)), "sum").to(rows.dtype)
