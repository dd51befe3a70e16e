"""What torch does slowly on a CPU, done faster: the same, but for rounding and the draws of dropout."""

import ctypes
import functools
import sys
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.functional import dropout, linear, pad, scaled_dot_product_attention
from torch.overrides import TorchFunctionMode

_OURS = {linear, dropout, scaled_dot_product_attention}
# dropout is decided by 16 random bits an element
_LEVELS = 1 << 16
# Tokens up to which attention without dropout is computed by its definition. It keeps 2·heads·tokens² bytes
# an example and layer, which torch's kernel does not: of 12 heads 1.6 MB at 256 tokens and 6.3 at 512.
# Time over that of torch's kernel, forward and backward, bf16, 12 heads, one thread of a Xeon with AMX, and
# of an EPYC without:
#   tokens              16   32   64  128  256  512
#   Xeon, head size 32  .11  .17  .18  .24  .53  .53
#         head size 64  .17  .21  .25  .28  .45  .56
#   EPYC, head size 32  .13  .18  .23  .39  .74  .83
#         head size 64  .12  .15  .17  .22  .55  .63
# In float32 it is no faster at any length. Without gradients it is not either: MiniLM's forward takes 1.03 to
# 1.05 of the time on the EPYC, but for few tokens.
_LONGEST = 256
# Tokens up to which attention is computed by its definition without gradients, too. Scores are float32 then,
# as in torch's kernel. MiniLM's forward of 64 texts on the EPYC, over that of torch's kernel:
#   tokens       8    12    16    20    24    28    32
#              .91   .89  1.02   .96   .91   .94  1.08
_LONGEST_FORWARD = 24
# torch's softmax of bf16 takes 32 numbers at once, and what is left over one by one: rows are filled up to a
# multiple where they have fewer than so many numbers
_FILLED_UP, _AT_ONCE = 64, 32
# of mallopt(3)
_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3


class FasterCPU(TorchFunctionMode):
    """Inside, some functions of torch are computed in another way; the model itself stays as it is.

    - Linear layers under autocast: a frozen weight is rounded once. Autocast rounds it in every forward, to
      the same numbers.
    - Dropout: by 16 random bits an element, which numpy draws by a seed from torch's global generator. The
      probability is rounded to them, and the scale goes by the rounded one.
    - Attention, where gradients are wanted or tokens are few, by its definition. With dropout, torch computes
      it so, too, but in float32. Without, torch saves memory by a kernel whose backward is slow in bf16.

    Rounded weights live as long as this object. They are made anew where a weight has been changed, unless
    through its ``data``. What torch.compile compiles is left to it. torch leaves such modes in a backward, so
    what gradient checkpointing computes again there would not be what it was: see :func:`in_training`.
    """

    def __init__(self) -> None:
        super().__init__()
        self._rounded: dict[int, tuple[Tensor, int, Tensor]] = {}

    def __torch_function__(self, func: Any, types: Any, args: tuple = (), kwargs: Any = None) -> Any:
        """Take part in every call of a function of torch, which is what torch has this method for."""
        kwargs = kwargs or {}
        # most calls are of other functions
        if func in _OURS and not torch.compiler.is_compiling():
            if func is linear and len(args) > 1:
                args = (args[0], self._of_autocast(args[1]), *args[2:])
            elif func is dropout and kwargs["training"] and _can_drop(args[0].dtype, kwargs["p"]):
                return dropped(args[0], kwargs["p"])
            elif func is scaled_dot_product_attention and _pays(*args, **kwargs):
                return attention(*args, **kwargs)
        return func(*args, **kwargs)

    def _of_autocast(self, weight: Tensor) -> Tensor:
        """What autocast makes of a frozen weight; any other as it is."""
        frozen = isinstance(weight, nn.Parameter) and not weight.requires_grad
        if not frozen or weight.dtype != torch.float32 or not torch.is_autocast_enabled("cpu"):
            return weight
        dtype = torch.get_autocast_dtype("cpu")
        known = self._rounded.get(id(weight))
        if known is None or known[1] != weight._version or known[2].dtype != dtype:
            # the weight itself, so that no other gets its id
            known = self._rounded[id(weight)] = (weight, weight._version, weight.detach().to(dtype))
        return known[2]


def faster(device: str) -> AbstractContextManager[Any]:
    """A ``FasterCPU`` if that is where a model runs, as torch names devices; freed memory is kept then."""
    if device != "cpu":
        return nullcontext()
    keep_freed_memory()
    return FasterCPU()


