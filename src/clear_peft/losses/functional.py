"""Per-example losses for classification: (B, C) logits in, (B,) float32 out.

Nothing is averaged here: per-example values are what gets weighted, stored and fitted. All arithmetic is in
float32, since the losses of well-learnt examples drown in the rounding of bfloat16.
"""

import torch
from torch import Tensor
from torch.nn.functional import binary_cross_entropy_with_logits, one_hot

from clear_peft.errors import InputError


def cross_entropy(logits: Tensor, labels: Tensor) -> Tensor:
    """Cross entropy to hard labels, −log softmax(f)[y].

    Args:
        logits: f, (B, C), any float dtype.
        labels: y, (B,) int64 in [0, C). Every example counts: there is no ``ignore_index``.

    Returns:
        (B,) float32, differentiable in the logits.

    Raises:
        InputError: If the shapes do not fit.
    """
    _check_labels(logits, labels)
    return -_log_softmax(logits).gather(1, labels.unsqueeze(1)).squeeze(1)


def soft_cross_entropy(logits: Tensor, target_probabilities: Tensor) -> Tensor:
    """Cross entropy to target distributions, −Σ_c q_c log softmax(f)_c.

    Args:
        logits: f, (B, C), any float dtype.
        target_probabilities: q, (B, C), rows that sum to 1. Gradients flow into it: detach it if it comes
            from a model that must not learn from this loss.

    Returns:
        (B,) float32, differentiable in both arguments.

    Raises:
        InputError: If the shapes differ.
    """
    _check_same_shape(logits, target_probabilities, "target_probabilities")
    return -(target_probabilities.float() * _log_softmax(logits)).sum(dim=1)


def binary_cross_entropy(logits: Tensor, targets: Tensor) -> Tensor:
    """Binary cross entropy of labels that are present or absent, the mean over the labels of a row.

    Args:
        logits: f, (B, C), any float dtype.
        targets: Probability of each label, or 0 and 1, (B, C), any dtype.

    Returns:
        (B,) float32, differentiable in the logits.

    Raises:
        InputError: If the shapes differ.
    """
    _check_same_shape(logits, targets, "targets")
    each = binary_cross_entropy_with_logits(logits.float(), targets.float(), reduction="none")
    return each.mean(dim=1)


def consistency(logits: Tensor, teacher_logits: Tensor, temperature: float) -> Tensor:
    """Cross entropy to a teacher's tempered prediction, CE(softmax(t/T), f/T), CleaR's second loss term.

    No gradient reaches the teacher. The value at f = t is the teacher's entropy, where the gradient is 0.
    Source: Kim et al. 2024 (CleaR, arXiv 2411.00873); unlike in Hinton et al. 2015 there is no factor T².

    Args:
        logits: f, (B, C), any float dtype.
        teacher_logits: t, (B, C), any float dtype.
        temperature: T > 0; below 1 it sharpens teacher and student.

    Returns:
        (B,) float32, differentiable in ``logits``.

    Raises:
        InputError: If the shapes differ or the temperature is not positive.
    """
    _check_same_shape(logits, teacher_logits, "teacher_logits")
    if not temperature > 0:
        raise InputError(f"The temperature is {temperature}: give a positive number.")
    target = torch.softmax(teacher_logits.detach().float() / temperature, dim=1)
    return soft_cross_entropy(logits.float() / temperature, target)


def smoothed_cross_entropy(logits: Tensor, labels: Tensor, epsilon: float) -> Tensor:
    """Cross entropy to smoothed labels, (1 − ε)·onehot(y) + ε/C.

    Source: Szegedy et al. 2016 (arXiv 1512.00567).

    Args:
        logits: f, (B, C), any float dtype.
        labels: y, (B,) int64 in [0, C).
        epsilon: ε in [0, 1]; 0 is cross entropy.

    Returns:
        (B,) float32, differentiable in the logits.

    Raises:
        InputError: If the shapes do not fit.
    """
    _check_labels(logits, labels)
    classes = logits.shape[1]
    return soft_cross_entropy(logits, (1 - epsilon) * one_hot(labels, classes) + epsilon / classes)


def generalized_cross_entropy(logits: Tensor, labels: Tensor, q: float) -> Tensor:
    """Generalized cross entropy, (1 − p_y^q)/q: from cross entropy (q → 0) to 1 − p_y (q = 1).

    Source: Zhang & Sabuncu 2018 (arXiv 1805.07836), the loss without its truncation.

    Args:
        logits: f, (B, C), any float dtype.
        labels: y, (B,) int64 in [0, C).
        q: in (0, 1].

    Returns:
        (B,) float32, differentiable in the logits.

    Raises:
        InputError: If the shapes do not fit.
    """
    # by way of log p_y: the gradient of p_y^q itself is infinite at p_y = 0
    return torch.expm1(-q * cross_entropy(logits, labels)) / -q


def symmetric_cross_entropy(
    logits: Tensor, labels: Tensor, alpha: float, beta: float, log_zero: float
) -> Tensor:
    """Symmetric cross entropy, α·CE + β·RCE, where RCE = −Σ_c p_c log onehot(y)_c = −A·(1 − p_y).

    Source: Wang et al. 2019 (arXiv 1908.06112).

    Args:
        logits: f, (B, C), any float dtype.
        labels: y, (B,) int64 in [0, C).
        alpha: α, the weight of cross entropy.
        beta: β, the weight of reverse cross entropy.
        log_zero: A < 0, what stands for log 0.

    Returns:
        (B,) float32, differentiable in the logits.

    Raises:
        InputError: If the shapes do not fit.
    """
    forward = cross_entropy(logits, labels)
    return alpha * forward + beta * log_zero * torch.expm1(-forward)


def _log_softmax(logits: Tensor) -> Tensor:
    return torch.log_softmax(logits.float(), dim=1)


def _check_labels(logits: Tensor, labels: Tensor) -> None:
    if labels.shape != logits.shape[:1] or logits.ndim != 2:
        raise InputError(
            f"logits have shape {tuple(logits.shape)}, labels {tuple(labels.shape)}: give (B, C) and (B,)."
        )


def _check_same_shape(logits: Tensor, other: Tensor, name: str) -> None:
    # Broadcasting would hide a missing batch or class axis.
    if logits.ndim != 2 or other.shape != logits.shape:
        raise InputError(
            f"logits have shape {tuple(logits.shape)}, {name} {tuple(other.shape)}: give (B, C) for both."
        )
