"""Stochastic tailor-made gradient noise: what looks wrongly labelled is learnt under more noise."""

from collections.abc import Mapping

import torch
from torch import Tensor

from clear_peft.losses.base import BaseLoss
from clear_peft.losses.checks import number
from clear_peft.losses.functional import cross_entropy


class STGN(BaseLoss):
    """Cross entropy whose gradient at the logits carries Gaussian noise of an own size σ_i per example.

    Source: Wu et al. 2022 (EMNLP 515). Each time an example is seen its σ_i takes a step up or down,
    clamped to [0, 2σ]. The direction is the sign of its loss minus the (1 − η) quantile of the batch's
    losses. As soon as the batch holds an example that went from right to wrong ``forget_times`` times, it is
    the mean of that sign and of +1 (forgotten that often) or −1 (not). Losses keep their values.

    The walk, its bounds and its step σ/10 are read off the authors' public code. Simpler than there: noise is
    Gaussian with one σ_i for all classes (theirs is uniform, divided by the predicted probability, clamped to
    a multiple of the batch's gradients), and the quantile is of this batch alone (theirs of the last twenty).
    Noise is added per example, before any mean: 0.3 here is about 0.01 on the mean over 32 there.

    Args:
        num_examples: N.
        num_classes: C.
        noise_rate: η in [0, 1), the share of wrong labels. It has no default: the method stands on it.
        sigma: σ ≥ 0, where every σ_i starts; 0 is cross entropy. Default 0.3; the authors tried 0.005 and
            0.01 on the mean over 32.
        forget_times: At least 1. Default 2, as in the authors' settings for SST-5 and MNLI.
        seed: Of the noise. Default 0.
    """

    name = "stgn"

    def __init__(
        self,
        num_examples: int,
        num_classes: int,
        *,
        noise_rate: float,
        sigma: float = 0.3,
        forget_times: int = 2,
        seed: int = 0,
    ) -> None:
        super().__init__(num_examples, num_classes)
        self.noise_rate = number("noise_rate", noise_rate, "[0, 1)")
        self.sigma = number("sigma", sigma, "[0, inf)")
        self.forget_times = number("forget_times", forget_times, "[1, inf)")
        # on the CPU: the same noise wherever the model is
        self._generator = torch.Generator().manual_seed(int(number("seed", seed, f"[0, {2**32})")))
        self._memory = {
            "sigma": torch.full((num_examples,), self.sigma),
            "forgotten": torch.zeros(num_examples, dtype=torch.int64),
            "was_right": torch.zeros(num_examples, dtype=torch.bool),
        }

    def _losses(self, logits: Tensor, labels: Tensor, ids: Tensor, epoch: float) -> Tensor:
        losses = cross_entropy(logits, labels)
        if not logits.requires_grad or not len(ids):
            return losses
        sigma = self._walk(losses.detach(), logits.detach().argmax(dim=1) == labels, ids)
        noise = torch.randn(logits.shape, generator=self._generator).to(logits.device) * sigma.unsqueeze(1)
        # adds 0 to the losses and the noise to their gradients
        return losses + (noise * (logits - logits.detach())).sum(dim=1)

    def _walk(self, losses: Tensor, right: Tensor, ids: Tensor) -> Tensor:
        """Take one step with the σ of a batch, and return them, (B,)."""
        sigma, forgotten, was_right = (self._memory[name] for name in ("sigma", "forgotten", "was_right"))
        forgotten[ids] += was_right[ids] & ~right
        was_right[ids] = right
        by_loss = torch.sign(losses - torch.quantile(losses, 1 - self.noise_rate))
        often = forgotten[ids] >= self.forget_times
        by_both = (by_loss + torch.where(often, 1.0, -1.0)) / 2
        direction = torch.where(often.any(), by_both, by_loss)
        sigma[ids] = (sigma[ids] + 0.1 * self.sigma * direction).clamp(0, 2 * self.sigma)
        return sigma[ids]

    def state_dict(self) -> dict[str, Tensor]:
        """Copies of the memory on the CPU, with the state of the noise generator."""
        return super().state_dict() | {"generator": self._generator.get_state()}

    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        """Go on from what ``state_dict`` returned; see ``Loss``."""
        super().load_state_dict(state)
        self._generator.set_state(state["generator"])
