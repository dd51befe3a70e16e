"""The gated forward: a subclass made for the class of each gate point.

Swapping ``module.__class__`` (as ``fully_shard`` and ``nn.utils.parametrize`` do) leaves parameters,
state-dict keys and ``isinstance`` alone, is seen by ``torch.compile``, and can be undone. Forward hooks
would be ignored silently once a model of the same class has been compiled.
"""

import functools
from contextlib import nullcontext
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from clear_peft.routing.internals import BIASES, NEVER_TAPPED
from clear_peft.routing.prefix_attention import PrefixGate, without_prefix
from clear_peft.routing.replay import replayed_randomness


@dataclass
class RoutingState:
    """What all gates of one model share while a batch is routed.

    A plain object, not a buffer: DDP overwrites buffers, and state dicts would carry it.

    Attributes:
        gates: bool tensor (B, L), or None: nothing is routed, the model is the plain PEFT model.
        sequence_length: T, for layers that see the batch flattened to (B·T, …); or None.
        passes: number of routed passes so far, to notice a gate that was let go before backward.
    """

    gates: Tensor | None = None
    sequence_length: int | None = None
    passes: int = 0


@dataclass
class Gate:
    """The gate of one module (see ``GatePoint`` for the fields that it shares with it)."""

    state: RoutingState
    name: str
    block: int
    tuners: tuple[Any, ...]  # BaseTunerLayer or ModulesToSaveWrapper, which share only the flag
    lifted: bool
    prefix_length: int
    original: type[nn.Module]
    last_pass: int | None = None

    def __call__(self, module: Any, args: tuple, kwargs: dict) -> Any:
        """Run the module with the batch's gates."""
        forward = functools.partial(self.original.forward, module)
        compiling = torch.compiler.is_compiling()
        if not compiling:
            self._check_recomputation()
        gates = self.state.gates
        if gates is None or any(t._disable_adapters or t.merged_adapters for t in self.tuners):
            return forward(*args, **kwargs)
        gate = gates[:, self.block]
        if self._is_a(BIASES) and len(self.tuners) == 1:
            return self._with_gated_bias(gate, module, args, kwargs)
        frozen = None
        if self.lifted:
            with replayed_randomness(module) as replay:
                # compiled, what both runs have in common is computed once in any case
                attention = PrefixGate(module, gate, self.prefix_length)
                with attention if self.prefix_length and not compiling else nullcontext():
                    tuned = forward(*args, **kwargs)
                if attention.passed:
                    return tuned
                with replay():
                    frozen = self._frozen(forward, args, kwargs)
        else:
            if compiling or not self._can_tap(module):
                tuned = forward(*args, **kwargs)
            else:
                tuned, frozen = _tapped(module.base_layer, forward, args, kwargs)
            if frozen is None:
                frozen = self._frozen(forward, args, kwargs)
        return self._choose(gate, tuned, frozen)

    def _can_tap(self, module: nn.Module) -> bool:
        # a nested tuner layer would hand over its own tuned output as the frozen one
        return len(self.tuners) == 1 and not self._is_a(NEVER_TAPPED)

    def _is_a(self, names: set[str]) -> bool:
        return any(c.__name__ in names for c in self.original.__mro__)

    def _frozen(self, forward: Any, args: tuple, kwargs: dict) -> Any:
        if self.prefix_length:
            return without_prefix(forward, args, kwargs, self.prefix_length)
        for tuner in self.tuners:
            # the flag alone: enable_adapters() would also turn requires_grad on and off
            tuner._disable_adapters = True
        try:
            return forward(*args, **kwargs)
        finally:
            for tuner in self.tuners:
                tuner._disable_adapters = False

    def _with_gated_bias(self, gate: Tensor, layer: Any, args: tuple, kwargs: dict) -> Tensor:
        """BEFT's forward, with its bias gated: a vector an example, where outputs are a matrix."""
        frozen = layer.base_layer(*args, **kwargs)
        active = [layer.beft_bias[name] for name in layer.active_adapters if name in layer.beft_bias]
        bias = sum(vector.flatten() for vector in active)
        return (frozen + torch.where(self._matched(gate, frozen), bias, 0.0)).to(frozen.dtype)

    def _choose(self, gate: Tensor, tuned: Any, frozen: Any) -> Any:
        if isinstance(tuned, tuple):
            return tuple(self._choose(gate, t, f) for t, f in zip(tuned, frozen, strict=True))
        if not isinstance(tuned, Tensor) or (self.prefix_length and tuned.shape != frozen.shape):
            return tuned  # None, caches; attention weights, which with a prefix have more columns
        # where(), not arithmetic: exact in every dtype, and the closed path's Inf or NaN stays out
        return torch.where(self._matched(gate, tuned), tuned, frozen.to(tuned.dtype))

    def _matched(self, gate: Tensor, output: Tensor) -> Tensor:
        """The gate in a shape that broadcasts over an output, whose rows are examples or their tokens."""
        examples, rows = gate.shape[0], output.shape[0]
        if rows != examples:
            if self.state.sequence_length is None or rows != examples * self.state.sequence_length:
                raise RuntimeError(
                    f"'{self.name}' got {rows} rows for a batch of {examples} gates, so gates and examples "
                    "cannot be matched: pass sequence_length to route() if it flattens (batch, tokens), turn "
                    "off packing and padding-free batches, or leave the layer out of target_modules."
                )
            gate = gate.repeat_interleave(self.state.sequence_length)
        return gate.view(-1, *[1] * (output.dim() - 1))

    def _check_recomputation(self) -> None:
        """Refuse to recompute a checkpointed forward with gates that are not those it had."""
        current = self.state.passes if self.state.gates is not None else None
        in_backward = torch._C._current_graph_task_id() != -1
        if not in_backward:
            self.last_pass = current
        elif current != self.last_pass:
            raise RuntimeError(
                "The gates changed between forward and backward while gradient checkpointing was on, which "
                "would give wrong gradients: call backward() inside `with router.route(...)`."
            )


@functools.cache
def gated_class(original: Any) -> Any:
    """The subclass of a module class whose forward asks the module's gate."""

    @functools.wraps(original.forward)
    def forward(self: nn.Module, *args: Any, **kwargs: Any) -> Any:
        return self.__dict__["_clear_gate"](self, args, kwargs)

    return type(original.__name__, (original,), {"forward": forward, "__module__": original.__module__})


def _tapped(base_layer: nn.Module, forward: Any, args: tuple, kwargs: dict) -> tuple[Any, Tensor | None]:
    """Run the tuned forward and keep what its base layer returned, if that is the frozen output."""
    taken: list[tuple[Tensor, int] | None] = []

    def keep(_module: nn.Module, inputs: tuple, output: Any) -> None:
        same_input = len(inputs) == 1 and len(args) > 0 and inputs[0] is args[0]
        usable = same_input and isinstance(output, Tensor) and not output.is_inference()
        taken.append((output, output._version) if usable else None)

    handle = base_layer.register_forward_hook(keep)
    try:
        tuned = forward(*args, **kwargs)
    finally:
        handle.remove()
    if len(taken) != 1 or taken[0] is None or not isinstance(tuned, Tensor):
        return tuned, None
    frozen, version = taken[0]
    # several tuners add to the base output in place: then it is the frozen output no longer
    usable = frozen._version == version and frozen.dtype == tuned.dtype and frozen.shape == tuned.shape
    return tuned, frozen if usable else None
