"""What an example of a doubtful label is to be learnt as."""

import torch
from torch import Tensor


def soft_targets(labels: Tensor, probability: Tensor, teacher: Tensor) -> Tensor:
    """p·label + (1 − p)·teacher, (B, C) float32.

    Args:
        labels: Given labels, (B,) int64.
        probability: p, (B,) float32.
        teacher: Class probabilities, (B, C) float32.
    """
    p = probability.unsqueeze(1)
    return ((1 - p) * teacher).scatter_add(1, labels.unsqueeze(1), p)


def if_wrong(labels: Tensor, predicted: Tensor, transition: Tensor | None) -> Tensor:
    """P(true class | row, the given label is wrong), (B, C) float32; with p a posterior, the rest of it.

    Args:
        labels: Given labels, (B,) int64.
        predicted: P(true class | row) of who has not seen the label, (B, C) float32.
        transition: P(given label | true class), (C, C); None where a wrong label may be any class alike.
    """
    weights = predicted if transition is None else predicted * transition[:, labels].T
    others = weights.scatter(1, labels.unsqueeze(1), 0)
    return others / others.sum(dim=1, keepdim=True).clamp(min=torch.finfo(others.dtype).tiny)
