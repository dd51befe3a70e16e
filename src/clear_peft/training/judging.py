"""From predictions to a verdict on every label."""

from dataclasses import replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from clear_peft.cleanliness import CleanlinessEstimator, share_of_random_labels, smooth
from clear_peft.errors import InputError
from clear_peft.objectives import cross_entropy
from clear_peft.training.config import CleaRConfig
from clear_peft.training.state import CleanlinessState
from clear_peft.training.teacher import Teacher


def judged(
    logits: Tensor,
    labels: np.ndarray,
    held_out: tuple[Tensor, np.ndarray] | None,
    estimator: CleanlinessEstimator,
    args: CleaRConfig,
    *,
    epoch: int,
    seen: bool,
    losses: np.ndarray | None = None,
    before: CleanlinessState | None = None,
) -> CleanlinessState:
    """Judge the labels by what predicts them; where they look right, none is doubted.

    Args:
        logits: (N, C) float32.
        labels: Given labels, (N,).
        held_out: Logits (M, C) and given labels (M,) of validation rows, if there are any.
        estimator: What turns losses into clean probabilities.
        args: For ``loss_smoothing`` and ``doubt_above``.
        epoch: Number of epochs that the model has been trained for.
        seen: Whether the predictions come from a model that was trained on the labels. Labels that such a
            model contradicts are doubtful; one that has not seen them contradicts what is merely hard, and
            only labels far down its ranking count.
        losses: (N,) float32, in place of those that the predictions have.
        before: The pass before, whose losses these are smoothed with.

    Raises:
        InputError: If a loss is not finite.
    """
    if losses is None:
        losses = cross_entropy(logits, torch.from_numpy(labels)).numpy()
    if not np.isfinite(losses).all():
        raise InputError(
            "The model's losses on the training set are not finite: lower the learning rate, or train in "
            "bf16 or float32 instead of fp16."
        )
    if before is not None:
        losses = smooth(before.losses, losses, args.loss_smoothing)
    estimate = estimator.estimate(losses, labels)
    probability = estimate.clean_probability
    hits = logits.argmax(dim=1).numpy() == labels
    findings: dict[str, Any] = {"contradicted": float(1 - hits.mean())}
    believed = np.zeros(0, np.float32)
    if held_out is not None:
        order = np.argsort(losses)
        held_out_losses = cross_entropy(held_out[0], torch.from_numpy(held_out[1])).numpy()
        believed = np.interp(held_out_losses, losses[order], probability[order]).astype(np.float32)
    doubtful = findings["contradicted"]
    if not seen:
        doubtful = findings["random"] = share_of_random_labels(torch.softmax(logits, 1).numpy(), labels)
    state = CleanlinessState(
        epoch=epoch,
        losses=losses.astype(np.float32),
        clean_probability=probability,
        teacher=Teacher.of(logits),
        validation_probability=believed,
        components=estimate.components,
        parameters={**estimate.parameters, **findings},
    )
    return state.believing_all() if doubtful < args.doubt_above else state


def with_doubts_of(state: CleanlinessState, earlier: CleanlinessState) -> CleanlinessState:
    """The state with the clean probabilities of an earlier one."""
    return replace(
        state,
        clean_probability=earlier.clean_probability,
        components=earlier.components,
        parameters=earlier.parameters,
    )
