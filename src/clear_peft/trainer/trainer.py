"""``CleaRTrainer``: transformers' Trainer for labels that may be wrong, in the order in which it happens."""

from collections.abc import Iterator
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any, ClassVar

import pandas as pd
from torch import Tensor, nn
from transformers import Trainer
from transformers.trainer_utils import PredictionOutput, TrainOutput

from clear_peft.cpu import faster
from clear_peft.errors import InputError
from clear_peft.label_quality import LossMixture
from clear_peft.losses import Loss
from clear_peft.trainer import checkpoint, columns, setup
from clear_peft.trainer.callbacks import Turns, WaitForEpochEnd
from clear_peft.trainer.config import CleaRConfig
from clear_peft.trainer.estimate import Estimate
from clear_peft.trainer.finite import StepGuard
from clear_peft.trainer.gating import in_step
from clear_peft.trainer.multilabel import MultiLabel
from clear_peft.trainer.objective import class_weights, per_example_loss
from clear_peft.trainer.phases import Phase, Schedule, epochs_of
from clear_peft.trainer.ranks import merged_rows
from clear_peft.trainer.row_passes import RowPasses
from clear_peft.trainer.sampler import WeightedLengthSampler, own_rows
from clear_peft.trainer.selection import Selection, evaluation_order, in_order_of_rows
from clear_peft.trainer.shards import whole
from clear_peft.trainer.store import ExampleStore
from clear_peft.trainer.tasks import SingleLabel
from clear_peft.trainer.tuning import tuner_training
from clear_peft.trainer.weights import Weights
from clear_peft.trainer.words import WordLabels
from clear_peft.tuners import BottleneckModel


