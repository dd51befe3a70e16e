"""How an attention is gated whose PEFT module is a prefix: vectors before its keys and values."""

import inspect
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import scaled_dot_product_attention
from torch.overrides import TorchFunctionMode

from clear_peft.routing.internals import CACHES
from clear_peft.routing.replay import replayed_randomness


class PrefixGate(TorchFunctionMode):
    """Inside, an attention sees the prefix where the gate is open, and not where it is closed.

    Its projections are the same with and without the prefix, and so they are computed once.

    Args:
        module: The attention.
        gate: bool tensor (B,).
        prefix_length: Number of the prefix's vectors.

    Attributes:
        passed: Whether an attention was gated; not, where it is computed in other ways than by torch's
            `scaled_dot_product_attention`.
    """

    def __init__(self, module: nn.Module, gate: Tensor, prefix_length: int) -> None:
        super().__init__()
        self._module = module
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
        # an accelerator would have to be waited for, to know how many examples there are of each kind
        return (
            self._by_example(tuned, frozen) if self._gate.device.type == "cpu" else self._both(tuned, frozen)
        )

    def _by_example(self, tuned: "_Attention", frozen: "_Attention") -> Tensor:
        opened, closed = (gate.nonzero().flatten() for gate in (self._gate, ~self._gate))
        if len(opened) == 0 or len(closed) == 0:
            return frozen() if len(opened) == 0 else tuned()
        parts = torch.cat([tuned.of(opened)(), frozen.of(closed)()])
        return parts[torch.cat([opened, closed]).argsort()]

    def _both(self, tuned: "_Attention", frozen: "_Attention") -> Tensor:
        with replayed_randomness(self._module) as replay:
            with_prefix = tuned()
            with replay():
                return torch.where(self._gate.view(-1, 1, 1, 1), with_prefix, frozen())


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


def without_prefix(forward: Any, args: tuple, kwargs: dict, prefix_length: int) -> Any:
    """Run an attention as if there were no prefix: no cache, and a mask without the prefix's columns.

    Positions stay shifted by the length of the prefix: that is the frozen path of prefix tuning.

    Args:
        forward: The attention's forward.
        args: What it is called with.
        kwargs: And by name.
        prefix_length: Number of the prefix's vectors.
    """
    bound = inspect.signature(forward).bind(*args, **kwargs)
    for name in CACHES & bound.arguments.keys():
        bound.arguments[name] = None
    mask = bound.arguments.get("attention_mask")
    if mask is not None:
        if not isinstance(mask, Tensor):
            raise RuntimeError(
                f"Prefix tuning can be gated only where the attention mask is a tensor, not "
                f"{type(mask).__name__}: load the model with attn_implementation='sdpa' or 'eager'."
            )
        bound.arguments["attention_mask"] = mask[..., prefix_length:]
    return forward(*bound.args, **bound.kwargs)
