"""Losses that remember nothing: the formulas of ``functional`` with their options."""

from torch import Tensor

from clear_peft.losses.base import BaseLoss
from clear_peft.losses.checks import number
from clear_peft.losses.functional import (
    binary_cross_entropy,
    cross_entropy,
    generalized_cross_entropy,
    smoothed_cross_entropy,
    symmetric_cross_entropy,
)


class CrossEntropy(BaseLoss):
    """Cross entropy to the given labels."""

    name = "cross_entropy"

    def _losses(self, logits: Tensor, labels: Tensor, ids: Tensor, epoch: float) -> Tensor:
        return cross_entropy(logits, labels)


class BinaryCrossEntropy(BaseLoss):
    """Binary cross entropy to several given labels a row, (B, C) of 0 and 1, the mean over the labels."""

    name = "binary_cross_entropy"

    @property
    def label_shape(self) -> tuple[int, ...]:
        """Each of the C labels is present or absent."""
        return (self.num_classes,)

    def _losses(self, logits: Tensor, labels: Tensor, ids: Tensor, epoch: float) -> Tensor:
        return binary_cross_entropy(logits, labels)


class LabelSmoothing(BaseLoss):
    """Cross entropy to smoothed labels (Szegedy et al. 2016, arXiv 1512.00567).

    Args:
        num_examples: N.
        num_classes: C.
        epsilon: ε in [0, 1), the share that is spread evenly over all classes. Default 0.1, as there.
    """

    name = "label_smoothing"

    def __init__(self, num_examples: int, num_classes: int, *, epsilon: float = 0.1) -> None:
        super().__init__(num_examples, num_classes)
        self.epsilon = number("epsilon", epsilon, "[0, 1)")

    def _losses(self, logits: Tensor, labels: Tensor, ids: Tensor, epoch: float) -> Tensor:
        return smoothed_cross_entropy(logits, labels, self.epsilon)


class GCE(BaseLoss):
    """Generalized cross entropy (Zhang & Sabuncu 2018, arXiv 1805.07836).

    Args:
        num_examples: N.
        num_classes: C.
        q: in (0, 1]: near 0 cross entropy, 1 the mean absolute error 1 − p_y. Default 0.7, as there.
    """

    name = "gce"

    def __init__(self, num_examples: int, num_classes: int, *, q: float = 0.7) -> None:
        super().__init__(num_examples, num_classes)
        self.q = number("q", q, "(0, 1]")

    def _losses(self, logits: Tensor, labels: Tensor, ids: Tensor, epoch: float) -> Tensor:
        return generalized_cross_entropy(logits, labels, self.q)


class SCE(BaseLoss):
    """Symmetric cross entropy, α·CE + β·RCE (Wang et al. 2019, arXiv 1908.06112).

    The defaults are those that later comparisons give for CIFAR-10 (for the 100 classes of CIFAR-100, α = 6
    and β = 0.1); none are known for text.

    Args:
        num_examples: N.
        num_classes: C.
        alpha: α ≥ 0, the weight of cross entropy. Default 0.1.
        beta: β ≥ 0, the weight of reverse cross entropy. Default 1.
        log_zero: A ≤ 0, what stands for log 0. Default −4.
    """

    name = "sce"

    def __init__(
        self,
        num_examples: int,
        num_classes: int,
        *,
        alpha: float = 0.1,
        beta: float = 1.0,
        log_zero: float = -4.0,
    ) -> None:
        super().__init__(num_examples, num_classes)
        self.alpha = number("alpha", alpha, "[0, inf)")
        self.beta = number("beta", beta, "[0, inf)")
        self.log_zero = number("log_zero", log_zero, "(-inf, 0]")

    def _losses(self, logits: Tensor, labels: Tensor, ids: Tensor, epoch: float) -> Tensor:
        return symmetric_cross_entropy(logits, labels, self.alpha, self.beta, self.log_zero)
