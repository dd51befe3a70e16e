"""Which epoch's model is the best one, and the order of rows in an evaluation."""

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

import numpy as np
import numpy.typing as npt
from transformers.trainer_utils import PredictionOutput, has_length

from clear_peft.trainer.columns import token_counts
from clear_peft.trainer.config import MEASURED, WEIGHTED_ACCURACY, CleaRConfig
from clear_peft.trainer.phases import Phase


class Selection:
    """Compares the epochs of a trainer by their evaluations.

    Args:
        trainer: A ``CleaRTrainer``.
    """

    def __init__(self, trainer: Any) -> None:
        self._trainer = trainer
        self._on_own_validation = False

    @contextmanager
    def evaluating(self, dataset: Any) -> Iterator[None]:
        """Inside, a data set is evaluated: the trainer's own (None), one of its own by name, or another."""
        own = self._trainer.eval_dataset
        if dataset is None or isinstance(dataset, str):
            dataset = own if dataset is None else own[dataset]
        self._on_own_validation = dataset is own
        self._trainer.task.evaluates(dataset, self._trainer.args)
        try:
            yield
        finally:
            self._on_own_validation = False

    def measuring(self, measure: Callable[..., dict]) -> Callable[..., dict]:
        """A ``compute_metrics`` that adds, in training, figures that count labels by their p."""
        return partial(self._measured, measure)

    def _measured(self, measure: Callable[..., dict], prediction: Any, **more: Any) -> dict[str, float]:
        trainer, metrics, outputs = self._trainer, measure(prediction, **more), prediction.predictions
        name = trainer.args.metric_name.removeprefix("eval_")
        by_weights = name in MEASURED and name.startswith("weighted_")
        wanted = trainer.args.clean_routing or by_weights
        if more or not (trainer.is_in_train and wanted):
            return metrics
        weights, known = None, trainer.passes.validation is not None and self._on_own_validation
        if known and trainer.store.estimate is not None and trainer.store.estimate.noise_found:
            order = evaluation_order(trainer.eval_dataset, trainer.args)
            units = trainer.passes.validation.units_of(order)
            weights = trainer.store.estimate.validation_weights
            # others where rows were dropped, or the checkpoint that was resumed had other validation rows
            same = len(weights) == len(units) and len(order) == len(prediction.label_ids)
            weights = weights[units] if same else None
        logits = outputs[0] if isinstance(outputs, tuple) else outputs
        return {**metrics, **trainer.task.weighted_metrics(logits, prediction.label_ids, weights)}

    def is_best(self, metrics: dict[str, float]) -> bool | None:
        """Whether an evaluation is the best so far; of equal ones the latest. None: transformers can tell.

        By weighted accuracy, after a restart, all within a standard error of the best are: a few hundred
        doubtful labels say no more, and soft labels are not overfitted (the one-standard-error rule of
        Breiman et al. 1984, with the latest for the simplest). ``state.best_metric`` then is the largest.
        """
        trainer, name = self._trainer, self._trainer.args.metric_name
        if not self.allows(trainer.state.epoch or 0):
            return False
        value, best, found = metrics.get(name), trainer.state.best_metric, trainer.store.estimate
        by_weights = trainer.restarts and name == f"eval_{WEIGHTED_ACCURACY}"
        if value is None or not by_weights or found is None:
            equal = True if best is not None and value == best else None
        else:
            trainer.state.best_metric = best = max(value, value if best is None else best)
            equal = within_standard_error(value, best, found.validation_weights)
        if equal:
            trainer.state.best_global_step = trainer.state.global_step
        return equal

    def allows(self, epoch: float) -> bool:
        """Whether the model after an epoch may be the best one."""
        trainer = self._trainer
        return trainer.phase is Phase.PLAIN or epoch >= trainer.schedule.first_selectable(trainer.phase)

    def out_of_patience(self) -> bool:
        """Whether the last ``args.patience`` evaluations were no better.

        Read from the log, which a resumed run has too. ``EarlyStoppingCallback`` of transformers would count
        the epochs of the warm-up.
        """
        args, name = self._trainer.args, self._trainer.args.metric_name
        found = [e for e in self._trainer.state.log_history if name in e and self.allows(e["epoch"])]
        values = [entry[name] if args.greater_is_better else -entry[name] for entry in found]
        return bool(args.patience and values) and len(values) - 1 - values.index(max(values)) >= args.patience


def evaluation_order(dataset: Any, args: CleaRConfig) -> npt.NDArray[np.integer]:
    """Positions in a data set in the order of its evaluation: short rows first, if like lengths go together.

    Transformers' own order is random then.
    """
    lengths = token_counts(dataset) if args.train_sampling_strategy == "group_by_length" else None
    return np.arange(len(dataset)) if lengths is None else np.argsort(lengths, kind="stable")


def in_order_of_rows(made: PredictionOutput, dataset: Any, args: CleaRConfig) -> PredictionOutput:
    """Predictions of a data set, that were made in the order of an evaluation, in the order of the rows."""
    by_length = args.train_sampling_strategy == "group_by_length" and has_length(dataset)
    if not by_length or not args.eval_do_concat_batches:
        return made
    order = evaluation_order(dataset, args)
    if isinstance(made.label_ids, np.ndarray):
        order = order[: len(made.label_ids)]  # the last batch may have been dropped

    def placed(values: Any) -> Any:
        if isinstance(values, dict):
            return {name: placed(value) for name, value in values.items()}
        if isinstance(values, tuple | list):
            return type(values)(map(placed, values))
        of_rows = isinstance(values, np.ndarray) and values.shape[:1] == order.shape
        return values[np.argsort(order)] if of_rows else values

    return made._replace(predictions=placed(made.predictions), label_ids=placed(made.label_ids))


def within_standard_error(accuracy: float, best: float, weights: npt.NDArray[np.floating]) -> bool:
    """Whether an accuracy is no further below the best than that one's standard error.

    Args:
        accuracy: Of M rows, each as it counts.
        best: The best one.
        weights: How much each row counts, (M,): as (Σw)²/Σw² rows that count alike (Kish 1965).
    """
    squares = float((weights.astype(np.float64) ** 2).sum())
    rows = float(weights.sum(dtype=np.float64)) ** 2 / squares if squares else 1.0
    return accuracy >= best - math.sqrt(max(0.0, best * (1 - best)) / max(1.0, rows))
