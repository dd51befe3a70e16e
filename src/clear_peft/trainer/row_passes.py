"""Passes of a trainer's model over its rows: what the labels are estimated by, and what its head is given."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np
import torch
from datasets import Dataset as HubDataset
from torch import Tensor, nn
from torch.utils.data import DataLoader

from clear_peft.label_quality import LossMixture
from clear_peft.routing import Router
from clear_peft.trainer import columns
from clear_peft.trainer.config import MIXTURES
from clear_peft.trainer.estimate import Estimate
from clear_peft.trainer.estimators import estimate_by_losses
from clear_peft.trainer.head import head_inputs
from clear_peft.trainer.passes import hidden_features, predict_logits
from clear_peft.trainer.ranks import of_main_process
from clear_peft.trainer.store import Rows, validation_rows


class RowPasses:
    """Lets a trainer's model look at its training and validation rows; all processes take part.

    Args:
        trainer: A ``CleaRTrainer``.
        training: What the training set says of its rows.
        mixture: What turns losses into clean probabilities. Default: the one that ``loss_mixture`` names.
        router: Of the gates, if there are any.
    """

    def __init__(
        self,
        trainer: Any,
        training: Rows,
        mixture: LossMixture | None,
        router: Router | None,
    ) -> None:
        self._trainer, self._training = trainer, training
        self._evaluation, self._validation = trainer.eval_dataset, validation_rows(trainer)
        self._mixture = MIXTURES[trainer.args.loss_mixture] if mixture is None else mixture
        self._router = router

    @property
    def validation(self) -> Rows | None:
        """What the validation set says of its rows, if each has a label; it may be replaced."""
        if self._trainer.eval_dataset is not self._evaluation:
            self._evaluation = self._trainer.eval_dataset
            self._validation = validation_rows(self._trainer)
        return self._validation

    def estimate(self, before: Estimate | None) -> Estimate:
        """What the estimator makes of the labels now: that of the first process, on all of them.

        Args:
            before: The last estimate. Epochs are compared by the weights of the first one.
        """
        args, task, found = self._trainer.args, self._trainer.task, None
        epoch = round(self._trainer.state.epoch or 0)
        if task.by_probe(args):
            found = task.estimate_by_probe(
                self._features,
                self._training,
                self.validation,
                args,
                epoch=epoch,
                decides=args.process_index == 0,
            )
            found = of_main_process(found)
        if found is None:
            logits, unseen = self._over(self._logits()), self._over(self._logits(), validation=True)
            assert logits is not None  # every model has some
            held_out = None if unseen is None or self.validation is None else (unseen, self.validation)
            found = estimate_by_losses(
                logits, self._training, held_out, self._mixture, args, epoch=epoch, before=before
            )
            found = of_main_process(found)
        return found if before is None else replace(found, validation_weights=before.validation_weights)

    def head_inputs(self, head: nn.Linear, rows: np.ndarray) -> Tensor | None:
        """What the head of the model is given of some training rows, (B,) → (B, D); see ``head_inputs``."""
        return self._over(partial(head_inputs, head), rows)

    @contextmanager
    def looking(self, weights: Sequence[nn.Parameter] = ()) -> Iterator[None]:
        """Inside, the model is in evaluation mode, and these frozen weights require a gradient."""
        model = self._trainer.model
        was_training = model.training
        model.eval()
        for weight in weights:
            weight.requires_grad_(True)
        try:
            yield
        finally:
            for weight in weights:
                weight.requires_grad_(False)
            model.train(was_training)

    def drawn(self, batches: int, key: tuple[int, ...]) -> Iterator[Tensor]:
        """Losses of batches of training rows, (B,) float32 with their graph: this process's share of them.

        Rows are sampled without replacement, in proportion to the clean probability of their labels, and
        their labels are the given ones. The draw depends on the seed and the key alone.

        Args:
            batches: Number of batches of all processes.
            key: Tells the draw from others with the same seed.
        """
        trainer = self._trainer
        args, estimate, size = trainer.args, trainer.store.estimate, len(self._training)
        trust = np.ones(size) if estimate is None else estimate.train.clean_probability.astype(np.float64)
        trust = trust if trust.any() else np.ones(size)
        together = trainer._train_batch_size
        most = min(batches * together, np.count_nonzero(trust))
        drawn = np.random.default_rng([args.seed, *key]).choice(
            size, most, replace=False, p=trust / trust.sum()
        )
        parts = [drawn[i : i + together].tolist() for i in range(0, most, together)]
        dataset, collate = self._readable(trainer.train_dataset)
        loader = DataLoader(
            dataset,
            batch_sampler=parts[args.process_index :: args.world_size],
            collate_fn=collate,
            generator=torch.Generator(),  # otherwise it draws from the global one
        )
        for batch in loader:
            inputs, labels, _ = columns.parted(trainer._prepare_inputs(batch))
            yield trainer.task.hard_loss(trainer.model(**inputs).logits, labels)

    def _features(self, rows: np.ndarray | None) -> Tensor | None:
        return self._over(hidden_features, rows, validation=rows is None)

    def logits(self, rows: np.ndarray, *, validation: bool) -> Tensor:
        """Logits of some training or validation rows, (B,) → (B, C) float32, with all gates open."""
        logits = self._over(predict_logits, rows, validation=validation)
        assert logits is not None  # every model has some
        return logits

    def _logits(self) -> Callable:
        if self._router is None or self._trainer.args.scoring_gates == "open":
            return predict_logits
        return partial(predict_logits, router=self._router, step=self._trainer.state.global_step)

    def _over(
        self, read: Callable, rows: np.ndarray | None = None, *, validation: bool = False
    ) -> Tensor | None:
        """What is read off some training units, default all, or off the validation rows; on every process.

        Of words, all of a sentence are asked for, or none.

        Returns:
            (B, …) on the CPU; None where there are no such rows, or nothing to read.
        """
        trainer, known = self._trainer, self.validation if validation else self._training
        if known is None:
            return None
        dataset, collate = self._readable(
            columns.with_ids(trainer.eval_dataset) if validation else trainer.train_dataset
        )
        found = read(
            trainer.model,  # not what wraps it: without gradients DDP has nothing to do
            dataset,
            collate,
            batch_size=trainer.args.per_device_eval_batch_size,
            lengths=known.lengths,
            rows=None if rows is None else known.rows_of(rows),
            sizes=known.sizes,
            prepare=trainer._prepare_inputs,
            rank=trainer.args.process_index,
            world_size=trainer.args.world_size,
        )
        if found is None or trainer.args.world_size == 1:
            return found
        return trainer.accelerator.reduce(found.to(trainer.args.device), "sum").cpu()

    def _readable(self, dataset: Any) -> tuple[Any, Callable]:
        """A data set and its collator, without columns that the model does not take."""
        trainer = self._trainer
        if isinstance(dataset, HubDataset):
            return trainer._remove_unused_columns(dataset), trainer.data_collator
        return dataset, trainer._get_collator_with_removed_columns(trainer.data_collator)
