"""The gated forward: a subclass made for the class of each gate point.

Swapping ``module.__class__`` (as ``fully_shard`` and ``nn.utils.parametrize`` do) leaves parameters,
state-dict keys and ``isinstance`` alone, is seen by ``torch.compile``, and can be undone. Forward hooks
would be ignored silently once a model of the same class has been compiled.
"""

import functools
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from clear_peft.routing.gate_points import Kind
from clear_peft.routing.internals import NEVER_TAPPED
from clear_peft.routing.prefix_attention import (
    PrefixGate,
    is_accelerated,
    with_masked_prefix,
    without_prefix,
)
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
    _made: dict[Any, Any] = field(default_factory=dict)

    def set(self, gates: Tensor | None, sequence_length: int | None = None) -> None:
        """Hold the gates of a batch, or none any more."""
        self.gates, self.sequence_length = gates, sequence_length
        self._made.clear()

    def zero(self, dtype: torch.dtype) -> Tensor:
        """A zero, (), on the device of the gates."""
        return self._once(("zero", dtype), lambda gates: gates.new_zeros((), dtype=dtype))

    def columns(self, rows: int, dims: int, dtype: torch.dtype, name: str) -> tuple[Tensor, ...]:
        """The gates of each block in a shape that broadcasts over an output of so many rows and dimensions.

        Its rows are examples or their tokens.
        """
        return self._once((rows, dims, dtype), lambda gates: self._columns(gates, rows, dims, dtype, name))

    def _columns(self, gates: Tensor, rows: int, dims: int, dtype: torch.dtype, name: str) -> Any:
        examples = len(gates)
        if rows != examples:
            if self.sequence_length is None or rows != examples * self.sequence_length:
                raise RuntimeError(
                    f"'{name}' got {rows} rows for a batch of {examples} gates, so gates and examples "
                    "cannot be matched: pass sequence_length to route() if it flattens (batch, tokens), turn "
                    "off packing and padding-free batches, or leave the layer out of target_modules."
                )
            gates = gates.repeat_interleave(self.sequence_length, dim=0)
        return gates.to(dtype).view(rows, *[1] * (dims - 1), -1).unbind(-1)

    def prefix_bias(self, block: int, prefix_length: int, tokens: int, dtype: torch.dtype) -> Tensor:
        """What masks the prefix where the gate is closed, added to an attention's scores.

        Returns:
            (B, 1, 1, prefix + T), 0 or the lowest number of the dtype.
        """

        def make(gates: Tensor) -> tuple[Tensor, ...]:
            keys = torch.arange(prefix_length + tokens, device=gates.device)
            hidden = ~(gates[:, None, None, :, None] | (keys >= prefix_length))
            bias = torch.zeros(hidden.shape, dtype=dtype, device=gates.device)
            return bias.masked_fill(hidden, torch.finfo(dtype).min).unbind(3)

        return self._once(("prefix", tokens, dtype), make)[block]

    def _once(self, key: Any, make: Callable[[Any], Any]) -> Any:
        """Made once a batch instead of once a layer: on an accelerator each operator is a launch."""
        if torch.compiler.is_compiling():
            return make(self.gates)
        if key not in self._made:
            self._made[key] = make(self.gates)
        return self._made[key]


