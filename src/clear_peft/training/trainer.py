"""``CleaRTrainer``: transformers' Trainer with clean routing."""

import math
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from datasets import Dataset as HubDataset
from peft import PeftModel
from sklearn.metrics import roc_auc_score
from torch import Tensor, nn
from transformers import EarlyStoppingCallback, Trainer, TrainerCallback

from clear_peft.cleanliness import CleanlinessEstimator, log_odds, rank_label_issues, smooth
from clear_peft.errors import InputError
from clear_peft.objectives import Objective, consistency, cross_entropy, make_objective
from clear_peft.routing import Router
from clear_peft.training.config import ESTIMATORS, CleaRConfig
from clear_peft.training.indexing import (
    CLEAN_LABEL_COLUMN,
    ID_COLUMN,
    IdCollator,
    column,
    labels_of,
    with_ids,
)
from clear_peft.training.scoring import predict_logits
from clear_peft.training.state import CleanlinessState, restore_objective, save_objective
from clear_peft.tuners import BottleneckModel
from clear_peft.tuners.loading import restore_adapter


class CleaRTrainer(Trainer):
    """Trains a PEFT model on labels that may be wrong. A drop-in for ``transformers.Trainer``.

    From the end of the warm-up on it scores the training set after every epoch, estimates each label's clean
    probability p, and routes examples through the PEFT modules by it. What it saves is an ordinary PEFT
    adapter. A column ``clean_label`` of the training set, if there is one, is read for logging alone.

    Args:
        model: A PEFT model for single-label classification (``peft.get_peft_model``,
            ``clear_peft.tuners.build``); any classifier if ``args.clean_routing`` is False.
        args: ``CleaRConfig``.
        train_dataset: Map-style, tokenised, with a column ``labels`` or ``label`` of class indices; a
            column named by ``args.length_column_name`` speeds up scoring.
        estimator: What turns losses into clean probabilities. Default: the one that ``args`` names.
        **kwargs: Everything else that ``transformers.Trainer`` takes.

    Raises:
        InputError: If the model cannot be gated or the training set has no stable ids or proper labels.

    Example:
        >>> trainer = CleaRTrainer(model=peft_model, args=CleaRConfig(output_dir="out"),
        ...                        train_dataset=train, processing_class=tokenizer)  # doctest: +SKIP
        >>> trainer.train(); trainer.label_issues()  # doctest: +SKIP
    """

    args: CleaRConfig
    # the loss is divided by the examples of the whole optimizer step: see compute_loss
    loss_is_scaled_for_ga = True

    def __init__(
        self,
        model: Any,
        args: CleaRConfig,
        train_dataset: Any = None,
        *,
        estimator: CleanlinessEstimator | None = None,
        **kwargs: Any,
    ) -> None:
        if args.n_gpu > 1:
            raise InputError(
                f"{args.n_gpu} GPUs are visible to one process: start it with torchrun or accelerate launch, "
                "or set CUDA_VISIBLE_DEVICES to one of them."
            )
        if args.label_smoothing_factor or kwargs.get("compute_loss_func"):
            raise InputError(
                "The loss is the trainer's own: leave out label_smoothing_factor and compute_loss_func, or "
                "override per_example_loss."
            )
        self._num_labels: int = model.config.num_labels
        if train_dataset is not None:
            train_dataset = with_ids(train_dataset)
            self._labels = labels_of(train_dataset, self._num_labels)
            self._clean_labels = column(train_dataset, CLEAN_LABEL_COLUMN)
            self._lengths = column(train_dataset, args.length_column_name)
            # what the last training step on each example predicted; -1: none yet
            self._predicted = torch.full((len(self._labels),), -1, device=args.device)
            self._objective = self._make_objective(args)
        super().__init__(model=model, args=args, train_dataset=train_dataset, **kwargs)
        self.data_collator: Any = IdCollator(self.data_collator)
        # makes the Trainer count the examples of an optimizer step, whatever the model's forward takes
        self.model_accepts_loss_kwargs = True
        self._estimator = ESTIMATORS[args.estimator] if estimator is None else estimator
        self._router = (
            Router(model, ceiling=args.gate_ceiling, seed=args.seed) if args.clean_routing else None
        )
        if args.patience:
            self.add_callback(EarlyStoppingCallback(args.patience))
        self._open_gates: Tensor | None = None  # sum over routed examples, (L,)
        self._routed_examples = 0
        self._set_state(None)
        self.add_callback(_Epochs(self))

    # What it found out

    @property
    def cleanliness(self) -> CleanlinessState:
        """The last scoring pass; made now if there has been none (plain training, or still warming up)."""
        state = self._state
        if state is None:
            state = self._scored()
            self._set_state(state)
        return state

    @property
    def clean_probability(self) -> np.ndarray:
        """p, (N,) float32, in the order of the training set."""
        return self.cleanliness.clean_probability

    def label_issues(self) -> pd.DataFrame:
        """The training rows, most suspicious first (see ``clear_peft.cleanliness.rank_label_issues``)."""
        state = self.cleanliness
        names = self.model.config.id2label
        return rank_label_issues(
            state.clean_probability,
            state.losses,
            given=self._labels,
            predicted=state.teacher.argmax(axis=1),
            names=[names[i] for i in range(self._num_labels)],
        )

    # What other methods change

    def _make_objective(self, args: CleaRConfig) -> Objective:
        return make_objective(
            args.objective, len(self._labels), self._num_labels, args.objective_options or {}
        )

    @property
    def _scores(self) -> bool:
        """Whether training makes use of clean probabilities."""
        return self._router is not None

    # The step

    def training_step(
        self,
        model: nn.Module,
        inputs: dict[str, Any],
        num_items_in_batch: Tensor | int | None = None,
    ) -> Tensor:
        """One micro-batch, with its gates held until its backward is over."""
        if self._router is None:
            return super().training_step(model, inputs, num_items_in_batch)
        ids = inputs[ID_COLUMN].to(self.args.device)
        probability = self._probability[ids] if self._robust else torch.ones_like(ids, dtype=torch.float32)
        length = inputs["input_ids"].shape[1] if "input_ids" in inputs else None
        step = self.state.global_step
        with self._router.route(probability, example_ids=ids, step=step, sequence_length=length) as gates:
            self._open_gates = gates.sum(0) + (0 if self._open_gates is None else self._open_gates)
            self._routed_examples += len(gates)
            return super().training_step(model, inputs, num_items_in_batch)

    def compute_loss(
        self,
        model: nn.Module,
        inputs: dict[str, Any],
        return_outputs: bool = False,
        num_items_in_batch: Tensor | int | None = None,
    ) -> Tensor | tuple[Tensor, Any]:
        """The mean loss; in training, the share of this micro-batch in the mean over the optimizer step."""
        inputs = dict(inputs)
        labels = inputs.pop("labels")
        ids = inputs.pop(ID_COLUMN, None)
        if {"seq_idx", "cu_seq_lens_q"} & inputs.keys():
            raise InputError("Packed batches have no example ids: turn off packing and padding-free batches.")
        outputs = model(**inputs)
        if not model.training:
            loss = cross_entropy(outputs.logits, labels).mean()
            return (loss, outputs) if return_outputs else loss
        self._predicted[ids] = outputs.logits.detach().argmax(dim=1)
        losses = self.per_example_loss(outputs.logits, labels, ids)
        self._refuse_non_finite(losses, ids)
        loss = losses.sum() / (len(losses) if num_items_in_batch is None else num_items_in_batch)
        if self.args.average_tokens_across_devices:
            loss = loss * self.accelerator.num_processes  # counted over all ranks, averaged by DDP
        return (loss, outputs) if return_outputs else loss

    def per_example_loss(self, logits: Tensor, labels: Tensor, ids: Tensor) -> Tensor:
        """The loss of each example of a batch, (B,) float32. METHOD.md 3.

        Args:
            logits: (B, C).
            labels: Given labels, (B,) int64.
            ids: Positions in the training set, (B,) int64.
        """
        loss = self._objective(logits, labels, ids, epoch=self.state.epoch or 0.0)
        if not self._robust:
            return loss
        if self.args.label_weighting:
            loss = self._weight[ids] * loss
        if self.args.consistency_weight:
            teacher = self._teacher[ids]
            agreement = consistency(logits, teacher, self.args.consistency_temperature)
            loss = loss + self.args.consistency_weight * agreement
        return loss

    def _refuse_non_finite(self, losses: Tensor, ids: Tensor) -> None:
        finite = losses.detach().isfinite()
        if not finite.all():
            rows = ", ".join(map(str, ids[~finite].tolist()[:5]))
            raise InputError(
                f"The loss is not finite at step {self.state.global_step + 1} (training rows {rows}, …): "
                "lower the learning rate, or train in bf16 or float32 instead of fp16."
            )

    # The epoch

    @property
    def _warm_up(self) -> int:
        """Number of epochs before the clean probabilities are used."""
        epochs = self.args.warm_up_epochs
        return math.ceil(epochs if epochs >= 1 else epochs * self.state.num_train_epochs)

    @property
    def _robust(self) -> bool:
        return self._scores and self._state is not None and self._state.epoch >= self._warm_up

    def _before_training(self) -> None:
        """Without a warm-up, the first epoch needs an estimate too."""
        if self._scores and self._state is None and self._warm_up == 0:
            self._set_state(self._scored())

    def _after_epoch(self) -> None:
        """Score and estimate, if it is time, and say so."""
        beyond = round(self.state.epoch or 0) - self._warm_up
        if self._scores and (beyond == 0 or (beyond > 0 and self.args.reestimate)):
            self._set_state(self._scored())
            # into the history alone: it is no number that a logger could plot
            self.state.log_history.append(
                {"epoch": self.state.epoch, "step": self.state.global_step, "losses": self._histogram()}
            )
        should_log = self.control.should_log
        self.log(self._figures())
        self.control.should_log = should_log  # log() takes the Trainer's own turn away
        self._open_gates, self._routed_examples = None, 0

    def _scored(self) -> CleanlinessState:
        dataset, collate = self.train_dataset, self.data_collator
        if isinstance(dataset, HubDataset):
            dataset = self._remove_unused_columns(dataset)
        else:
            collate = self._get_collator_with_removed_columns(collate)
        logits = predict_logits(
            self.model,  # not what wraps it: DDP would wait for ranks that have fewer batches
            dataset,
            collate,
            self._num_labels,
            batch_size=self.args.per_device_eval_batch_size,
            lengths=self._lengths,
            prepare=self._prepare_inputs,
            rank=self.args.process_index,
            world_size=self.args.world_size,
        )
        logits = self.accelerator.reduce(logits.to(self.args.device), "sum").cpu()
        losses = cross_entropy(logits, torch.from_numpy(self._labels)).numpy()
        if not np.isfinite(losses).all():
            raise InputError(
                "The model's losses on the training set are not finite: lower the learning rate, or train in "
                "bf16 or float32 instead of fp16."
            )
        if self._state is not None:
            losses = smooth(self._state.losses, losses, self.args.loss_smoothing)
        estimate = self._estimator.estimate(losses, self._labels)
        return CleanlinessState(
            epoch=round(self.state.epoch or 0),
            losses=losses.astype(np.float32),
            clean_probability=estimate.clean_probability,
            teacher=logits.numpy().astype(np.float16),
            components=estimate.components,
            parameters=estimate.parameters,
        )

    def _set_state(self, state: CleanlinessState | None) -> None:
        self._state = state
        if state is not None:
            device = self.args.device
            self._probability = torch.from_numpy(state.clean_probability).to(device)
            # a mean of 1: the step size stays what it was before
            self._weight = self._probability / self._probability.mean().clamp_min(1e-6)
            self._teacher = torch.from_numpy(state.teacher).to(device)

    def _figures(self) -> dict[str, float]:
        figures: dict[str, float] = {}
        if self._open_gates is not None:
            rates = (self._open_gates / self._routed_examples).tolist()
            figures["gate_rate"] = float(np.mean(rates))
            figures |= {f"gate_rate/block_{i}": rate for i, rate in enumerate(rates)}
        state, wrong = self._state, self._wrong
        if state is not None:
            figures |= {"noise_rate": state.noise_rate, "clean_probability": 1 - state.noise_rate}
            if wrong is not None:
                figures["detection_auc"] = float(roc_auc_score(wrong, state.losses))
        if wrong is not None:
            predicted = self._predicted.cpu().numpy()
            if state is not None and state.epoch == round(self.state.epoch or 0):
                predicted = state.teacher.argmax(axis=1)
            figures["memorised"] = float((predicted == self._labels)[wrong & (predicted >= 0)].mean())
        return figures

    @property
    def _wrong(self) -> np.ndarray | None:
        """Which labels are wrong, (N,) bool; None where that is not known, or not worth a figure."""
        if self._clean_labels is None:
            return None
        wrong = self._labels != self._clean_labels
        return wrong if wrong.any() and not wrong.all() else None

    def _histogram(self) -> dict[str, Any]:
        """Counts of the last pass's losses, on the scale of the estimator, with what it fitted."""
        state, wrong = self._state, self._wrong
        assert state is not None
        scale = state.parameters.get("scale", "loss")
        values = log_odds(state.losses) if scale == "log_odds" else state.losses
        edges = np.linspace(values.min(), values.max() + 1e-6, 41)
        parts = {"all": values} if wrong is None else {"right": values[~wrong], "wrong": values[wrong]}
        counts = {name: np.histogram(part, edges)[0].tolist() for name, part in parts.items()}
        return {"edges": edges.tolist(), **counts, "parameters": state.parameters}

    # Files

    def _set_signature_columns_if_needed(self) -> None:
        super()._set_signature_columns_if_needed()
        if ID_COLUMN not in self._signature_columns:
            self._signature_columns.append(ID_COLUMN)

    def _save(self, output_dir: str | None = None, state_dict: dict | None = None) -> None:
        if not isinstance(self.model, BottleneckModel):
            return super()._save(output_dir, state_dict)
        if self.args.should_save:
            folder = output_dir or self.args.output_dir
            self.model.save_pretrained(folder, state_dict=state_dict)
            if self.processing_class is not None:
                self.processing_class.save_pretrained(folder)
        return None

    def _determine_best_metric(self, metrics: dict[str, float], trial: Any) -> bool:
        """Of the epochs from the end of the warm-up on, the best; of equal ones, the latest."""
        epochs = round(self.state.epoch or 0)
        if self._scores and epochs < min(self._warm_up, self.state.num_train_epochs):
            return False
        name = f"eval_{(self.args.metric_for_best_model or '').removeprefix('eval_')}"
        if self.state.best_metric is not None and metrics.get(name) == self.state.best_metric:
            self.state.best_global_step = self.state.global_step
            return True
        return super()._determine_best_metric(metrics, trial)

    def _save_checkpoint(self, model: nn.Module, trial: Any) -> None:
        # first, so that a checkpoint with a trainer_state.json, which comes last, is whole
        if self.args.should_save:
            folder = Path(self._get_output_dir(trial)) / f"checkpoint-{self.state.global_step}"
            folder.mkdir(parents=True, exist_ok=True)
            save_objective(self._objective, folder)
            if self._state is not None:
                self._state.save(folder)
        super()._save_checkpoint(model, trial)

    def _load_from_checkpoint(self, resume_from_checkpoint: str, model: nn.Module | None = None) -> None:
        if self._has_adapter:
            restore_adapter(self.model, resume_from_checkpoint)
        else:
            super()._load_from_checkpoint(resume_from_checkpoint, model)
        self._set_state(CleanlinessState.load(resume_from_checkpoint))
        restore_objective(self._objective, resume_from_checkpoint)

    def _load_best_model(self) -> None:
        if self._has_adapter:
            restore_adapter(self.model, self.state.best_model_checkpoint)
        else:
            super()._load_best_model()
        self._set_state(CleanlinessState.load(self.state.best_model_checkpoint))

    @property
    def _has_adapter(self) -> bool:
        """Whether weights are loaded by us: peft's loading would also make all it loads trainable."""
        return isinstance(self.model, PeftModel | BottleneckModel)


class _Epochs(TrainerCallback):
    """Scores when an epoch is over: before its evaluation and its checkpoint, never again on resume."""

    def __init__(self, trainer: CleaRTrainer) -> None:
        self.trainer = trainer

    def on_train_begin(self, *_: Any, **__: Any) -> None:
        self.trainer._before_training()

    def on_epoch_end(self, *_: Any, **__: Any) -> None:
        self.trainer._after_epoch()
