"""Several labels a row, or none: the task, what is known of its rows, and how its labels are judged."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
import torch
from sklearn.metrics import average_precision_score, f1_score
from torch import Tensor

from clear_peft.data.label_sets import rarest
from clear_peft.data.labels import SEVERAL_LABELS
from clear_peft.errors import InputError
from clear_peft.label_quality import (
    LinearHead,
    MultilabelQuality,
    fit_logistic_head,
    fit_multilabel_probe,
)
from clear_peft.losses import BinaryCrossEntropy, Loss, binary_cross_entropy
from clear_peft.routing import Router
from clear_peft.trainer import columns
from clear_peft.trainer.config import OF_SINGLE_LABEL, OF_WORDS, CleaRConfig
from clear_peft.trainer.estimate import Estimate
from clear_peft.trainer.estimators import finite
from clear_peft.trainer.sampler import rebalance
from clear_peft.trainer.stats import TrainingStats
from clear_peft.trainer.store import ExampleStore, Rows
from clear_peft.tuners.plans import plan_of

_TINY = np.finfo(np.float32).tiny


class MultiLabel:
    """Each of C labels is present or absent in a row (``problem_type="multi_label_classification"``).

    The counterpart of ``SingleLabel``: losses are binary cross entropies, means over the labels of a row, and
    probes judge each label of each row (``fit_multilabel``).

    Args:
        model: The classifier.

    Attributes:
        num_labels: C.
        names: Names of the labels.
    """

    problem_type = SEVERAL_LABELS
    quality = MultilabelQuality

    def __init__(self, model: Any) -> None:
        self.num_labels: int = model.config.num_labels
        self.names = [model.config.id2label[i] for i in range(self.num_labels)]

    def check(self, model: Any, args: CleaRConfig) -> None:
        """Refuse what is for one label a row.

        Raises:
            InputError: If there is such a setting or PEFT method.
        """
        metric = args.metric_name.removeprefix("eval_")
        given = {
            "loss": args.loss != "cross_entropy" and args.loss,
            "loss_options": args.options,
            "class_weights": args.class_weights != "none" and args.class_weights,
            "consistency_weight": args.consistency_weight,
            "label_estimator": args.clean_routing
            and args.label_estimator != "probe"
            and args.label_estimator,
        }
        for name, value in given.items():
            if value:
                raise InputError(f"{name} is {value!r}, which is for one label a row: leave it out.")
        if metric in {*OF_SINGLE_LABEL, *OF_WORDS}:
            raise InputError(
                f"metric_for_best_model is {metric!r}, which is for one label a row: give "
                "'weighted_micro_f1', 'weighted_macro_f1' or 'weighted_mean_average_precision'."
            )
        if plan_of(model) is not None:
            raise InputError(
                "rosa, metapeft and glora are trained with one label a row: choose another PEFT method."
            )

    def collator(self, processing_class: Any) -> Any:
        """What makes batches where nothing else is given; None: what transformers takes."""
        return None

    def rows(self, dataset: Any, length_column: str, name: str) -> "LabelSetRows":
        """What a data set says of its rows."""
        return LabelSetRows(dataset, self.num_labels, length_column, name)

    def store(self, rows: Rows, router: Router | None, args: CleaRConfig) -> "LabelSetStore":
        """What is known of each row."""
        return LabelSetStore(rows, self.num_labels, router, args)

    def make_loss(self, size: int, args: CleaRConfig) -> Loss:
        """The loss of so many examples under their given labels."""
        return BinaryCrossEntropy(size, self.num_labels)

    def fit_head(
        self,
        features: npt.NDArray[np.floating],
        labels: npt.NDArray[np.bool_],
        num_labels: int,
        *,
        clean_probability: npt.NDArray[np.floating] | None = None,
        groups: npt.NDArray[np.integer] | None = None,
    ) -> LinearHead:
        """Logistic regressions to begin training from, by what is likely to apply; as ``fit_linear_head``."""
        if clean_probability is None:
            return fit_logistic_head(features, labels.astype(np.float32))
        return fit_logistic_head(features, np.where(labels, clean_probability, 1 - clean_probability))

    def by_probe(self, args: CleaRConfig) -> bool:
        """Whether labels are judged by probes: always."""
        return True

    def estimate_by_probe(
        self,
        features_of: Callable[[npt.NDArray[np.integer] | None], Tensor | None],
        rows: "LabelSetRows",
        validation: "LabelSetRows | None",
        args: CleaRConfig,
        *,
        epoch: int,
        decides: bool,
    ) -> Estimate | None:
        """What logistic regressions on the model's features make of the labels.

        As ``clear_peft.trainer.estimators.estimate_by_probe``. Validation rows have no part in the fit.

        Raises:
            InputError: If the model gives out no hidden states.
            RunFailedError: If a feature is not finite.
        """
        first, *others = rows.blocks(args.seed)
        features, held_out = features_of(first), features_of(None)
        if features is None:
            raise InputError(
                "The model gives out no hidden states, by which several labels a row are judged: choose "
                "another model, or clean_routing=False."
            )
        probe, parts = None, []
        if decides:
            probe, fitted = fit_multilabel_probe(
                finite(features), rows.labels[first], groups=rows.groups[first], copies=rows.copies[first]
            )
            parts.append(replace(fitted, row=first))
        for block in others:
            features = features_of(block)
            if probe is not None and features is not None:
                judged = probe.judge(finite(features), rows.labels[block], rows.groups[block])
                parts.append(replace(judged, row=block))
        if probe is None:
            return None
        train = replace(MultilabelQuality.concatenate(parts), row=rows.row)
        unseen = None
        if validation is not None and held_out is not None:
            judged = probe.judge(finite(held_out), validation.labels, validation.groups)
            unseen = replace(judged, row=validation.row)
        likely = np.where(train.given, train.pred_probs, 1 - train.pred_probs)
        return Estimate(
            epoch=epoch,
            train=train,
            validation=unseen,
            losses=-np.log(np.maximum(likely, _TINY)).mean(axis=1),
            noise_found=train.noise_rate >= args.noise_threshold,
            parameters={
                "scale": "log_odds",
                "contradicted": float((likely < 0.5).mean()),
                "wrong_estimate": train.wrong_rate,
                "missing_estimate": train.missing_rate,
            },
            validation_weights=np.empty(0, np.float32) if unseen is None else unseen.clean_probability,
        )

    def units_in(self, labels: Any) -> Any:
        """How many losses so many labels have: one for the C labels of each row."""
        return labels // self.num_labels

    def hard_loss(self, logits: Tensor, labels: Tensor) -> Tensor:
        """Of each row under its given labels: logits (B, C), labels (B, C) → (B,) float32."""
        return binary_cross_entropy(logits, labels)

    def soft_loss(self, logits: Tensor, targets: Tensor) -> Tensor:
        """Of each row under what is likely to apply: logits (B, C), targets (B, C) → (B,) float32."""
        return binary_cross_entropy(logits, targets)

    def evaluated(self, outputs: Any, labels: Tensor, return_outputs: bool) -> Tensor | tuple[Tensor, Any]:
        """The mean loss of a batch."""
        loss = binary_cross_entropy(outputs.logits, labels).mean()
        return (loss, outputs) if return_outputs else loss

    def evaluates(self, dataset: Any, args: CleaRConfig) -> None:
        """Hear which data set is evaluated next; figures of single rows do not need to know."""

    def metrics(self, prediction: Any) -> dict[str, float]:
        """Micro-F1, macro-F1 and mean average precision, as ``compute_metrics`` gives them."""
        return label_set_metrics(prediction.predictions, prediction.label_ids)

    def issues(self, quality: MultilabelQuality) -> pd.DataFrame:
        """Labels, most suspicious first; see ``MultilabelQuality.issues``."""
        return quality.issues(self.names)

    def weighted_metrics(
        self, logits: Any, labels: npt.NDArray[Any], weights: npt.NDArray[np.floating] | None
    ) -> dict[str, float]:
        """The same under the given labels, each label of each row weighted by its clean probability.

        Args:
            logits: (M, C); where it is anything else, nothing is measured.
            labels: Given labels, (M, C).
            weights: Their clean probabilities, (M, C); where they are not known, all count alike.
        """
        if getattr(logits, "shape", None) != (len(labels), self.num_labels):
            return {}
        return {
            f"weighted_{name}": value for name, value in label_set_metrics(logits, labels, weights).items()
        }


def label_set_metrics(
    scores: npt.NDArray[np.floating],
    labels: npt.NDArray[Any],
    weights: npt.NDArray[np.floating] | None = None,
) -> dict[str, float]:
    """Micro-F1, macro-F1 and mean average precision of several labels a row.

    A label is predicted where its log odds are above 0. Means leave out labels that no row has.

    Args:
        scores: Log odds, (M, C).
        labels: 0 or 1, (M, C).
        weights: How much each label of each row counts, (M, C). Default: all alike.

    Returns:
        ``micro_f1``, ``macro_f1`` and ``mean_average_precision``.
    """
    truth, predicted = labels > 0.5, scores > 0
    counted = np.ones(truth.shape) if weights is None else weights.astype(np.float64)
    occur = np.flatnonzero((counted * truth).sum(axis=0) > 0)
    each = [(truth[:, i], predicted[:, i], scores[:, i], counted[:, i]) for i in occur]
    f1 = [f1_score(true, said, sample_weight=w, zero_division=0) for true, said, _, w in each]
    precision = [average_precision_score(true, odds, sample_weight=w) for true, _, odds, w in each]
    micro = f1_score(truth.ravel(), predicted.ravel(), sample_weight=counted.ravel(), zero_division=0)
    return {
        "micro_f1": float(micro),
        "macro_f1": float(np.mean(f1)) if each else 0.0,
        "mean_average_precision": float(np.mean(precision)) if each else 0.0,
    }


class LabelSetRows(Rows):
    """``Rows`` with several labels or none each: ``labels`` are (N, C) bool."""

    labels: npt.NDArray[Any]

    def _read_labels(self, dataset: Any, num_labels: int, name: str) -> None:
        self.labels = columns.flags_of(dataset, num_labels, name)
        self.verified = self.votes = None
        for column in (columns.VERIFIED_COLUMN, columns.VOTES_COLUMN):
            if columns.column(dataset, column) is not None:
                raise InputError(f"The column {column} is for one label a row: remove it.")
        if name == "training" and not self.labels.any():
            raise InputError("No row of the training set has a label: there is nothing to learn.")

    @property
    def strata(self) -> npt.NDArray[np.integer]:
        """The rarest label of each row, (N,); C where it has none."""
        return rarest(self.labels)


class LabelSetStore(ExampleStore):
    """Soft labels are probabilities that each label applies; c is ``MultilabelQuality.certainty`` of the row.

    Without ``soft_labels``, c is ``MultilabelQuality.trust``. ``pseudo_labels`` are the rarest labels that
    are likely to apply, C where none is: sampling is balanced by them.
    """

    def set_estimate(self, estimate: Estimate | None) -> None:
        """Take an estimate in place of the one before."""
        self.estimate = estimate
        if estimate is None:
            return
        quality: MultilabelQuality = estimate.train
        known = quality.certainty if self._soft_labels else quality.trust
        self._clean = torch.from_numpy(quality.trust).to(self.device)
        self._targets = torch.from_numpy(quality.posterior).to(self.device)
        self.confidence = torch.from_numpy(known).to(self.device)
        self.pseudo_labels = torch.from_numpy(rarest(quality.posterior > 0.5)).to(self.device)

    def sampling_weights(self, balance: float) -> npt.NDArray[np.floating]:
        """How often rows are sampled, in proportion, (N,): by the certainty of their labels."""
        return rebalance(self.confidence.cpu().numpy(), self.pseudo_labels.cpu().numpy(), balance)

    def soft_labels(self, labels: Tensor, ids: Tensor) -> Tensor:
        """P(the label applies | row, given labels) of some rows, ids (B,) int64, (B, C) float32."""
        return self._targets[ids]

    @property
    def wrong(self) -> None:
        """Not known."""
        return None

    def _new_stats(self) -> "LabelSetStats":
        return LabelSetStats(self.rows, *self._sizes, self.device)


class LabelSetStats(TrainingStats):
    """Losses are binary cross entropies, and gates are counted by the rarest label of a row."""

    def __init__(self, rows: Any, num_labels: int, num_blocks: int, device: torch.device) -> None:
        super().__init__(rows.strata, num_labels + 1, num_blocks, device)
        self._flags = torch.from_numpy(rows.labels).to(device)

    @torch.no_grad()
    def step(self, logits: Tensor, losses: Tensor, ids: Tensor) -> None:
        """A training step has given these rows, (B,), these logits, (B, C), and minimised these losses."""
        self._losses[ids] = binary_cross_entropy(logits, self._flags[ids])
        self.seen[ids] = True
        self._trained[0] += losses.sum()
        self._trained[1] += len(losses)