@dataclass
class Gate:
    """The gate of one module (see ``GatePoint`` for the fields that it shares with it)."""

    state: RoutingState
    name: str
    block: int
    kind: Kind
    tuners: tuple[Any, ...]
    prefix_length: int
    original: type[nn.Module]
    names: tuple[str, ...]  # of the arguments of the original's forward
    last_pass: int | None = None

    def __call__(self, module: Any, args: tuple, kwargs: dict) -> Any:
        """Run the module with the batch's gates."""
        if not torch.compiler.is_compiling():
            self._check_recomputation()
        forward = functools.partial(self.original.forward, module)
        if self.state.gates is None or any(t._disable_adapters or t.merged_adapters for t in self.tuners):
            return forward(*args, **kwargs)
        match self.kind:
            case "term":
                output = forward(*args, **kwargs)
                # where(), not arithmetic: the Inf or NaN of a closed example stays out
                return torch.where(self._matched(output), output, self.state.zero(output.dtype))
            case "bias":
                return self._with_gated_bias(module, args, kwargs)
            case "prefix":
                return self._with_gated_prefix(
                    module, forward, dict(zip(self.names, args, strict=False)) | kwargs
                )
            case "attention":
                with replayed_randomness(module) as replay:
                    tuned = forward(*args, **kwargs)
                    with replay():
                        frozen = self._frozen(forward, args, kwargs)
            case "output":
                tuned, frozen = self._run(module, forward, args, kwargs)
                if frozen is None:
                    frozen = self._frozen(forward, args, kwargs)
        return self._choose(tuned, frozen)

    def _with_gated_bias(self, layer: Any, args: tuple, kwargs: dict) -> Tensor:
        """BEFT's forward, with its bias times the gate: a vector an example, where outputs are a matrix."""
        frozen = layer.base_layer(*args, **kwargs)
        active = [layer.beft_bias[name] for name in layer.active_adapters if name in layer.beft_bias]
        bias = functools.reduce(torch.add, [vector.flatten() for vector in active])
        return (frozen + self._matched(frozen, bias.dtype) * bias).to(frozen.dtype)

    def _with_gated_prefix(self, module: nn.Module, forward: Any, given: dict[str, Any]) -> Any:
        gates: Any = self.state.gates
        on_cpu = not is_accelerated(gates)
        if not on_cpu:
            bias = functools.partial(self.state.prefix_bias, self.block, self.prefix_length)
            masked = with_masked_prefix(module, given, bias)
            if masked is not None:
                return forward(**masked)
        with replayed_randomness(module) as replay:
            attention = PrefixGate(gates[:, self.block], self.prefix_length)
            # compiled, what both runs have in common is computed once in any case
            with attention if on_cpu and not torch.compiler.is_compiling() else nullcontext():
                tuned = forward(**given)
            if attention.passed:
                return tuned
            with replay():
                frozen = forward(**without_prefix(given, self.prefix_length))
        return self._choose(tuned, frozen)

    def _run(self, module: Any, forward: Any, args: tuple, kwargs: dict) -> tuple[Any, Tensor | None]:
        """Run a layer; its frozen output comes with it if it has been computed as well."""
        # a nested tuner layer would hand over its own tuned output as the frozen one
        untapped = len(self.tuners) > 1 or any(c.__name__ in NEVER_TAPPED for c in self.original.__mro__)
        if untapped or torch.compiler.is_compiling():
            return forward(*args, **kwargs), None
        return _tapped(module.base_layer, forward, args, kwargs)

    def _frozen(self, forward: Any, args: tuple, kwargs: dict) -> Any:
        for tuner in self.tuners:
            # the flag alone: enable_adapters() would also turn requires_grad on and off
            tuner._disable_adapters = True
        try:
            return forward(*args, **kwargs)
        finally:
            for tuner in self.tuners:
                tuner._disable_adapters = False

    def _choose(self, tuned: Any, frozen: Any) -> Any:
        if isinstance(tuned, tuple):
            return tuple(self._choose(t, f) for t, f in zip(tuned, frozen, strict=True))
        if not isinstance(tuned, Tensor) or (self.prefix_length and tuned.shape != frozen.shape):
            return tuned  # None, caches; attention weights, which with a prefix have more columns
        return torch.where(self._matched(tuned), tuned, frozen.to(tuned.dtype))

    def _matched(self, output: Tensor, dtype: torch.dtype = torch.bool) -> Tensor:
        return self.state.columns(output.shape[0], output.dim(), dtype, self.name)[self.block]

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