@functools.cache
def keep_freed_memory() -> None:
    """Let this process keep memory that is freed, instead of asking the system for it anew in every step.

    Of the allocator of glibc: blocks of up to 32 MiB come from its heap, and up to 1 GiB at the end of the
    heap stays with the process. Where there is another C library, nothing changes.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None) if sys.platform == "linux" else None
    if mallopt is not None:
        mallopt(_M_MMAP_THRESHOLD, 1 << 25)
        mallopt(_M_TRIM_THRESHOLD, 1 << 30)


def in_training(quick: AbstractContextManager[Any], model: nn.Module) -> AbstractContextManager[Any]:
    """What ``faster`` has made, unless a model's activations are computed again in the backward."""
    # looked up where it has been set, in every step: nn.Module is slow to say that it has no such attribute
    again = any(module.__dict__.get("gradient_checkpointing") for module in model.modules())
    return nullcontext() if again else quick


def dropped(inputs: Tensor, p: float) -> Tensor:
    """Dropout in training: each element is zero with probability ``p``, rounded to 2^-16, or else scaled up.

    Args:
        inputs: Of any shape, float32 or bfloat16.
        p: In [0, 1).
    """
    size, zeros = inputs.numel(), round(p * _LEVELS)
    seed = int(torch.randint(2**63 - 1, ()))
    words = np.random.SFC64(seed).random_raw(-(-size // 4))
    scale = torch.tensor(1 / (1 - zeros / _LEVELS), dtype=inputs.dtype)
    if inputs.dtype == torch.bfloat16:
        scale = scale.view(torch.int16)  # numpy has no bfloat16, and its bits times 0 or 1 will do
    factors = torch.from_numpy((words.view(np.uint16)[:size] >= zeros) * scale.numpy())
    return inputs * factors.view(inputs.dtype).view(inputs.shape)


def attention(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attn_mask: Tensor | None = None,
    dropout_p: float = 0.0,
    is_causal: bool = False,
    scale: float | None = None,
    **_: Any,
) -> Tensor:
    """Scaled dot-product attention by its definition; arguments as ``torch.nn.functional`` has them.

    Under autocast, scores and weights are bfloat16 in training and float32 without gradients.

    Args:
        query: (B, heads, T, size).
        key: (B, heads, S, size).
        value: (B, heads, S, size).
        attn_mask: bool, True where a key is seen, of a shape that broadcasts to (B, heads, T, S). Where none
            is seen, all are. Default: all are.
        dropout_p: Of the weights. Default 0.
        is_causal: Must be False.
        scale: Of the scores. Default 1/√size.
    """
    dtype = _dtype_of(query)
    query, key, value = query.to(dtype), key.to(dtype), value.to(dtype)
    if not torch.is_grad_enabled():
        query, key, dtype = query.float(), key.float(), torch.float32
    with torch.autocast("cpu", enabled=False):
        scores = (query * (query.shape[-1] ** -0.5 if scale is None else scale)) @ key.transpose(-1, -2)
        if attn_mask is not None:
            # added, as masked_fill would have a backward
            lowest = torch.finfo(dtype).min
            scores += torch.zeros(attn_mask.shape, dtype=dtype).masked_fill_(~attn_mask, lowest)
        weights = _softmax(scores)
        return (dropped(weights, dropout_p) if dropout_p else weights).to(value.dtype) @ value


def _softmax(scores: Tensor) -> Tensor:
    """Softmax over the last dimension."""
    size = scores.shape[-1]
    if size >= _FILLED_UP or size % _AT_ONCE == 0:
        return scores.softmax(dim=-1)
    return pad(scores, (0, -size % _AT_ONCE), value=-torch.inf).softmax(dim=-1)[..., :size]


def _pays(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attn_mask: Tensor | None = None,
    dropout_p: float = 0.0,
    is_causal: bool = False,
    enable_gqa: bool = False,
    **_: Any,
) -> bool:
    """Whether ``attention`` can compute this, and is faster."""
    if query.dim() != 4 or is_causal or enable_gqa:
        return False
    if attn_mask is not None and attn_mask.dtype != torch.bool:
        return False
    dtype = _dtype_of(query)
    if dropout_p:
        return torch.is_grad_enabled() and _can_drop(dtype, dropout_p)
    longest = _LONGEST if torch.is_grad_enabled() else _LONGEST_FORWARD
    return dtype == torch.bfloat16 and max(query.shape[2], key.shape[2]) <= longest


def _can_drop(dtype: torch.dtype, p: float) -> bool:
    return dtype in (torch.float32, torch.bfloat16) and 0 < round(p * _LEVELS) < _LEVELS


def _dtype_of(inputs: Tensor) -> torch.dtype:
    """The dtype in which autocast, if it is on, multiplies."""
    return torch.get_autocast_dtype("cpu") if torch.is_autocast_enabled("cpu") else inputs.dtype
