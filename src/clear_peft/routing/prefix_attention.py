"""How an attention is gated whose PEFT module is a prefix: vectors before its keys and values."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import scaled_dot_product_attention
from torch.overrides import TorchFunctionMode

from clear_peft.routing.internals import CACHES


def is_accelerated(gates: Tensor) -> bool:
    """Whether what depends on the values of gates would have to wait for an accelerator."""
    return gates.device.type != "cpu"


class PrefixGate(TorchFunctionMode):
    """Inside, an attention sees the prefix where the gate is open, and not where it is closed.

    Its projections are the same with and without the prefix, and so they are computed once. Open and closed
    examples attend apart, each as they do without gates.

    Args:
        gate: bool tensor (B,), on the CPU.
        prefix_length: Number of the prefix's vectors.

    Attributes:
        passed: Whether an attention was gated; not, where it is computed in other ways than by torch's
            `scaled_dot_product_attention`.
    """

    def __init__(self, gate: Tensor, prefix_length: int) -> None:
        super().__init__()
        self._gate = gate
        self._prefix_length = prefix_length
        self.passed = False

    def __torch_function__(self, func: Any, types: Any, args: tuple = (), kwargs: Any = None) -> Any:
        """Take part in every call of a function of torch, which is what torch has this method for."""
        kwargs = kwargs or {}
        # a causal attention without a mask counts from the first key, which would be another one
        if func is not scaled_dot_product_attention or len(args) != 3 or kwargs.get("is_causal"):
            return func(*args, **kwargs)
        query, key, value = args
        if len(query) != len(self._gate):
            return func(*args, **kwargs)
        self.passed = True
        options = dict(kwargs)
        tuned = _Attention(query, key, value, options.pop("attn_mask", None), partial(func, **options))
        frozen = tuned.without(self._prefix_length)
        opened, closed = (gate.nonzero().flatten() for gate in (self._gate, ~self._gate))
        if len(opened) == 0 or len(closed) == 0:
            return frozen() if len(opened) == 0 else tuned()
        parts = torch.cat([tuned.of(opened)(), frozen.of(closed)()])
        return parts[torch.cat([opened, closed]).argsort()]


@dataclass(frozen=True)
class _Attention:
    """A call of scaled dot-product attention.

    Attributes:
        query: (B, heads, T, size).
        key: (B, heads, prefix + T, size), and so is `value`.
        mask: (B or 1, heads or 1, T, prefix + T), or None.
        compute: The function, which lacks these four only.
    """

    query: Tensor
    key: Tensor
    value: Tensor
    mask: Tensor | None
    compute: Any

    def __call__(self) -> Tensor:
        return self.compute(self.query, self.key, self.value, attn_mask=self.mask)

    def without(self, prefix_length: int) -> "_Attention":
        """The same, but for the first keys and values."""
        mask = None if self.mask is None else self.mask[..., prefix_length:]
        key, value = self.key[:, :, prefix_length:], self.value[:, :, prefix_length:]
        return replace(self, key=key, value=value, mask=mask)

    def of(self, rows: Tensor) -> "_Attention":
        """The same for some of the examples."""
        mask = self.mask
        if mask is not None and len(mask) > 1:
            mask = mask[rows]
        return replace(self, query=self.query[rows], key=self.key[rows], value=self.value[rows], mask=mask)


def with_masked_prefix(
    module: Any, given: dict[str, Any], bias: Callable[[int, torch.dtype], Tensor]
) -> dict | None:
    """What an attention is called with, so that its prefix weighs exactly 0 where the gate is closed.

    The sum over the other keys may be rounded in another order than without a prefix.

    Args:
        module: The attention.
        given: What it is called with, by name; the hidden states come first.
        bias: Makes, for a number T of tokens and a dtype, what is added to the scores: the dtype's lowest
            number where a prefix is masked, else 0; (B, 1, 1, prefix + T).

    Returns:
        None, where the attention is not known to add a mask to its scores.
    """
    if getattr(getattr(module, "config", None), "_attn_implementation", None) not in ("sdpa", "eager"):
        return None
    mask = given.get("attention_mask")
    if mask is None and getattr(module, "is_causal", True):
        return None  # given a mask, it would not be causal any more
    hidden = next(iter(given.values()))
    device = hidden.device.type
    dtype = torch.get_autocast_dtype(device) if torch.is_autocast_enabled(device) else hidden.dtype
    added = bias(hidden.shape[1], dtype)
    if mask is not None:
        lowest = torch.finfo(dtype).min
        added = torch.where(mask, added, lowest) if mask.dtype == torch.bool else mask + added
    return {**given, "attention_mask": added}


def without_prefix(given: dict[str, Any], prefix_length: int) -> dict[str, Any]:
    """What an attention is called with if there is no prefix: no cache, and a mask without its columns.

    Positions stay shifted by the length of the prefix: that is the frozen path of prefix tuning.

    Args:
        given: What it is called with, by name.
        prefix_length: Number of the prefix's vectors.
    """
    without = {name: None if name in CACHES else value for name, value in given.items()}
    mask = without.get("attention_mask")
    if mask is not None:
        if not isinstance(mask, Tensor):
            raise RuntimeError(
                f"Prefix tuning can be gated only where the attention mask is a tensor, not "
                f"{type(mask).__name__}: load the model with attn_implementation='sdpa' or 'eager'."
            )
        without["attention_mask"] = mask[..., prefix_length:]
    return without
