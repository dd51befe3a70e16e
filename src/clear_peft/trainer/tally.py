"""What the steps of an epoch leave behind, for logs and plots; nothing in training reads it."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import cross_entropy

from clear_peft.trainer.figures import loss_bins


class Tally:
    """Keeps the prediction and the loss of each example's last step, and counts open gates.

    Args:
        labels: Given labels, (N,) int64.
        num_labels: C.
        num_blocks: L, the gates of each example; 0 where nothing is routed.
        device: Where the steps run.
    """

    def __init__(self, labels: np.ndarray, num_labels: int, num_blocks: int, device: torch.device) -> None:
        self._labels = torch.from_numpy(labels).to(device)
        self._predicted = torch.full_like(self._labels, -1)  # -1: no step on it yet
        self._losses = torch.full((len(labels),), torch.nan, device=device)
        self._open = torch.zeros(num_labels, num_blocks, device=device)  # sum of the gates
        self._routed = torch.zeros(num_labels, device=device)

    @torch.no_grad()
    def step(self, logits: Tensor, ids: Tensor) -> None:
        """A training step has given these examples, (B,), these logits, (B, C)."""
        self._predicted[ids] = logits.argmax(dim=1)
        self._losses[ids] = cross_entropy(logits.float(), self._labels[ids], reduction="none")

    def routed(self, gates: Tensor, ids: Tensor) -> None:
        """These examples, (B,), have gone through these gates, (B, L) bool."""
        classes = self._labels[ids]
        self._open.index_add_(0, classes, gates.float())
        self._routed.index_add_(0, classes, torch.ones_like(classes, dtype=torch.float32))

    def memorised(self, wrong: np.ndarray) -> float:
        """Share of the wrong labels, of those with a step, that the last step predicted. wrong: (N,) bool."""
        predicted = self._predicted.cpu().numpy()
        return float((predicted == self._labels.cpu().numpy())[wrong & (predicted >= 0)].mean())

    def losses(self, wrong: np.ndarray | None) -> dict[str, Any] | None:
        """Histogram of the losses as they fell out of the steps (see ``loss_bins``); None before any step."""
        losses = self._losses.cpu().numpy()
        seen = np.isfinite(losses)
        if not seen.any():
            return None
        return loss_bins(losses[seen], None if wrong is None else wrong[seen], "log_odds")

    def gate_rates(self) -> tuple[list[float], list[float | None]] | None:
        """Shares of open gates since the last ``clear_gates``: of each block, and of each given class."""
        by_class, counts = self._open.cpu().numpy(), self._routed.cpu().numpy()
        if not counts.any():
            return None
        blocks = (by_class.sum(axis=0) / counts.sum()).tolist()
        pairs = zip(by_class.mean(axis=1).tolist(), counts.tolist(), strict=True)
        return blocks, [gates / count if count else None for gates, count in pairs]

    def state(self) -> dict[str, Tensor]:
        """What a checkpoint has to hold, on the CPU: not every example has a step in every epoch."""
        return {name: tensor.to("cpu", copy=True) for name, tensor in self._parts().items()}

    def restore(self, state: Mapping[str, Tensor]) -> None:
        """Go on from what ``state`` returned."""
        for name, tensor in self._parts().items():
            tensor.copy_(state[name])

    def _parts(self) -> dict[str, Tensor]:
        return {
            "predicted": self._predicted,
            "losses": self._losses,
            "open": self._open,
            "routed": self._routed,
        }

    def clear_gates(self) -> None:
        """Begin to count gates anew, for the next epoch."""
        self._open.zero_()
        self._routed.zero_()
