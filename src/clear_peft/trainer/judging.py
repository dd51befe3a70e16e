"""From predictions to a verdict on every label."""

from collections.abc import Iterable

import numpy as np
import torch
from torch import Tensor

from clear_peft.errors import InputError
from clear_peft.label_quality import CleanlinessEstimator, Judgement, NoiseModel, smooth
from clear_peft.losses import cross_entropy
from clear_peft.trainer.config import CleaRConfig
from clear_peft.trainer.state import CleanlinessState
from clear_peft.trainer.teacher import Teacher


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
    noise: NoiseModel,
    noise_rate_interval: tuple[float, float],
    judgements: Iterable[tuple[np.ndarray, Judgement]],
    labels: np.ndarray,
    held_out: tuple[Judgement, np.ndarray],
    args: CleaRConfig,
    *,
    epoch: int,
) -> CleanlinessState:
    """Judge labels by who has not seen them, and by the noise that this shows.

    Args:
        noise: How given labels come from true ones.
        noise_rate_interval: Of the share of wrong labels.
        judgements: Positions (B,) of some training rows and what a probe says of them, until all have been
            judged once; one block at a time is held in memory.
        labels: Given labels, (N,).
        held_out: The same of M validation rows, and their given labels, (M,).
        args: For ``doubt_above``: below that share of wrong labels training is to doubt none.
        epoch: Number of epochs that the model has been trained for.
    """
    unseen, unseen_labels = held_out
    losses, probability = np.empty(len(labels), np.float32), np.empty(len(labels), np.float32)
    teacher = Teacher.unknown(len(labels), unseen.pred_probs.shape[1], torch.device("cpu"))
    contradicted = 0
    for rows, judgement in judgements:
        given, logits = labels[rows], _logits(judgement.pred_probs)
        teacher.put(torch.from_numpy(rows), logits)
        losses[rows], probability[rows] = _losses(logits, given), judgement.clean_probability
        contradicted += int((judgement.pred_probs.argmax(axis=1) != given).sum())
    return CleanlinessState(
        epoch=epoch,
        losses=losses,
        clean_probability=probability,
        teacher=teacher,
        validation_losses=_losses(_logits(unseen.pred_probs), unseen_labels),
        validation_probability=unseen.clean_probability.astype(np.float32),
        validation_teacher=Teacher.of(_logits(unseen.pred_probs)),
        judge="probe",
        components=2 if 1 - probability.mean(dtype=np.float64) >= args.doubt_above else 1,
        parameters={
            "scale": "log_odds",
            "contradicted": contradicted / len(labels),
            "noise": noise.kind,
            "noise_rate_interval": list(noise_rate_interval),
        },
        transition=torch.from_numpy(noise.transition).float(),
    )


def _logits(probabilities: np.ndarray) -> Tensor:
    return torch.from_numpy(probabilities).clamp(min=1e-12).log().float()


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
