"""What holds in a training step: its gates, above all."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch

from clear_peft.cpu import in_training
from clear_peft.trainer.columns import ID_COLUMN
from clear_peft.trainer.phases import Phase


@contextmanager
def in_step(trainer: Any, inputs: dict[str, Any]) -> Iterator[None]:
    """Inside, a trainer takes a training step: gates are held, and a CPU computes as it does faster.

    Args:
        trainer: A ``CleaRTrainer``.
        inputs: The batch, with its ids.
    """
    trainer.in_training_step = True
    try:
        with in_training(trainer.faster, trainer.model), gates_held(trainer, inputs):
            yield
    finally:
        trainer.in_training_step = False


@contextmanager
def gates_held(trainer: Any, inputs: dict[str, Any]) -> Iterator[None]:
    """Inside, a batch goes through its gates, until its backward is over.

    They are open with probability γ and, once noise is found, γ times the confidence of the target.

    Args:
        trainer: A ``CleaRTrainer``.
        inputs: The batch, with its ids.
    """
    if trainer.router is None:
        yield
        return
    ids = inputs[ID_COLUMN].to(trainer.args.device)
    length = inputs["input_ids"].shape[1] if "input_ids" in inputs else None
    trust = torch.ones_like(ids, dtype=torch.float32)
    if trainer.phase is Phase.ROBUST and trainer.args.use_routing:
        trust = trainer.store.confidence[ids]
    step = trainer.state.global_step
    with trainer.router.route(trust, example_ids=ids, step=step, sequence_length=length) as gates:
        own = len(inputs["labels"])
        trainer.store.stats.routed(gates[:own], ids[:own])
        yield
