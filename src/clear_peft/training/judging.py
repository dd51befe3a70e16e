"""From predictions to a verdict on every label."""

import numpy as np
import torch
from torch import Tensor

from clear_peft.cleanliness import CleanlinessEstimator, ProbePredictions, smooth
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
    losses: np.ndarray | None = None,
    before: CleanlinessState | None = None,
) -> CleanlinessState:
    """Judge labels by a model that has been trained on them; if it contradicts few of them, doubt none.

    Args:
        logits: (N, C) float32.
        labels: Given labels, (N,).
        held_out: Logits (M, C) and given labels (M,) of validation rows, if there are any.
        estimator: What turns losses into clean probabilities.
        args: For ``loss_smoothing`` and ``doubt_above``.
        epoch: Number of epochs that the model has been trained for.
        losses: (N,) float32, in place of those that the predictions have.
        before: The pass before, whose losses these are smoothed with.

    Raises:
        InputError: If a loss is not finite.
    """
    if losses is None:
        losses = _losses(logits, labels)
    check_finite("losses", losses)
    if before is not None:
        losses = smooth(before.losses, losses, args.loss_smoothing)
    estimate = estimator.estimate(losses, labels)
    contradicted = float((logits.argmax(dim=1).numpy() != labels).mean())
    doubted = contradicted >= args.doubt_above
    probability = estimate.clean_probability if doubted else np.ones(len(labels), np.float32)
    unseen, unseen_labels = (logits[:0], labels[:0]) if held_out is None else held_out
    held_out_losses = _losses(unseen, unseen_labels)
    return CleanlinessState(
        epoch=epoch,
        losses=losses.astype(np.float32),
        clean_probability=probability,
        teacher=Teacher.of(logits),
        validation_losses=held_out_losses,
        validation_probability=of_like_losses(held_out_losses, losses, probability),
        validation_teacher=Teacher.of(unseen),
        judge="final_model",
        components=estimate.components if doubted else 1,
        parameters={**estimate.parameters, "contradicted": contradicted},
    )


def judged_by_probe(
    predicted: ProbePredictions,
    labels: np.ndarray,
    held_out_labels: np.ndarray,
    args: CleaRConfig,
    *,
    epoch: int,
) -> CleanlinessState:
    """Judge labels by who has not seen them, and by the noise that this shows.

    Args:
        predicted: Of N training and M validation rows.
        labels: Given labels, (N,).
        held_out_labels: Given labels, (M,).
        args: For ``doubt_above``: below that share of wrong labels training is to doubt none.
        epoch: Number of epochs that the model has been trained for.
    """
    noise = predicted.noise
    logits, unseen = (
        torch.from_numpy(part).clamp(min=1e-12).log().float()
        for part in (predicted.left_out, predicted.held_out)
    )
    probability = noise.clean_probability(predicted.left_out, labels)
    return CleanlinessState(
        epoch=epoch,
        losses=_losses(logits, labels),
        clean_probability=probability,
        teacher=Teacher.of(logits),
        validation_losses=_losses(unseen, held_out_labels),
        validation_probability=noise.clean_probability(predicted.held_out, held_out_labels),
        validation_teacher=Teacher.of(unseen),
        judge="probe",
        components=2 if 1 - probability.mean(dtype=np.float64) >= args.doubt_above else 1,
        parameters={
            "scale": "log_odds",
            "contradicted": float((logits.argmax(dim=1).numpy() != labels).mean()),
            "noise": "uniform" if noise.drawn is None else "class-conditional",
        },
        drawn=None if noise.drawn is None else torch.from_numpy(noise.drawn).float(),
    )


def of_like_losses(losses: np.ndarray, reference: np.ndarray, probability: np.ndarray) -> np.ndarray:
    """The clean probability that like losses of a reference (N,) have, for each loss (M,), float32."""
    order = np.argsort(reference)
    return np.interp(losses, reference[order], probability[order]).astype(np.float32)


def _losses(logits: Tensor, labels: np.ndarray) -> np.ndarray:
    return cross_entropy(logits, torch.from_numpy(labels)).numpy()


def check_finite(what: str, values: np.ndarray) -> None:
    """Stop where a pass has read off what cannot be judged by.

    Raises:
        InputError: If a value is not finite.
    """
    if not np.isfinite(values).all():
        raise InputError(
            f"The model's {what} on the training set are not finite: lower the learning rate, or train in "
            "bf16 or float32 instead of fp16."
        )
