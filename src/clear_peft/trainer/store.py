"""``ExampleStore``: everything that is known of each training row, in one place."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from datasets import Dataset as HubDataset
from torch import Tensor

from clear_peft.data import hold_out
from clear_peft.errors import InputError
from clear_peft.label_quality import combined
from clear_peft.routing import Router
from clear_peft.trainer import columns
from clear_peft.trainer.config import CleaRConfig
from clear_peft.trainer.estimate import Estimate
from clear_peft.trainer.estimators import blocks
from clear_peft.trainer.sampler import rebalance
from clear_peft.trainer.stats import TrainingStats
from clear_peft.trainer.top_logits import TopLogits

_CHUNK = 1 << 16


class Rows:
    """What a tokenised data set says of each of its N rows.

    Of labels of words (``WordRows``) the arrays have an entry for each word instead: words are the *units*
    that have a label, and so are rows elsewhere.

    Attributes:
        labels: Given labels, (N,) int64.
        copies: Rows with one number have the same text, (N,).
        groups: Rows with one number are judged together, (N,): copies, and those of a column ``group``.
        lengths: Numbers of tokens, (N,); None where they are not known.
        row: Position of each row in the table that it comes from, (N,) int64: its column ``row``, or its
            place in the data set. Windows of one sentence have one.
        clean_labels: True labels, (N,), where a column ``clean_label`` has them: for the log alone.
        verified: True class of each row that a person has looked at, -1 elsewhere, (N,) int64, by its column
            ``verified``; None where nobody has looked at any.
        votes: What several sources say of each row, -1 where one says nothing, (N, A) int64, by its column
            ``votes``; None where the given labels are all that is said.
        sizes: Numbers of units of each row, (N,); None where each row is one.

    Raises:
        InputError: If the labels are none that a classifier of so many classes can be trained on.
    """

    sizes: npt.NDArray[np.int64] | None = None

    def __init__(self, dataset: Any, num_labels: int, length_column: str, name: str) -> None:
        self._read_labels(dataset, num_labels, name)
        self.copies = columns.copies_of(dataset)
        groups = columns.groups_of(dataset)
        self.groups = self.copies if groups is None else combined(self.copies, groups)
        lengths = columns.numbers(dataset, length_column)
        self.lengths = columns.token_counts(dataset) if lengths is None else lengths
        row = columns.numbers(dataset, columns.ROW_COLUMN)
        self.row = np.arange(len(dataset)) if row is None else row.astype(np.int64)
        self.clean_labels = columns.numbers(dataset, columns.CLEAN_LABEL_COLUMN)

    def _read_labels(self, dataset: Any, num_labels: int, name: str) -> None:
        self.labels = columns.labels_of(dataset, num_labels, name)
        self.verified = columns.verified_of(dataset, num_labels)
        self.votes = columns.votes_of(dataset, num_labels)

    @property
    def strata(self) -> npt.NDArray[np.integer]:
        """What draws of rows are stratified by, (N,)."""
        return self.labels

    @property
    def num_rows(self) -> int:
        """N."""
        return len(self)

    def of_rows(self, values: npt.NDArray[Any]) -> npt.NDArray[Any]:
        """What the units of each row have in common, (N,), of a value for each unit."""
        return values

    def units_of(self, rows: npt.NDArray[np.integer]) -> npt.NDArray[np.integer]:
        """Positions of all units of some rows, row after row."""
        return rows

    def rows_of(self, units: npt.NDArray[np.integer]) -> npt.NDArray[np.integer]:
        """The rows of some units, each once, ascending."""
        return units

    def blocks(self, seed: int) -> list[npt.NDArray[np.integer]]:
        """Positions of all units in parts that fit into memory, of whole rows; see ``estimators.blocks``."""
        return blocks(self.strata, seed, verified=self.verified)

    def __len__(self) -> int:
        """The number of units."""
        return len(self.labels)


def hold_out_rows(
    dataset: HubDataset, rows: Rows, fraction: float, seed: int
) -> tuple[HubDataset, HubDataset]:
    """A data set without a share of its rows, and these: stratified, groups and copies whole.

    Args:
        dataset: N rows; where it has no column ``row``, both parts get one.
        rows: What it says of them.
        fraction: The share.
        seed: Of the split.
    """
    kept, held = hold_out(rows.strata, fraction, seed, rows.of_rows(rows.groups))
    if columns.ROW_COLUMN not in dataset.column_names:
        dataset = dataset.add_column(columns.ROW_COLUMN, rows.of_rows(rows.row))
    return dataset.select(kept), dataset.select(held)


def validation_rows(trainer: Any) -> Rows | None:
    """What the validation set of a trainer says of its rows, if each has a label.

    Raises:
        InputError: If a label is none, and ``compute_metrics`` would need it.
    """
    evaluation, args = trainer.eval_dataset, trainer.args
    if not isinstance(evaluation, HubDataset) or not columns.has_labels(evaluation):
        return None
    try:
        return trainer.task.rows(evaluation, args.length_column_name, "validation")
    except InputError:
        if trainer.compute_metrics is not None:
            raise
        return None


class ExampleStore:
    """Owns every array that has an entry for each training row.

    Args:
        rows: What the training set says of them.
        num_labels: C.
        router: Of the gates, if there are any.
        args: For ``soft_labels``, whether targets are mixed from labels and predictions, and the device.

    Attributes:
        rows: As given.
        estimate: The last estimate of the labels; None as long as there is none.
        confidence: c, the probability of the likeliest class of each target, (N,) float32 on the device.
        pseudo_labels: That class, (N,) int64 on the device.
        loss_weights: How much each unit counts in the loss under its soft label, on the device. Default: all
            alike.
        stats: What the steps leave behind, for the log.
    """

    confidence: Tensor
    pseudo_labels: Tensor
    loss_weights: Tensor | None = None
    _transition: Tensor | None

    def __init__(self, rows: Rows, num_labels: int, router: Router | None, args: CleaRConfig) -> None:
        self.rows, self.device = rows, args.device
        self._soft_labels = args.soft_labels
        self._sizes = num_labels, 0 if router is None else router.num_blocks
        self.reset()

    def reset(self) -> None:
        """Nothing is known of any row: before training begins."""
        self.set_estimate(None)
        self.stats = self._new_stats()

    def _new_stats(self) -> TrainingStats:
        return TrainingStats(self.rows.labels, *self._sizes, self.device)

    def set_estimate(self, estimate: Estimate | None) -> None:
        """Take an estimate in place of the one before."""
        self.estimate = estimate
        if estimate is None:
            return
        quality = estimate.train
        self._clean = torch.from_numpy(quality.clean_probability).to(self.device)
        self._predicted = TopLogits(quality.pred_probs, self.device)
        noise = quality.noise
        self._transition = (
            None if noise is None else torch.from_numpy(noise.transition).float().to(self.device)
        )
        labels = torch.from_numpy(self.rows.labels).to(self.device)
        if not self._soft_labels:
            self.confidence, self.pseudo_labels = self._clean, labels
            return
        parts = torch.arange(len(labels), device=self.device).split(_CHUNK)
        likeliest = [self.soft_labels(labels[ids], ids).max(dim=1) for ids in parts]
        self.confidence = torch.cat([part.values for part in likeliest])
        self.pseudo_labels = torch.cat([part.indices for part in likeliest])

    def sampling_weights(self, balance: float) -> npt.NDArray[np.floating]:
        """How often rows are sampled, in proportion, (N,): by the confidence of their targets.

        What is predicted says little early, as with many classes: then steps go to labels that look right.

        Args:
            balance: See ``rebalance``.
        """
        return rebalance(self.confidence.cpu().numpy(), self.pseudo_labels.cpu().numpy(), balance)

    def units(self, logits: Tensor, labels: Tensor, ids: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Logits, labels and positions of the units of a batch of rows, of which these are given."""
        return logits, labels, ids

    def clean_probability(self, ids: Tensor) -> Tensor:
        """P of some rows, ids (B,) int64, (B,) float32."""
        return self._clean[ids]

    def predicted_logits(self, ids: Tensor) -> Tensor:
        """What the estimate's model predicted for some rows, ids (B,) int64, (B, C) float32."""
        return self._predicted.logits(ids)

    def soft_labels(self, labels: Tensor, ids: Tensor) -> Tensor:
        """p·label + (1 − p)·q, (B, C) float32.

        q is what the estimate's model predicted. Where p comes from a noise model, q is that posterior of the
        true class given that the label is wrong: the sum is then the posterior of the true class.

        Args:
            labels: Given labels, (B,) int64.
            ids: The rows, (B,) int64.
        """
        predicted = self._predicted.probs(ids)
        if self._transition is not None:
            predicted = posterior_if_mislabelled(labels, predicted, self._transition)
        p = self._clean[ids].unsqueeze(1)
        return ((1 - p) * predicted).scatter_add(1, labels.unsqueeze(1), p)

    @property
    def wrong(self) -> npt.NDArray[np.bool_] | None:
        """Which given labels are wrong, (N,); None where that is not known, or true of all or none."""
        if self.rows.clean_labels is None:
            return None
        wrong = self.rows.labels != self.rows.clean_labels
        return wrong if wrong.any() and not wrong.all() else None

    def state_dict(self) -> dict[str, Tensor]:
        """What the steps have left behind; the estimate, the same on all processes, has a file of its own."""
        return self.stats.state_dict()

    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        """Go on from what ``state_dict`` returned."""
        self.stats.load_state_dict(state)


def posterior_if_mislabelled(labels: Tensor, predicted: Tensor, transition: Tensor) -> Tensor:
    """P(true class | row, the given label is wrong), (B, C) float32.

    Args:
        labels: Given labels, (B,) int64.
        predicted: P(true class | row) of who has not seen the label, (B, C) float32.
        transition: P(given label | true class), (C, C).
    """
    others = (predicted * transition[:, labels].T).scatter(1, labels.unsqueeze(1), 0)
    return others / others.sum(dim=1, keepdim=True).clamp(min=torch.finfo(others.dtype).tiny)
