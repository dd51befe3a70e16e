"""What is to be predicted of a row: how labels are read, what losses are, and what is measured."""

from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
from sklearn.metrics import f1_score
from torch import Tensor

from clear_peft.errors import InputError
from clear_peft.label_quality import LabelQuality, fit_linear_head
from clear_peft.losses import Loss, cross_entropy, make_loss, soft_cross_entropy
from clear_peft.routing import Router
from clear_peft.trainer.config import (
    OF_MULTI_LABEL,
    OF_SINGLE_LABEL,
    OF_WORDS,
    WEIGHTED_ACCURACY,
    WEIGHTED_MACRO_F1,
    CleaRConfig,
)
from clear_peft.trainer.estimate import Estimate
from clear_peft.trainer.estimators import estimate_by_probe
from clear_peft.trainer.store import ExampleStore, Rows


class SingleLabel:
    """One class of C for each row (``AutoModelForSequenceClassification``).

    Args:
        model: The classifier.

    Attributes:
        num_labels: C.
        names: Names of the classes.

    Raises:
        InputError: If the model does not say how many classes there are.
    """

    quality = LabelQuality
    fit_head = staticmethod(fit_linear_head)

    def __init__(self, model: Any) -> None:
        config: Any = getattr(model, "config", None)
        if not hasattr(config, "num_labels"):
            raise InputError("The model does not say its classes: give it a config with num_labels.")
        self.num_labels: int = config.num_labels
        self.names = [config.id2label[i] for i in range(self.num_labels)]

    def check(self, model: Any, args: CleaRConfig) -> None:
        """Refuse settings that are for several labels a row.

        Raises:
            InputError: If there is one.
        """
        metric = args.metric_name.removeprefix("eval_")
        if metric in OF_MULTI_LABEL:
            raise InputError(
                f"metric_for_best_model is {metric!r}, which is for several labels a row: give "
                f"{WEIGHTED_ACCURACY!r}, or a model of problem_type 'multi_label_classification'."
            )
        if metric in OF_WORDS and metric not in OF_SINGLE_LABEL:
            raise InputError(
                f"metric_for_best_model is {metric!r}, which is for labels of words: give "
                f"{WEIGHTED_ACCURACY!r}, or a model of AutoModelForTokenClassification."
            )

    def collator(self, processing_class: Any) -> Any:
        """What makes batches where nothing else is given; None: what transformers takes."""
        return None

    def rows(self, dataset: Any, length_column: str, name: str) -> Rows:
        """What a data set says of its rows; see ``Rows``."""
        return Rows(dataset, self.num_labels, length_column, name)

    def store(self, rows: Rows, router: Router | None, args: CleaRConfig) -> ExampleStore:
        """What is known of each row."""
        return ExampleStore(rows, self.num_labels, router, args)

    def make_loss(self, size: int, args: CleaRConfig) -> Loss:
        """The loss of so many examples under their given labels."""
        return make_loss(args.loss, size, self.num_labels, args.options)

    def by_probe(self, args: CleaRConfig) -> bool:
        """Whether labels are judged by probes, rather than by losses."""
        return args.clean_routing and args.label_estimator == "probe"

    def estimate_by_probe(
        self,
        features_of: Callable[[npt.NDArray[np.integer] | None], Tensor | None],
        rows: Rows,
        validation: Rows | None,
        args: CleaRConfig,
        *,
        epoch: int,
        decides: bool,
    ) -> Estimate | None:
        """See ``clear_peft.trainer.estimators.estimate_by_probe``."""
        return estimate_by_probe(
            features_of, rows, validation, self.num_labels, args, epoch=epoch, decides=decides
        )

    def units_in(self, labels: Any) -> Any:
        """How many losses so many labels have: one each."""
        return labels

    def hard_loss(self, logits: Tensor, labels: Tensor) -> Tensor:
        """Of each row under its given label: logits (B, C), labels (B,) int64 → (B,) float32."""
        return cross_entropy(logits, labels)

    def soft_loss(self, logits: Tensor, targets: Tensor) -> Tensor:
        """Of each row under its soft label: logits (B, C), targets (B, C) → (B,) float32."""
        return soft_cross_entropy(logits, targets)

    def evaluated(self, outputs: Any, labels: Tensor, return_outputs: bool) -> Tensor | tuple[Tensor, Any]:
        """The mean loss of a batch over the rows that have a label (-100 stands for none)."""
        known = labels >= 0
        loss = cross_entropy(outputs.logits[known], labels[known]).mean()
        return (loss, outputs) if return_outputs else loss

    def evaluates(self, dataset: Any, args: CleaRConfig) -> None:
        """Hear which data set is evaluated next; figures of single rows do not need to know."""

    def metrics(self, prediction: Any) -> dict[str, float]:
        """Accuracy and macro-F1, as ``compute_metrics`` gives them."""
        predicted = prediction.predictions.argmax(axis=1)
        return {
            "accuracy": float((predicted == prediction.label_ids).mean()),
            "macro_f1": macro_f1(predicted, prediction.label_ids),
        }

    def issues(self, quality: Any) -> pd.DataFrame:
        """Labels, most suspicious first; see ``LabelQuality.issues``."""
        return quality.issues(self.names)

    def weighted_metrics(
        self,
        logits: Any,
        labels: npt.NDArray[np.integer],
        weights: npt.NDArray[np.floating] | None,
    ) -> dict[str, float]:
        """Accuracy and macro-F1 under the given labels, each weighted by its clean probability.

        Args:
            logits: (M, C); where it is anything else, nothing is measured.
            labels: Given labels, (M,).
            weights: Their clean probabilities, (M,); where they are not known, or all 0, all count alike.
        """
        if getattr(logits, "shape", None) != (len(labels), self.num_labels):
            return {}
        predicted, weights = logits.argmax(axis=1), weights if weights is not None and weights.any() else None
        return {
            WEIGHTED_ACCURACY: float(np.average(predicted == labels, weights=weights)),
            WEIGHTED_MACRO_F1: macro_f1(predicted, labels, weights),
        }


def macro_f1(
    predicted: npt.NDArray[np.integer],
    labels: npt.NDArray[np.integer],
    weights: npt.NDArray[np.floating] | None = None,
) -> float:
    """The mean F1 of the classes that occur among the labels.

    scikit-learn's own mean has a class that is only predicted, too, and counts it as 0.

    Args:
        predicted: Class ids, (N,).
        labels: The right ones, (N,).
        weights: Of the rows, (N,). Default: all count alike.
    """
    occurring = np.unique(labels)
    return float(
        f1_score(labels, predicted, labels=occurring, average="macro", sample_weight=weights, zero_division=0)
    )