class CleaRTrainer(Trainer):
    """Trains a PEFT model on labels that may be wrong, and saves an ordinary PEFT adapter.

    After a warm-up it estimates which labels are right. If wrong ones are found it restarts, with targets and
    gates that trust each label by its clean probability: ``clear_peft.trainer.phases``. docs/trainer.md lists
    what it does otherwise than ``transformers.Trainer``, and the columns of the training set that it reads.

    Args:
        model: A PEFT model for classification; any classifier without ``clean_routing``. With the
            ``problem_type`` ``multi_label_classification`` a row has several labels or none; with a model for
            token classification each word has one.
        args: ``CleaRConfig``.
        data_collator: As for ``transformers.Trainer``.
        processing_class: As for ``transformers.Trainer``.
        train_dataset: Map-style and tokenised, with a column ``labels`` or ``label`` of class ids; of
            several labels a row, of lists of 0 and 1, a number for each label; of words, of lists as
            ``tokenize_words`` makes them.
        eval_dataset: As for ``transformers.Trainer``. Default, where ``args.eval_strategy`` asks for one: a
            share of the training rows.
        mixture: What turns losses into clean probabilities where ``args.label_estimator`` is ``losses``.
            Default: the one that ``args.loss_mixture`` names.
        **kwargs: As for ``transformers.Trainer``; ``compute_metrics`` is the task's by default if epochs are
            compared by one of its figures: accuracy and macro-F1; of several labels a row micro-F1, macro-F1
            and mean average precision; of words accuracy and F1 of spans.

    Raises:
        InputError: If the model cannot be gated, ``args`` do not fit, or rows have no ids or proper labels.
    """

    args: CleaRConfig
    compute_metrics: Any
    # what may be predicted of a row
    tasks: ClassVar[tuple[type[setup.Task], ...]] = (SingleLabel, MultiLabel, WordLabels)
    # the loss is divided by the examples of the whole optimizer step: see compute_loss
    loss_is_scaled_for_ga = True

    def __init__(
        self,
        model: Any = None,
        args: CleaRConfig | None = None,
        data_collator: Any = None,
        train_dataset: Any = None,
        eval_dataset: Any = None,
        processing_class: Any = None,
        *,
        mixture: LossMixture | None = None,
        **kwargs: Any,
    ) -> None:
        args = setup.checked(model, args, kwargs)
        self.task = setup.task_of(model, args, mixture, self.tasks)
        train, evaluation = setup.datasets(train_dataset, eval_dataset, self.task, args)
        super().__init__(
            model=model,
            args=args,
            data_collator=self.task.collator(processing_class) if data_collator is None else data_collator,
            train_dataset=train,
            eval_dataset=evaluation,
            processing_class=processing_class,
            compute_metrics=setup.metrics(kwargs.pop("compute_metrics", None), self.task, args),
            **kwargs,
        )
        setup.check_sharding(self)
        # makes the Trainer count the examples of an optimizer step, whatever the model's forward takes
        self.model_accepts_loss_kwargs = True
        self.data_collator: Any = columns.IdCollator(self.data_collator)
        self.selection = Selection(self)
        if self.compute_metrics is not None:
            self.compute_metrics = self.selection.measuring(self.compute_metrics)
        self.router = setup.router(model, args)
        self.weights = Weights(model, args)
        self.tuning = tuner_training(self)
        self._store: ExampleStore | None = None
        if train is not None:
            rows = self.task.rows(train, args.length_column_name, "training")
            self._store = self.task.store(rows, self.router, args)
            self.passes = RowPasses(self, rows, mixture, self.router)
            self.weights.head = setup.head(self.passes, rows, self.task, args)
            self.guard = StepGuard(args.device, rows.row)
            self.class_weights = class_weights(rows, self.task.num_labels, args)
            self._loss = self.make_loss()
        self.schedule = Schedule.of(args, args.num_train_epochs)
        self.in_training_step = False
        self.faster = faster(args.device.type)
        self.reading = checkpoint.Reading(None)
        self.add_callback(Turns(self))
        self.add_callback(WaitForEpochEnd())

    # What it has found out

    @property
    def store(self) -> ExampleStore:
        """Everything that is known of each training row."""
        if self._store is None:
            raise InputError("There are no labels to estimate: give train_dataset.")
        return self._store

    @property
    def estimate(self) -> Estimate:
        """The last estimate of the labels; made now if there has been none (plain training)."""
        found = self.store.estimate
        if found is None:
            found = self.passes.estimate(None)
            if not self.is_in_train:  # looking changes no training
                self.store.set_estimate(found)
        return found

    @property
    def label_quality(self) -> Any:
        """Which labels look right: of the training rows, and of validation rows of the same table.

        A ``LabelQuality``, of labels of words with an entry for each word; of several labels a row, a
        ``MultilabelQuality``.
        """
        return self.estimate.of_table(self.eval_dataset)

    def label_issues(self) -> pd.DataFrame:
        """What ``label_quality`` says, most suspicious first.

        See ``LabelQuality.issues``, which has a ``word`` too where words have labels, and
        ``MultilabelQuality.issues`` for several labels a row.
        """
        return self.task.issues(self.label_quality)

    @property
    def phase(self) -> Phase:
        """Where training stands."""
        return self.schedule.phase(self.uses_estimates, None if self._store is None else self._store.estimate)

    @property
    def restarts(self) -> bool:
        """Whether training begins, or has begun, again."""
        return self.schedule.restarts(self.phase)

    # What other methods change

    @property
    def uses_estimates(self) -> bool:
        """Whether training makes use of estimates of the labels."""
        return self.args.clean_routing

    def make_loss(self) -> Loss:
        """The loss of examples under their given labels."""
        return self.task.make_loss(len(self.store.rows), self.args)

    def stateful(self) -> dict[str, checkpoint.Stateful]:
        """What has tensors that training needs when it goes on from a checkpoint, besides the model."""
        own: dict[str, checkpoint.Stateful] = {"loss": self._loss, "store": self.store, "tuning": self.tuning}
        return own | self.weights.stateful()

    # Training

    def train(self, resume_from_checkpoint: Any = None, *args: Any, **kwargs: Any) -> TrainOutput:
        """As transformers' Trainer; a checkpoint that cannot be read is refused in a sentence."""
        self.weights.remember()
        with checkpoint.readable(resume_from_checkpoint, self) as self.reading:
            try:
                return super().train(resume_from_checkpoint, *args, **kwargs)
            except checkpoint.TrainingIsOverError:
                if self.args.load_best_model_at_end and self.state.best_model_checkpoint is not None:
                    self._load_best_model()
                self.end_training()
                self.is_in_train = False
                return TrainOutput(self.state.global_step, 0.0, {})

    def begin_training(self, steps_per_epoch: int) -> None:
        """Training begins, goes on after a checkpoint, or begins again with a smaller batch."""
        self.schedule = Schedule.of(self.args, epochs_of(self.args, self.state.max_steps, steps_per_epoch))
        self.weights.set_steps(steps_per_epoch)
        if self.state.global_step == 0:
            self.store.reset()
            self._loss = self.make_loss()
            self.weights.begin(self.optimizer)
        else:
            # who lets transformers skip no data, or choose the batch, has other steps
            if not (self.args.ignore_data_skip or self.args.auto_find_batch_size):
                checkpoint.check_steps(self.state, steps_per_epoch)
            checkpoint.find_best(self.state, [self.args.output_dir, *self.reading.beside])
            if self.selection.out_of_patience():
                raise checkpoint.TrainingIsOverError
        if self.uses_estimates and self.store.estimate is None and self.schedule.warm_up_epochs == 0:
            self.store.set_estimate(self.passes.estimate(None))

    def begin_epoch(self) -> None:
        """Restart, if it is time: now, when the evaluation and the checkpoint of the warm-up are over."""
        if self.restarts and self.state.epoch == self.schedule.warm_up_epochs:
            self.weights.begin(self.optimizer, self.estimate.train.clean_probability)

    def create_optimizer(self, *args: Any, **kwargs: Any) -> Any:
        """Transformers' own; some PEFT methods have learning rates of their own."""
        return self.tuning.grouped(super().create_optimizer(*args, **kwargs))

    def _get_train_sampler(self, train_dataset: Any = None) -> Any:
        """Transformers' own, unless it samples at random: then ours, by the confidence of the targets."""
        if self.args.train_sampling_strategy not in ("random", "group_by_length"):
            return super()._get_train_sampler(train_dataset)
        return WeightedLengthSampler.of(self)

    def get_batch_samples(self, epoch_iterator: Iterator, num_batches: int, device: Any) -> tuple[list, Any]:
        """Transformers' own; rows that only fill up a batch have no label in it, and do not count."""
        own = (own_rows(batch, self) for batch in epoch_iterator)
        samples, count = super().get_batch_samples(own, num_batches, device)
        return samples, count if count is None else self.task.units_in(count)

    def training_step(
        self, model: nn.Module, inputs: dict[str, Any], num_items_in_batch: Tensor | int | None = None
    ) -> Tensor:
        """One micro-batch, with its gates held until its backward is over."""
        with in_step(self, inputs):
            return super().training_step(model, inputs, num_items_in_batch)

    def compute_loss(
        self,
        model: nn.Module,
        inputs: dict[str, Any],
        return_outputs: bool = False,
        num_items_in_batch: Tensor | int | None = None,
    ) -> Tensor | tuple[Tensor, Any]:
        """The mean loss; in training, the share of this micro-batch in the mean over the optimizer step."""
        inputs, labels, ids = columns.parted(inputs)
        if not self.in_training_step:
            return self.task.evaluated(model(**inputs), labels, return_outputs)
        if not self.args.dropout_after_warm_up and self.phase not in (Phase.PLAIN, Phase.WARM_UP):
            model.eval()
        outputs = model(**inputs)
        # what has no label is there to fill up the batch
        logits, ids = outputs.logits[: len(labels)], ids[: len(labels)]
        logits, labels, ids = self.store.units(logits, labels, ids)
        losses = self.per_example_loss(logits, labels, ids)
        self.store.stats.step(logits, losses, ids)
        self.guard.losses(losses, ids, self.state.global_step + 1)
        # divided before the sum: a process that has only such rows may count none
        loss = (losses / (len(losses) if num_items_in_batch is None else num_items_in_batch)).sum()
        if self.args.average_tokens_across_devices:
            loss = loss * self.accelerator.num_processes  # counted over all ranks, averaged by DDP
        return (loss, outputs) if return_outputs else loss

    def per_example_loss(self, logits: Tensor, labels: Tensor, ids: Tensor) -> Tensor:
        """The loss of each example of a batch, (B,) float32; of words, of each word of the batch.

        Args:
            logits: (B, C).
            labels: Given labels, (B,) int64.
            ids: Positions in the training set, (B,) int64.
        """
        return per_example_loss(self, self._loss, logits, labels, ids)

    def _get_grad_norm(self, model: nn.Module, grad_norm: Any = None) -> Any:
        """Transformers' own; on the CPU, a step that would ruin the weights is not taken."""
        norm = super()._get_grad_norm(model, grad_norm)
        # what scales the loss of fp16 leaves such a step out
        if self.accelerator.scaler is None and not (self.is_deepspeed_enabled and self.args.fp16):
            self.guard.gradient(whole(norm), self.state.global_step + 1)
        return norm

    def end_epoch(self) -> None:
        """Estimate the labels, if it is time, and log what the epoch was like."""
        self.guard.check()
        store, warm_up, epoch = self.store, self.schedule.warm_up_epochs, self.state.epoch or 0
        if self.args.world_size > 1:
            self._loss.merge(lambda rows: merged_rows(rows, store.stats.seen, self.accelerator))
        again = epoch > warm_up and self.args.reestimate_every_epoch
        due = self.uses_estimates and (epoch == warm_up or again)
        if due:
            with self.weights.averaged():
                store.set_estimate(self.passes.estimate(store.estimate))
        store.stats.log(self, estimated=due, restarts=self.restarts and epoch == warm_up)
        store.stats.end_epoch()

    def evaluate(self, eval_dataset: Any = None, *args: Any, **kwargs: Any) -> dict[str, float]:
        """As transformers' Trainer; in training, after a restart, of the averaged weights."""
        with self.selection.evaluating(eval_dataset), self.averaged():
            return super().evaluate(eval_dataset, *args, **kwargs)

    def averaged(self) -> AbstractContextManager[None]:
        """Inside, the model has the weights that are evaluated and saved: after a restart, their average."""
        return self.weights.averaged(
            self.is_in_train and self.schedule.has_restarted(self.phase, self.state.epoch)
        )

    def _determine_best_metric(self, metrics: dict[str, float], trial: Any) -> bool:
        """Of the epochs that may be selected the best; of equal ones the latest."""
        is_best = self.selection.is_best(metrics)
        return super()._determine_best_metric(metrics, trial) if is_best is None else is_best

    def _save_checkpoint(self, model: nn.Module, trial: Any) -> None:
        self.guard.check()
        folder = Path(self._get_output_dir(trial)) / f"checkpoint-{self.state.global_step}"
        with self.averaged(), checkpoint.writable(folder):
            # first, so that a checkpoint with a trainer_state.json, which comes last, is whole
            checkpoint.save(self, folder)
            super()._save_checkpoint(model, trial)

    def _save_rng_state(self, output_dir: str) -> None:
        """Transformers' own, on all processes before ``trainer_state.json`` calls the checkpoint whole."""
        super()._save_rng_state(output_dir)
        self.accelerator.wait_for_everyone()

    def end_training(self) -> None:
        """The model keeps the averaged weights, or those of the best epoch where these have been loaded."""
        loaded = self.args.load_best_model_at_end and self.state.best_model_checkpoint is not None
        if self.schedule.has_restarted(self.phase, self.state.epoch) and not loaded:
            self.weights.keep_average()
        self.tuning.end_training()
        self.faster = faster(self.args.device.type)  # without what it keeps

    # Beside training

    def predict(self, test_dataset: Any, *args: Any, **kwargs: Any) -> PredictionOutput:
        """As transformers' Trainer, but in the order of the rows, whatever their lengths."""
        with self.selection.evaluating(test_dataset):
            made = super().predict(test_dataset, *args, **kwargs)
        return in_order_of_rows(made, test_dataset, self.args)

    def _get_eval_sampler(self, eval_dataset: Any) -> list[int]:
        return evaluation_order(eval_dataset, self.args).tolist()

    def _set_signature_columns_if_needed(self) -> None:
        super()._set_signature_columns_if_needed()
        if columns.ID_COLUMN not in self._signature_columns:
            self._signature_columns.append(columns.ID_COLUMN)

    def save_model(self, output_dir: str | None = None, _internal_call: bool = False) -> None:
        """As transformers' Trainer; of shards, called by all processes, it saves whole weights."""
        plugin = getattr(self.accelerator.state, "fsdp_plugin", None)
        if plugin is None or _internal_call:
            super().save_model(output_dir, _internal_call)
            return
        kind = plugin.state_dict_type
        plugin.set_state_dict_type("FULL_STATE_DICT")
        try:
            super().save_model(output_dir)
        finally:
            plugin.set_state_dict_type(kind)

    def _save(self, output_dir: str | None = None, state_dict: dict | None = None) -> None:
        if isinstance(self.model, BottleneckModel):
            checkpoint.save_bottleneck(self, output_dir)
        else:
            super()._save(output_dir, state_dict)

    def _load_from_checkpoint(self, resume_from_checkpoint: str, model: nn.Module | None = None) -> None:
        theirs = super()._load_from_checkpoint
        checkpoint.load_model(self, resume_from_checkpoint, lambda: theirs(resume_from_checkpoint, model))
        checkpoint.load(self, resume_from_checkpoint)

    def _load_optimizer_and_scheduler(self, checkpoint: str | None) -> None:
        super()._load_optimizer_and_scheduler(checkpoint)
        if self.is_deepspeed_enabled and checkpoint is not None:  # its engine has loaded the model
            self._load_from_checkpoint(checkpoint)

    def _load_best_model(self) -> None:
        checkpoint.load_model(self, str(self.state.best_model_checkpoint), super()._load_best_model)
