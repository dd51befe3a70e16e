"""Weights of which each process holds a share, as FSDP2 makes them: torch's DTensor."""

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


def reshard(model: nn.Module) -> None:
    """Let go of weights that a forward has gathered, which what is written to the shares would not reach."""
    for module in model.modules():
        let_go = getattr(module, "reshard", None)
        if callable(let_go):
            let_go()
