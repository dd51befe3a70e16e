"""The router: holds a batch's gates on a PEFT model from forward until backward is over."""

import inspect
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from clear_peft.errors import InputError
from clear_peft.routing.gate_points import adapters, find_gate_points, virtual_tokens
from clear_peft.routing.gated import Gate, RoutingState, gated_class
from clear_peft.routing.gates import draw_gates


class Router:
    """Routes each example through a PEFT model's modules, or past them, block by block.

    Outside :meth:`route` the model behaves as if the router were not there, and it is saved, loaded
    and merged as ever: only the forwards of the gate points are replaced. Works in any training loop::

        router = Router(peft_model, max_gate_prob=0.85)
        with router.route(p[batch_ids], example_ids=batch_ids, step=step):
            loss = peft_model(**batch).loss
            loss.backward()

    ``backward()`` belongs inside the ``with``: gradient checkpointing runs forwards again there.

    Args:
        model: what ``peft.get_peft_model`` made, or a ``clear_peft.tuners.BottleneckModel``. Changed
            in place; :meth:`detach` undoes it.
        max_gate_prob: γ in [0, 1]: even a surely clean example passes a block with this probability only.
            Default 1.
        seed: seed of the gates. Default 0.

    Attributes:
        blocks: names of the blocks, in the order of the columns of the gates.

    Raises:
        InputError: if the model has nothing to gate, is gated already, or cannot be gated (the
            message says what to do instead).

    Source: Kim, Kim & Lee, "CleaR", ACL 2024 (arXiv 2411.00873).
    """

    def __init__(self, model: nn.Module, *, max_gate_prob: float = 1.0, seed: int = 0) -> None:
        if not 0.0 <= max_gate_prob <= 1.0:
            raise InputError(f"max_gate_prob must lie between 0 and 1, not {max_gate_prob}.")
        if any("_clear_gate" in module.__dict__ for module in model.modules()):
            raise InputError(
                "The model has a router already: detach it first (clear_peft.routing.detach(model))."
            )
        points, self.blocks = find_gate_points(model)
        self.max_gate_prob = max_gate_prob
        self.seed = seed
        self._model = model
        self._first = points[0].module
        self._tuners = [tuner for point in points for tuner in point.tuners]
        self._adapters = adapters(model)
        self._state = RoutingState()
        prefix_length = virtual_tokens(model)
        for point in points:
            original: Any = type(point.module)
            names = tuple(inspect.signature(original.forward).parameters)[1:]
            point.module.__dict__["_clear_gate"] = Gate(
                self._state, point.name, point.block, point.kind, point.tuners, prefix_length, original, names
            )
            point.module.__class__ = gated_class(original)

    @property
    def num_blocks(self) -> int:
        """L, the number of blocks: the columns of the gates."""
        return len(self.blocks)

    def draw(
        self, clean_probability: Tensor, *, example_ids: Tensor | None = None, step: int | None = None
    ) -> Tensor:
        """Draw the gates of a batch: m_{i,l} ~ Bernoulli(γ·p_i).

        Args:
            clean_probability: float tensor of shape (B,) in [0, 1].
            example_ids: int64 tensor of shape (B,), the examples' stable ids. Default: their places
                in the batch.
            step: optimizer step. Default: the number of batches routed so far.

        Returns:
            bool tensor of shape (B, L), a pure function of (seed, step, example id, block).
        """
        if example_ids is None:
            example_ids = torch.arange(len(clean_probability), device=clean_probability.device)
        if example_ids.shape != clean_probability.shape or clean_probability.dim() != 1:
            raise InputError(
                "clean_probability and example_ids need one entry per example, shape (B,) each, not "
                f"{tuple(clean_probability.shape)} and {tuple(example_ids.shape)}."
            )
        return draw_gates(
            self.max_gate_prob * clean_probability,
            example_ids.to(clean_probability.device),
            self.num_blocks,
            seed=self.seed,
            step=self._state.passes if step is None else step,
        )

    @contextmanager
    def route(
        self,
        clean_probability: Tensor,
        *,
        example_ids: Tensor | None = None,
        step: int | None = None,
        sequence_length: int | None = None,
    ) -> Iterator[Tensor]:
        """Route a batch: draw its gates (see :meth:`draw`) and hold them (see :meth:`hold`)."""
        gates = self.draw(clean_probability, example_ids=example_ids, step=step)
        with self.hold(gates, sequence_length=sequence_length):
            yield gates

    @contextmanager
    def hold(self, gates: Tensor, *, sequence_length: int | None = None) -> Iterator[None]:
        """Hold given gates on the model until the context ends.

        Args:
            gates: bool tensor of shape (B, L) on the model's device.
            sequence_length: T, needed only for models some of whose tuned layers see the batch
                flattened to (B·T, …), such as OPT's feed-forward or mixtures of experts.

        Raises:
            InputError: if the gates have the wrong shape, another batch is being routed, the router
                is detached, the model has other adapters than it had for the router, or one is merged into
                the base weights.
        """
        if gates.dim() != 2 or gates.shape[1] != self.num_blocks or gates.dtype != torch.bool:
            raise InputError(
                f"The gates must be a bool tensor of shape (batch, {self.num_blocks}), not "
                f"{gates.dtype} of shape {tuple(gates.shape)}."
            )
        if not self._attached():
            raise InputError("The router has been detached from its model: make a new one.")
        if adapters(self._model) != self._adapters:
            raise InputError(
                "Adapters have been added to the model or removed since the router was made: detach it and "
                "make a new one."
            )
        if self._state.gates is not None:
            raise InputError("A batch is being routed already: end its `with` block (after backward) first.")
        if any(tuner.merged_adapters for tuner in self._tuners):
            raise InputError(
                "The adapter is merged into the base weights: call unmerge_adapter() before routing."
            )
        self._state.set(gates, sequence_length)
        self._state.passes += 1
        try:
            yield
        finally:
            self._state.set(None)

    def detach(self) -> None:
        """Give the model its own forwards back."""
        detach(self._model)

    def _attached(self) -> bool:
        gate = self._first.__dict__.get("_clear_gate")
        return gate is not None and gate.state is self._state


def detach(model: nn.Module) -> None:
    """Remove all gates from a model, also from a deep copy whose router is elsewhere."""
    for module in model.modules():
        gate = module.__dict__.pop("_clear_gate", None)
        if gate is not None:
            module.__class__ = gate.original
