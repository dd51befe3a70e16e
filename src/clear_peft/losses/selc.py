"""Self-ensemble label correction: the labels move towards the averaged predictions."""

import torch
from torch import Tensor
from torch.nn.functional import one_hot

from clear_peft.losses.base import BaseLoss, moving_average
from clear_peft.losses.checks import number
from clear_peft.losses.functional import cross_entropy, soft_cross_entropy


class SELC(BaseLoss):
    """Cross entropy, then cross entropy to soft targets s_i ← α·s_i + (1 − α)·softmax(f_i).

    Source: Lu & He 2022 (arXiv 2205.01156). s_i starts as the one-hot given label, is updated before the loss
    is taken, and passes no gradient. The authors look for the point where the model begins to learn wrong
    labels; here it is an option, and its default, a guess of ours, is meant for pretrained models and some
    ten epochs.

    Args:
        num_examples: N.
        num_classes: C.
        momentum: α in [0, 1]; 1 is cross entropy. Default 0.9, as there.
        switch_epoch: Epochs of plain cross entropy, at least 0. Default 2.
    """

    name = "selc"

    def __init__(
        self, num_examples: int, num_classes: int, *, momentum: float = 0.9, switch_epoch: float = 2.0
    ) -> None:
        super().__init__(num_examples, num_classes)
        self.momentum = number("momentum", momentum, "[0, 1]")
        self.switch_epoch = number("switch_epoch", switch_epoch, "[0, inf)")
        self._memory = {"targets": torch.zeros(num_examples, num_classes)}  # a row of zeros: not yet seen

    def _losses(self, logits: Tensor, labels: Tensor, ids: Tensor, epoch: float) -> Tensor:
        if epoch < self.switch_epoch:
            return cross_entropy(logits, labels)
        stored = self._memory["targets"][ids]
        seen = stored.any(dim=1, keepdim=True)
        targets = torch.where(seen, stored, one_hot(labels, self.num_classes).float())
        if logits.requires_grad:
            predicted = torch.softmax(logits.detach(), dim=1)
            targets = moving_average(targets, predicted, self.momentum)
            self._memory["targets"][ids] = targets
        return soft_cross_entropy(logits, targets)
