"""Early-learning regularization: stay close to what was predicted early."""

import torch
from torch import Tensor

from clear_peft.losses.base import BaseLoss, moving_average
from clear_peft.losses.checks import number
from clear_peft.losses.functional import cross_entropy

_MARGIN = 1e-4  # as the authors: keeps log(1 − ⟨t, p⟩) finite


class ELR(BaseLoss):
    """CE + λ·log(1 − ⟨t_i, p_i⟩) with targets t_i ← β·t_i + (1 − β)·p_i (Liu et al. 2020, arXiv 2007.00151).

    p_i = softmax(f_i), clamped to [1e-4, 1 − 1e-4]; into the target it goes normalised and without gradient.
    Targets start at 0 and are updated before the loss is taken. The defaults are the paper's for CIFAR-10.

    Args:
        num_examples: N.
        num_classes: C.
        momentum: β in [0, 1). Default 0.7.
        strength: λ ≥ 0; 0 is cross entropy. Default 3.
    """

    name = "elr"

    def __init__(
        self, num_examples: int, num_classes: int, *, momentum: float = 0.7, strength: float = 3.0
    ) -> None:
        super().__init__(num_examples, num_classes)
        self.momentum = number("momentum", momentum, "[0, 1)")
        self.strength = number("strength", strength, "[0, inf)")
        self._memory = {"targets": torch.zeros(num_examples, num_classes)}

    def _losses(self, logits: Tensor, labels: Tensor, ids: Tensor, epoch: float) -> Tensor:
        probabilities = torch.softmax(logits, dim=1).clamp(_MARGIN, 1 - _MARGIN)
        targets = self._memory["targets"]
        if logits.requires_grad:
            predicted = probabilities.detach()
            predicted = predicted / predicted.sum(dim=1, keepdim=True)
            targets[ids] = moving_average(targets[ids], predicted, self.momentum)
        agreement = (targets[ids] * probabilities).sum(dim=1)
        return cross_entropy(logits, labels) + self.strength * torch.log1p(-agreement)
