"""``CleaRTrainer``: transformers' Trainer with clean routing.

Longer than other files: it is one class whose parts (step, epoch, estimate, checkpoint) share one state, and
reads in the order of a run.
"""

import math
from collections import deque
from collections.abc import Callable
from contextlib import nullcontext
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from torch import Tensor, nn
from transformers import TrainerCallback
from transformers.trainer_utils import TrainOutput

from clear_peft.cleanliness import CleanlinessEstimator, probe, rank_label_issues
from clear_peft.errors import InputError
from clear_peft.objectives import (
    Objective,
    consistency,
    cross_entropy,
    make_objective,
    soft_cross_entropy,
)
from clear_peft.routing import Router
from clear_peft.training.averaging import WeightAverage
from clear_peft.training.config import ESTIMATORS, CleaRConfig
from clear_peft.training.figures import estimate_figures, loss_histogram, wrong_labels
from clear_peft.training.fresh_start import FreshStart
from clear_peft.training.indexing import (
    ID_COLUMN,
    labels_of,
)
from clear_peft.training.judging import judged, with_doubts_of
from clear_peft.training.passing_trainer import PassingTrainer, by_length
from clear_peft.training.sampling import ShareSampler
from clear_peft.training.scoring import hidden_features, predict_logits
from clear_peft.training.state import CleanlinessState, load_memory, save_memory
from clear_peft.training.steps import StepScores
from clear_peft.training.tally import Tally
from clear_peft.training.unlogged_loss import UnloggedLoss
from clear_peft.training.watch import FiniteWatch

BELIEVED_ACCURACY = "believed_accuracy"


