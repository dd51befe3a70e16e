"""A Trainer that knows every example by its id, and can pass over all of them."""

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
from datasets import Dataset as HubDataset
from torch import Tensor
from transformers.trainer_utils import PredictionOutput, has_length

from clear_peft.errors import InputError
from clear_peft.label_quality import combined
from clear_peft.trainer.adapter_trainer import AdapterTrainer
from clear_peft.trainer.config import CleaRConfig
from clear_peft.trainer.indexing import (
    CLEAN_LABEL_COLUMN,
    ID_COLUMN,
    IdCollator,
    copies_of,
    groups_of,
    has_labels,
    labels_of,
    numbers,
    token_counts,
    with_ids,
)
from clear_peft.trainer.sampling import own_rows


class PassingTrainer(AdapterTrainer):
    """Carries ids from the training set into every batch, and reads off the model what it makes of each row.

    Args:
        model: A classifier.
        args: ``CleaRConfig``.
        train_dataset: As for ``CleaRTrainer``.
        **kwargs: Everything else that ``transformers.Trainer`` takes.

    Raises:
        InputError: If the training set has no stable ids or proper labels.
    """

    args: CleaRConfig
    compute_metrics: Any

    def __init__(self, model: Any, args: CleaRConfig, train_dataset: Any = None, **kwargs: Any) -> None:
        config: Any = getattr(model, "config", None)
        if not hasattr(config, "num_labels"):
            raise InputError("The model does not say its classes: give it a config with num_labels.")
        self._num_labels: int = config.num_labels
        if train_dataset is not None:
            train_dataset = with_ids(train_dataset)
            self._labels = labels_of(train_dataset, self._num_labels)
            self._clean_labels = numbers(train_dataset, CLEAN_LABEL_COLUMN)
            self._copies = copies_of(train_dataset)
            groups = groups_of(train_dataset)
            self._groups = self._copies if groups is None else combined(self._copies, groups)
            self._lengths = numbers(train_dataset, args.length_column_name)
            if self._lengths is None and args.train_sampling_strategy == "group_by_length":
                self._lengths = token_counts(train_dataset)
        super().__init__(model=model, args=args, train_dataset=train_dataset, **kwargs)
        if train_dataset is not None:
            _ = self._held_out_labels  # refused now, and not after the warm-up
        self.data_collator: Any = IdCollator(self.data_collator)

    def get_batch_samples(self, epoch_iterator: Iterator, num_batches: int, device: Any) -> tuple[list, Any]:
        """Transformers' own; rows that only fill up a batch have no label in it, and do not count."""
        return super().get_batch_samples(map(self._labelled, epoch_iterator), num_batches, device)

    def _labelled(self, batch: Any) -> Any:
        """A batch whose labels are those of its own rows, (B',) with B' ≤ B: what fills it up comes last.

        Accelerate fills up an epoch's last batches, so that every process has one, and all are of one size.
        """
        args, labels = self.args, batch["labels"]
        full = args.dataloader_drop_last or args.train_sampling_strategy == "batch_rebalance"
        if args.world_size > 1 and not full and self.accelerator.gradient_state.end_of_dataloader:
            together = self._train_batch_size * (1 if self.accelerator.split_batches else args.world_size)
            batch["labels"] = labels[: own_rows(len(self._labels), together, len(labels), args.process_index)]
        return batch

    @property
    def _validation(self) -> HubDataset | None:
        """Validation rows, if each can be told from the others and has a label."""
        dataset = self.eval_dataset
        known = isinstance(dataset, HubDataset) and has_labels(dataset) and self.compute_metrics is not None
        return dataset if known else None

    @property
    def _held_out_labels(self) -> np.ndarray:
        """Given labels of the validation rows, (M,)."""
        rows = self._validation
        return self._labels[:0] if rows is None else labels_of(rows, self._num_labels, "validation")

    def _everywhere(self, read: Callable) -> tuple[Any, Any]:
        """What a pass reads off the training set, (N, D), and off the validation rows, (M, D), if any."""
        return self._pass_over(read, self.train_dataset, self._lengths), self._held_out(read)

    def _held_out(self, read: Callable) -> Tensor | None:
        """What a pass reads off the validation rows, (M, D), if there are any."""
        if self._validation is None:
            return None
        lengths = numbers(self._validation, self.args.length_column_name)
        return self._pass_over(read, with_ids(self._validation), lengths)

    def _pass_over(
        self, read: Callable, dataset: Any, lengths: np.ndarray | None, rows: np.ndarray | None = None
    ) -> Tensor | None:
        """What a pass reads off N rows of a dataset with ids, default all, (N, D), on every process's CPU."""
        collate = self.data_collator
        if isinstance(dataset, HubDataset):
            dataset = self._remove_unused_columns(dataset)
        else:
            collate = self._get_collator_with_removed_columns(collate)
        found = read(
            self.model,  # not what wraps it: DDP would wait for ranks that have fewer batches
            dataset,
            collate,
            batch_size=self.args.per_device_eval_batch_size,
            lengths=lengths,
            rows=rows,
            prepare=self._prepare_inputs,
            rank=self.args.process_index,
            world_size=self.args.world_size,
        )
        return None if found is None else self.accelerator.reduce(found.to(self.args.device), "sum").cpu()

    def predict(self, test_dataset: Any, *args: Any, **kwargs: Any) -> PredictionOutput:
        """Transformers' own, but the rows come in the order of the dataset, whatever their lengths."""
        made = super().predict(test_dataset, *args, **kwargs)
        by_length = self.args.train_sampling_strategy == "group_by_length" and has_length(test_dataset)
        if not by_length or not self.args.eval_do_concat_batches:
            return made
        order = self._order(test_dataset)
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

    def _get_eval_sampler(self, eval_dataset: Any) -> list[int]:
        return self._order(eval_dataset).tolist()

    def _order(self, dataset: Any) -> np.ndarray:
        """Positions in a dataset in the order of its evaluation.

        Short examples first, if like lengths are to go together: transformers' own order is random then.
        """
        lengths = token_counts(dataset) if self.args.train_sampling_strategy == "group_by_length" else None
        return np.arange(len(dataset)) if lengths is None else np.argsort(lengths, kind="stable")

    def _set_signature_columns_if_needed(self) -> None:
        super()._set_signature_columns_if_needed()
        if ID_COLUMN not in self._signature_columns:
            self._signature_columns.append(ID_COLUMN)
