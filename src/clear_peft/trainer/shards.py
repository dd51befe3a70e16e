"""Weights of which each process holds a share: of FSDP2, torch's DTensor, and of DeepSpeed's ZeRO."""

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from accelerate.utils import broadcast
from torch import Tensor, nn


def whole(tensor: Any) -> Any:
    """All of a tensor of which each process holds a share; called by all. Any other as it is."""
    return tensor.full_tensor() if hasattr(tensor, "full_tensor") else tensor


@torch.no_grad()
def fill(weight: Any, values: Tensor) -> None:
    """Give a weight values, those of the first process on all of them; called by all.

    Args:
        weight: As the model holds it, in shares or not.
        values: All of them, of the weight's shape.
    """
    values = values.to(weight.device, weight.dtype)
    if hasattr(weight, "full_tensor"):
        from torch.distributed.tensor import distribute_tensor  # not every build of torch has it

        weight.copy_(distribute_tensor(values, weight.device_mesh, weight.placements))
    else:
        weight.copy_(broadcast(values))


@contextmanager
def accessible(model: nn.Module) -> Iterator[None]:
    """Inside, the trained weights of a model can be read and written; entered by all processes.

    Of FSDP2 they are the shares: what a forward has gathered is let go of, since it would not see what is
    written to them. Of ZeRO-3 they are gathered.
    """
    if torch.distributed.is_available() and torch.distributed.is_initialized():
        from torch.distributed.fsdp import FSDPModule

        for module in model.modules():
            if isinstance(module, FSDPModule):
                module.reshard()
    with gathered(p for p in model.parameters() if p.requires_grad):
        yield


@contextmanager
def gathered(weights: Iterable[Tensor]) -> Iterator[None]:
    """Inside, weights of ZeRO-3 are whole; it keeps what the first process has written to them."""
    partitioned = [weight for weight in weights if hasattr(weight, "ds_id")]
    if not partitioned:
        yield
        return
    from deepspeed import zero  # only where it runs

    with zero.GatheredParameters(partitioned, modifier_rank=0):
        yield


def take_over(optimizer: Any) -> None:
    """Let an optimizer go on from the weights that the model has now: ZeRO steps from a copy of them."""
    zero = getattr(optimizer, "optimizer", None)  # in accelerate's wrapper
    refresh = getattr(zero, "refresh_fp32_params", None)
    if refresh is not None:
        refresh()
