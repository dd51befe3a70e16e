"""What the steps of an epoch leave behind, for logs and plots; nothing in training reads it."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from sklearn.metrics import roc_auc_score
from torch import Tensor
from torch.nn.functional import cross_entropy

from clear_peft.label_quality import log_odds
from clear_peft.trainer.estimate import Estimate

_BINS = 40
Wrong = npt.NDArray[np.bool_] | None


class TrainingStats:
    """Keeps the prediction and the loss of each row's last step, and sums losses and gates.

    Args:
        labels: Given labels, (N,) int64.
        num_labels: C.
        num_blocks: L, the gates of each row; 0 where nothing is routed.
        device: Where the steps run.
    """

    def __init__(
        self, labels: npt.NDArray[np.int64], num_labels: int, num_blocks: int, device: torch.device
    ) -> None:
        self._labels = torch.from_numpy(labels).to(device)
        self._classes = self._labels  # that gates are counted by
        self._predicted = torch.full_like(self._labels, -1)  # -1: no step on it yet
        self._losses = torch.full((len(labels),), torch.nan, device=device)
        self._open = torch.zeros(num_labels, num_blocks, device=device)  # sum of the gates
        self._routed = torch.zeros(num_labels, device=device)
        self.seen = torch.zeros(
            len(labels), dtype=torch.bool, device=device
        )  # in this epoch, by this process
        self._trained = torch.zeros(2, device=device)  # sum of the losses that are minimised, rows

    @torch.no_grad()
    def step(self, logits: Tensor, losses: Tensor, ids: Tensor) -> None:
        """A training step has given these rows, (B,), these logits, (B, C), and minimised these losses."""
        self._predicted[ids] = logits.argmax(dim=1)
        self._losses[ids] = cross_entropy(logits.float(), self._labels[ids], reduction="none")
        self.seen[ids] = True
        self._trained[0] += losses.sum()
        self._trained[1] += len(losses)

    def routed(self, gates: Tensor, ids: Tensor) -> None:
        """These rows, (B,), have gone through these gates, (B, L) bool."""
        classes = self._classes[ids]
        self._open.index_add_(0, classes, gates.float())
        self._routed.index_add_(0, classes, torch.ones_like(classes, dtype=torch.float32))

    def end_epoch(self) -> None:
        """Begin to sum losses and gates anew, for the next epoch."""
        for sums in (self._open, self._routed, self._trained, self.seen):
            sums.zero_()

    def figures(self, estimate: Estimate | None, wrong: Wrong, accelerator: Any) -> dict[str, float]:
        """The numbers of an epoch that a logger can plot.

        Args:
            estimate: The last one, if there has been one.
            wrong: Which labels are wrong, (N,), if it is known.
            accelerator: Accelerate's: all processes take part.
        """
        total, rows = accelerator.reduce(self._trained, "sum").tolist()
        figures = {"epoch_loss": total / rows} if rows else {}
        rates = self.gate_rates()
        if rates is not None:
            figures["gate_rate"] = float(np.mean(rates[0]))
            figures |= {f"gate_rate/block_{i}": rate for i, rate in enumerate(rates[0])}
        if estimate is not None:
            noise_rate = estimate.train.noise_rate
            figures |= {"noise_rate": noise_rate, "clean_probability": 1 - noise_rate}
            if wrong is not None:
                figures["detection_auc"] = float(roc_auc_score(wrong, estimate.losses))
        memorised = None if wrong is None else self.memorised(wrong)
        if memorised is not None:
            figures["memorised"] = memorised
        return figures

    def log(self, trainer: Any, *, estimated: bool, restarts: bool) -> None:
        """Log an epoch of a trainer: figures to its loggers, histograms to its history alone.

        Args:
            trainer: A ``CleaRTrainer``.
            estimated: Whether the labels were estimated after this epoch.
            restarts: Whether training restarts now.
        """
        estimate, wrong = trainer.store.estimate, trainer.store.wrong
        should_log = trainer.control.should_log
        trainer.log(self.figures(estimate, wrong, trainer.accelerator))
        trainer.control.should_log = should_log  # log() takes the Trainer's own turn away
        pictures = self.pictures(estimate if estimated else None, wrong)
        if restarts:
            pictures["restarts"] = True
        place = {"epoch": trainer.state.epoch, "step": trainer.state.global_step}
        trainer.state.log_history.append({**place, **pictures})

    def pictures(self, estimate: Estimate | None, wrong: Wrong) -> dict[str, Any]:
        """Histograms and tables of an epoch.

        Args:
            estimate: The one made after this epoch, if one was.
            wrong: Which labels are wrong, (N,), if it is known.
        """
        pictures: dict[str, Any] = {}
        losses = self._losses.cpu().numpy()
        seen = np.isfinite(losses)
        if seen.any():
            told = None if wrong is None else wrong[seen]
            pictures["step_losses"] = histogram(log_odds(losses[seen]), told)
        rates = self.gate_rates()
        if rates is not None:
            pictures["gate_rates"] = dict(zip(("blocks", "classes"), rates, strict=True))
        if estimate is not None:
            pictures["losses"] = estimate_histogram(estimate, wrong)
        return pictures

    def memorised(self, wrong: npt.NDArray[np.bool_]) -> float | None:
        """Share of the wrong labels, of those with a step, that the last step predicted; None without any."""
        predicted = self._predicted.cpu().numpy()
        repeated = (predicted == self._labels.cpu().numpy())[wrong & (predicted >= 0)]
        return float(repeated.mean()) if len(repeated) else None

    def gate_rates(self) -> tuple[list[float], list[float | None]] | None:
        """Shares of open gates in this epoch: of each block, and of each given class."""
        by_class, counts = self._open.cpu().numpy(), self._routed.cpu().numpy()
        if not counts.any():
            return None
        blocks = (by_class.sum(axis=0) / counts.sum()).tolist()
        pairs = zip(by_class.mean(axis=1).tolist(), counts.tolist(), strict=True)
        return blocks, [gates / count if count else None for gates, count in pairs]

    def state_dict(self) -> dict[str, Tensor]:
        """What a checkpoint has to hold, on the CPU: not every row has a step in every epoch."""
        return {name: tensor.to("cpu", copy=True) for name, tensor in self._parts().items()}

    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        """Go on from what ``state_dict`` returned."""
        for name, tensor in self._parts().items():
            tensor.copy_(state[name])

    def _parts(self) -> dict[str, Tensor]:
        return {
            "predicted": self._predicted,
            "losses": self._losses,
            "open": self._open,
            "routed": self._routed,
            "trained": self._trained,
            "seen": self.seen,
        }


def estimate_histogram(estimate: Estimate, wrong: Wrong) -> dict[str, Any]:
    """Counts of the losses of an estimate, on the scale of what was fitted to them, with that fit.

    Returns:
        What ``histogram`` gives, and ``parameters``; where no mixture was fitted to the losses, ``doubted``
        (40 numbers): how many labels of each bin are wrong by estimate, the sum of 1 − p.
    """
    parameters, p = estimate.parameters, estimate.train.trust
    values = log_odds(estimate.losses) if parameters.get("scale") == "log_odds" else estimate.losses
    bins = histogram(values, wrong)
    if "family" not in parameters and (p < 1).any():
        bins["doubted"] = np.histogram(values, bins["edges"], weights=1 - p)[0].tolist()
    return {**bins, "parameters": parameters}


def histogram(values: npt.NDArray[np.floating], wrong: Wrong) -> dict[str, Any]:
    """Counts in 40 bins of equal width.

    Args:
        values: Finite, (N,).
        wrong: Which labels are wrong, (N,), if it is known.

    Returns:
        ``edges`` (41 numbers); counts (40 each) ``right`` and ``wrong``, or ``all`` where the truth is not
        known.
    """
    edges = np.linspace(values.min(), values.max() + 1e-6, _BINS + 1)
    parts = {"all": values} if wrong is None else {"right": values[~wrong], "wrong": values[wrong]}
    return {
        "edges": edges.tolist(),
        **{name: np.histogram(part, edges)[0].tolist() for name, part in parts.items()},
    }