class CleaRTrainer(PassingTrainer):
    """Trains a PEFT model on labels that may be wrong. A drop-in for ``transformers.Trainer``.

    When the warm-up ends it scores the training set, estimates each label's clean probability p and, where
    labels are doubted, trains afresh on targets softened by p, with examples routed through the PEFT modules
    by it. What it saves is an ordinary PEFT adapter. A column ``clean_label`` of the training set, if there
    is one, is read for logging alone.

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
    compute_metrics: Any
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
        super().__init__(model=model, args=args, train_dataset=train_dataset, **kwargs)
        # makes the Trainer count the examples of an optimizer step, whatever the model's forward takes
        self.model_accepts_loss_kwargs = True
        self._estimator = ESTIMATORS[args.estimator] if estimator is None else estimator
        self._router = (
            Router(model, ceiling=args.gate_ceiling, seed=args.seed) if args.clean_routing else None
        )
        if train_dataset is not None:
            blocks = 0 if self._router is None else self._router.num_blocks
            self._tally = Tally(self._labels, self._num_labels, blocks, args.device)
            self._objective = self._make_objective(args)
        self._unlogged = UnloggedLoss(self)
        self._steps: StepScores | None = None
        if args.judge == "steps" and self._scores and train_dataset is not None:
            self._steps = StepScores(len(self._labels), self._num_labels, args.device)
        if self.compute_metrics is not None:
            self.compute_metrics = partial(self._with_belief, self.compute_metrics)
        self._average = self._new_average()
        self._start = FreshStart(model) if self._fresh_start else None
        self._set_state(None)
        self._watched_loss = FiniteWatch("The loss", args.device)
        self._watched_gradient = FiniteWatch("The gradient", args.device)
        # examples of the optimizer step, micro-batch by micro-batch
        self._step_ids: deque[Tensor] = deque(maxlen=args.gradient_accumulation_steps)
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

    @property
    def doubted(self) -> bool:
        """Whether labels have counted in training only as far as they were believed, and not all were."""
        soft = self._scores and self.args.soft_labels
        return soft and self._state is not None and self._state.components == 2

    def label_issues(self) -> pd.DataFrame:
        """The training rows, most suspicious first (see ``clear_peft.cleanliness.rank_label_issues``)."""
        state = self.cleanliness
        names = self.model.config.id2label
        return rank_label_issues(
            state.clean_probability,
            state.losses,
            given=self._labels,
            predicted=state.teacher.predicted.numpy(),
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

    def train(self, *args: Any, **kwargs: Any) -> TrainOutput:
        """Transformers' own; where it could have started afresh, the final model judges the labels again."""
        output = super().train(*args, **kwargs)
        found = self._state
        if self._fresh_start and found is not None:
            state = self._scored()
            if found.components == 2 and state.components == 1:  # the doubts that it was trained with stand
                state = with_doubts_of(state, found)
            self._set_state(state)
        return output

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
        doubted = self._robust and self.args.route
        probability = self._probability[ids] if doubted else torch.ones_like(ids, dtype=torch.float32)
        length = inputs["input_ids"].shape[1] if "input_ids" in inputs else None
        step = self.state.global_step
        with self._router.route(probability, example_ids=ids, step=step, sequence_length=length) as gates:
            own = len(inputs["labels"])
            self._tally.routed(gates[:own], ids[:own])
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
        self._step_ids.append(ids)
        # what has no label is there to fill up the batch
        logits, ids = outputs.logits[: len(labels)], ids[: len(labels)]
        self._tally.step(logits, ids)
        if self._steps is not None and (self.args.reestimate or not self._robust):
            self._steps.step(logits, labels, ids, self.state.epoch or 0.0)
        losses = self.per_example_loss(logits, labels, ids)
        self._watched_loss.see(losses.isfinite(), ids, self.state.global_step + 1)
        # divided before the sum: a process that has only such rows may count none
        loss = (losses / (len(losses) if num_items_in_batch is None else num_items_in_batch)).sum()
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
        if self._robust and self.args.soft_labels:
            loss = soft_cross_entropy(logits, self._targets(labels, ids))
        else:
            loss = self._objective(logits, labels, ids, epoch=self.state.epoch or 0.0)
        if not self._robust:
            return loss
        if self.args.consistency_weight:
            teacher = self._teacher.logits(ids)
            agreement = consistency(logits, teacher, self.args.consistency_temperature)
            loss = loss + self.args.consistency_weight * agreement
        return loss

    def _targets(self, labels: Tensor, ids: Tensor) -> Tensor:
        """p·label + (1 − p)·teacher, (B, C) float32."""
        probability = self._probability[ids].unsqueeze(1)
        targets = (1 - probability) * self._teacher.probabilities(ids)
        return targets.scatter_add(1, labels.unsqueeze(1), probability)

    def _get_grad_norm(self, model: nn.Module, grad_norm: Any = None) -> Any:
        """Transformers' own; on the CPU, a step that would ruin the weights is not taken."""
        norm = super()._get_grad_norm(model, grad_norm)
        if self.accelerator.scaler is None:
            ids = torch.cat([*self._step_ids])
            finite = torch.as_tensor(norm, device=ids.device).isfinite().expand(len(ids))
            self._watched_gradient.see(finite, ids, self.state.global_step + 1)
        return norm

    def _look(self) -> None:
        """Stop if a step was not finite: what it made is no thing to judge, to evaluate or to save."""
        self._watched_loss.look()
        self._watched_gradient.look()

    # The epoch

    def _get_train_sampler(self, train_dataset: Any = None) -> Any:
        """Transformers' own, unless it draws at random: then ours, which can draw in proportion to belief."""
        strategy = self.args.train_sampling_strategy
        if strategy not in ("random", "group_by_length"):
            return super()._get_train_sampler(train_dataset)
        return ShareSampler(
            len(self._labels),
            self.args.train_batch_size,
            self._lengths if strategy == "group_by_length" else None,
            self.args.seed,
            epoch=lambda: int(self.state.epoch or 0),
            shares=lambda: self._certainty if self._robust and self.args.soft_labels else None,
        )

    @property
    def _certainty(self) -> np.ndarray:
        """How sure the target of each example is, p + (1 − p)·max(teacher), (N,) float32: the share drawn.

        Where the teacher knows little, as early with many classes, steps go to labels that look right; a
        good teacher makes examples of wrong labels nearly as useful.
        """
        return (self._probability + (1 - self._probability) * self._teacher.confidence).cpu().numpy()

    @property
    def _warm_up(self) -> int:
        """Number of epochs before the clean probabilities are used."""
        epochs = self.args.warm_up_epochs
        return math.ceil(epochs if epochs >= 1 else epochs * self.args.num_train_epochs)

    @property
    def _robust(self) -> bool:
        return self._scores and self._state is not None and self._state.epoch >= self._warm_up

    @property
    def _fresh_start(self) -> bool:
        """Whether training begins anew once wrong labels have been found."""
        return self.args.clean_routing and self.args.fresh_start

    @property
    def _found(self) -> bool:
        """Whether training begins, or has begun, anew."""
        return self._fresh_start and self._state is not None and self._state.components == 2

    def set_initial_training_values(self, args: Any, dataloader: Any) -> tuple:
        """Transformers' own, with room for a warm-up before all epochs."""
        if not self._fresh_start:
            return super().set_initial_training_values(args, dataloader)
        epochs, args.num_train_epochs = args.num_train_epochs, args.num_train_epochs + self._warm_up
        try:
            return super().set_initial_training_values(args, dataloader)
        finally:
            args.num_train_epochs = epochs

    def _init_training_state(self, *args: Any) -> tuple[int, int]:
        """Transformers' own; what was over when its last checkpoint was saved has no epoch left."""
        _, _, epochs, _, _ = args
        done = super()._init_training_state(*args)
        return (epochs, 0) if self._plain_and_over or self._out_of_patience else done

    def create_scheduler(self, num_training_steps: int, optimizer: Any = None) -> Any:
        """Transformers' own, over the epochs of one training: a fresh start begins it again."""
        if self._fresh_start:
            epochs = self.args.num_train_epochs
            num_training_steps = round(num_training_steps * epochs / (epochs + self._warm_up))
        return super().create_scheduler(num_training_steps, optimizer)

    def _before_epoch(self) -> None:
        """Begin anew, if it is time, with the initial adapter and head, no momentum and the first step size.

        Now, and not when the epoch before ended: its evaluation and its checkpoint are over.
        """
        if self._average is not None:
            self._average.hide()
        if not self._found or self.state.epoch != self._warm_up:
            return
        assert self._start is not None  # where nothing begins anew, nothing is found
        self._start.begin_anew(self.model, self.optimizer, self.lr_scheduler)
        self._average = self._new_average()

    def _before_training(self) -> None:
        """Without a warm-up, the first epoch needs an estimate too."""
        self._unlogged.resume()
        if self._scores and self._state is None and self._warm_up == 0:
            self._set_state(self._scored())

    def _new_average(self) -> WeightAverage | None:
        decay = self.args.average_decay
        return WeightAverage(self.model, decay) if self.args.clean_routing and decay else None

    def _after_step(self) -> None:
        if self._average is not None:
            self._average.update()

    def _after_epoch(self) -> None:
        """Score and estimate, if it is time, and say so."""
        self._look()
        done = round(self.state.epoch or 0)
        beyond = done - self._warm_up
        scored = self._scores and (beyond == 0 or (beyond > 0 and self.args.reestimate))
        if self._steps is not None:
            self._steps.end_epoch(self.state.epoch or 0.0, self.accelerator)
        if scored:
            with nullcontext() if self._average is None else self._average.applied():
                state = self._scored(self._steps)
            self._set_state(state)
        if self._found and beyond > 0 and self._average is not None:
            self._average.show()  # it is evaluated, saved and selected, until the next epoch begins
        if self._plain_and_over:
            self.control.should_training_stop = True
        should_log = self.control.should_log
        self.log(self._figures())
        self.control.should_log = should_log  # log() takes the Trainer's own turn away
        # into the history alone: these are no numbers that a logger could plot
        place = {"epoch": self.state.epoch, "step": self.state.global_step}
        self.state.log_history.append({**place, **self._pictures(scored)})
        self._tally.clear_gates()

    def _after_evaluation(self) -> None:
        if self._out_of_patience:
            self.control.should_training_stop = True

    @property
    def _plain_and_over(self) -> bool:
        """Whether nothing was found to begin anew for, and the epochs of plain training are over."""
        return self._fresh_start and not self._found and (self.state.epoch or 0) >= self.args.num_train_epochs

    @property
    def _out_of_patience(self) -> bool:
        """Whether the last ``args.patience`` evaluations were no better.

        Told from the history, which a resumed run has too: transformers' own callback counts from nought.
        """
        if not self.args.patience:
            return False
        name = f"eval_{(self.args.metric_for_best_model or '').removeprefix('eval_')}"
        found = [e for e in self.state.log_history if name in e and self._selectable(e["epoch"])]
        values = [entry[name] if self.args.greater_is_better else -entry[name] for entry in found]
        return bool(values) and len(values) - 1 - values.index(max(values)) >= self.args.patience

    def _selectable(self, epoch: float) -> bool:
        """Whether the model after this epoch may be the best one: not while wrong labels are looked for.

        Nor the one that has found them: it agrees with itself, and is left behind.
        """
        first = self._warm_up + 1 if self._found else min(self._warm_up, self.args.num_train_epochs)
        return not self._scores or round(epoch) >= first

    def _scored(self, steps: StepScores | None = None) -> CleanlinessState:
        """What the judge makes of the labels; where steps say nothing yet, the model does."""
        predicted = self._probed() if self.args.clean_routing and self.args.judge == "probe" else None
        losses = None
        if predicted is not None:
            logits, held_out = predicted
        elif steps is not None and steps.complete:
            logits, held_out, losses = steps.logits, self._held_out(predict_logits), steps.losses
        else:
            logits, held_out = self._everywhere(predict_logits)
        return judged(
            logits,
            self._labels,
            None if held_out is None else (held_out, labels_of(self._validation, self._num_labels)),
            self._estimator,
            self.args,
            epoch=round(self.state.epoch or 0),
            seen=predicted is None,
            losses=losses,
            before=self._state,
        )

    def _probed(self) -> tuple[Tensor, Tensor | None] | None:
        """Logits of a probe on the model's features, (N, C) and (M, C); None where it has none such."""
        features, held_out = self._everywhere(hidden_features)
        if features is None:
            return None
        predicted = probe(
            features.float().numpy(),
            self._labels,
            features[:0].numpy() if held_out is None else held_out.float().numpy(),
            self._num_labels,
            self._estimator,
        )
        logits = [torch.from_numpy(p).clamp(min=1e-12).log().float() for p in predicted]
        return logits[0], None if held_out is None else logits[1]

    def _set_state(self, state: CleanlinessState | None) -> None:
        self._state = state
        if state is not None:
            device = self.args.device
            self._probability = torch.from_numpy(state.clean_probability).to(device)
            self._teacher = state.teacher.to(device)

    def _figures(self) -> dict[str, float]:
        figures: dict[str, float] = {}
        rates = self._tally.gate_rates()
        if rates is not None:
            figures["gate_rate"] = float(np.mean(rates[0]))
            figures |= {f"gate_rate/block_{i}": rate for i, rate in enumerate(rates[0])}
        state, wrong = self._state, wrong_labels(self._labels, self._clean_labels)
        if state is not None:
            figures |= estimate_figures(state, wrong)
        if wrong is not None:
            figures["memorised"] = self._tally.memorised(wrong)
        return figures

    def _pictures(self, scored: bool) -> dict[str, Any]:
        wrong = wrong_labels(self._labels, self._clean_labels)
        pictures: dict[str, Any] = {"step_losses": self._tally.losses(wrong)}
        if self._found and round(self.state.epoch or 0) == self._warm_up:
            pictures["starts_afresh"] = True
        rates = self._tally.gate_rates()
        if rates is not None:
            pictures["gate_rates"] = dict(zip(("blocks", "classes"), rates, strict=True))
        if scored and self._state is not None:
            pictures["losses"] = loss_histogram(self._state, wrong)
        return pictures

    def _with_belief(self, measure: Callable[[Any], dict], prediction: Any) -> dict[str, float]:
        """What ``compute_metrics`` gives and, in training, the accuracy that counts labels by their p."""
        metrics = measure(prediction)
        if not (self.is_in_train and self.args.clean_routing):
            return metrics
        belief = np.ones(0) if self._state is None else self._state.validation_probability
        # as long as nothing is known, and where no row at all is believed, all count alike
        known = len(belief) == len(prediction.label_ids) and belief.any()
        weights = belief[by_length(self.eval_dataset)] if known else None
        hits = prediction.predictions.argmax(axis=1) == prediction.label_ids
        return {**metrics, BELIEVED_ACCURACY: float(np.average(hits, weights=weights))}

    # Files

    def _determine_best_metric(self, metrics: dict[str, float], trial: Any) -> bool:
        """Of the epochs from the end of the warm-up on, the best; of equal ones, the latest.

        Where believed accuracy is what counts, all within a standard error of the best are equal: a few
        hundred doubtful labels say no more, and soft labels are not overfitted (the one-standard-error rule
        of Breiman et al. 1984, with the latest for the simplest).
        """
        if not self._selectable(self.state.epoch or 0):
            return False
        name = (self.args.metric_for_best_model or "").removeprefix("eval_")
        state = self._state
        if not (name == BELIEVED_ACCURACY and self._found and state is not None):
            return super()._determine_best_metric(metrics, trial)
        value = metrics[f"eval_{name}"]
        best = max(value, value if self.state.best_metric is None else self.state.best_metric)
        self.state.best_metric = best
        rows = max(1.0, float(state.validation_probability.sum()))
        if value < best - math.sqrt(max(0.0, best * (1 - best)) / rows):
            return False
        self.state.best_global_step = self.state.global_step
        return True

    def _save_checkpoint(self, model: nn.Module, trial: Any) -> None:
        self._look()
        # first, so that a checkpoint with a trainer_state.json, which comes last, is whole
        if self.args.should_save:
            folder = Path(self._get_output_dir(trial)) / f"checkpoint-{self.state.global_step}"
            folder.mkdir(parents=True, exist_ok=True)
            save_memory(self._memory, folder)
            if self._state is not None:
                self._state.save(folder)
        super()._save_checkpoint(model, trial)

    def _load_from_checkpoint(self, resume_from_checkpoint: str, model: nn.Module | None = None) -> None:
        super()._load_from_checkpoint(resume_from_checkpoint, model)
        self._set_state(self._read_state(resume_from_checkpoint))
        load_memory(self._memory, resume_from_checkpoint)

    def _load_best_model(self) -> None:
        super()._load_best_model()
        self._set_state(self._read_state(self.state.best_model_checkpoint))

    def _read_state(self, folder: str) -> CleanlinessState | None:
        return CleanlinessState.load(folder, (len(self._labels), self._num_labels))

    @property
    def _memory(self) -> dict[str, Any]:
        """What carries tensors from one step to the next, besides weights and optimizer."""
        average = {} if self._average is None else {"average": self._average}
        steps = {} if self._steps is None else {"steps": self._steps}
        parts = {"objective": self._objective, "tally": self._tally, "unlogged": self._unlogged}
        return {**parts, **steps, **average}


class _Epochs(TrainerCallback):
    """Scores when an epoch is over: before its evaluation and its checkpoint, never again on resume."""

    def __init__(self, trainer: CleaRTrainer) -> None:
        self.trainer = trainer

    def on_train_begin(self, *_: Any, **__: Any) -> None:
        self.trainer._before_training()

    def on_epoch_begin(self, *_: Any, **__: Any) -> None:
        self.trainer._before_epoch()

    def on_step_end(self, *_: Any, **__: Any) -> None:
        self.trainer._after_step()

    def on_epoch_end(self, *_: Any, **__: Any) -> None:
        self.trainer._after_epoch()

    def on_evaluate(self, *_: Any, **__: Any) -> None:
        self.trainer._after_evaluation()
