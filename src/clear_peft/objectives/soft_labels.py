"""Cross entropy to targets, and with weights, that whoever trains sets from outside."""

from collections.abc import Mapping

import torch
from torch import Tensor

from clear_peft.errors import InputError
from clear_peft.objectives.checks import distributions
from clear_peft.objectives.losses import cross_entropy, soft_cross_entropy
from clear_peft.objectives.objective import BaseObjective


class SoftLabels(BaseObjective):
    """w_i · CE(q_i, f_i); before targets q are set, to the given label; before weights w are set, w_i = 1."""

    name = "soft_labels"

    @property
    def targets(self) -> Tensor | None:
        """q, (N, C) float32, rows that sum to 1; None as long as the given labels count.

        A copy is kept of what is set. Setting raises an InputError on another shape or rows that are no
        distributions.
        """
        return self._memory.get("targets")

    @targets.setter
    def targets(self, targets: Tensor | None) -> None:
        self._memory.pop("targets", None)
        if targets is not None:
            shape = (self.num_examples, self.num_classes)
            self._memory["targets"] = distributions("targets", targets, shape)

    @property
    def weights(self) -> Tensor | None:
        """w, (N,) float32, at least 0; None as long as all count alike.

        A copy is kept of what is set. Setting raises an InputError on another shape or on weights that are
        negative or not finite.
        """
        return self._memory.get("weights")

    @weights.setter
    def weights(self, weights: Tensor | None) -> None:
        self._memory.pop("weights", None)
        if weights is None:
            return
        if weights.shape != (self.num_examples,):
            raise InputError(f"weights have shape {tuple(weights.shape)}: give ({self.num_examples},).")
        if not (torch.isfinite(weights) & (weights >= 0)).all():
            raise InputError("Some weights are negative or not finite: give finite numbers of at least 0.")
        self._memory["weights"] = weights.detach().to(torch.float32, copy=True)

    def _losses(self, logits: Tensor, labels: Tensor, ids: Tensor, epoch: float) -> Tensor:
        if self.targets is None:
            losses = cross_entropy(logits, labels)
        else:
            losses = soft_cross_entropy(logits, self.targets[ids])
        return losses if self.weights is None else self.weights[ids] * losses

    def restore(self, state: Mapping[str, Tensor]) -> None:
        """Go on from what ``state`` returned; see ``Objective``."""
        if not state.keys() <= {"targets", "weights"}:
            raise self._foreign(state)
        self.targets, self.weights = state.get("targets"), state.get("weights")
