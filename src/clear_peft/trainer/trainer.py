"""``CleaRTrainer``: transformers' Trainer with clean routing."""

from collections.abc import Callable
from contextlib import nullcontext
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from torch import Tensor, nn

from clear_peft.errors import InputError
from clear_peft.label_quality import CleanlinessEstimator, rank_label_issues
from clear_peft.losses import consistency, soft_cross_entropy
from clear_peft.trainer.averaging import WeightAverage
from clear_peft.trainer.config import ESTIMATORS, CleaRConfig
from clear_peft.trainer.epoch_log import epoch_figures, epoch_pictures, log_epoch
from clear_peft.trainer.figures import wrong_labels
from clear_peft.trainer.fresh_start import FreshStart
from clear_peft.trainer.head import HeadStart, head_inputs
from clear_peft.trainer.judging import judged
from clear_peft.trainer.probing import blocks, probed
from clear_peft.trainer.sampling import balanced
from clear_peft.trainer.scoring import hidden_features, predict_logits
from clear_peft.trainer.selection import (
    BELIEVED_ACCURACY,
    believed_accuracy,
    evaluations_without_gain,
    within_standard_error,
)
from clear_peft.trainer.state import CleanlinessState
from clear_peft.trainer.step_trainer import StepTrainer
from clear_peft.trainer.steps import StepScores
from clear_peft.trainer.targets import if_wrong, soft_targets

_CHUNK = 1 << 16


class CleaRTrainer(StepTrainer):
    """Trains a PEFT model on labels that may be wrong. A drop-in for ``transformers.Trainer``.

    The model's head begins as a linear probe, whatever it was. When the warm-up ends the trainer scores the
    training set, estimates each label's clean probability p and, where labels are doubted, trains afresh on
    targets softened by p, with examples routed through the PEFT modules by it. What it saves is an ordinary
    PEFT adapter. A column ``clean_label`` of the training set, if there is one, is read for logging alone.
    Rows with one number in a column ``group`` are judged together, none by a fit that has seen the label of
    another; without that column, rows with equal inputs.

    Args:
        model: A PEFT model for single-label classification (``peft.get_peft_model``,
            ``clear_peft.tuners.build``); any classifier if ``args.clean_routing`` is False.
        args: ``CleaRConfig``.
        data_collator, eval_dataset, processing_class: As for ``transformers.Trainer``.
        train_dataset: Map-style, tokenised, with a column ``labels`` or ``label`` of class indices; a
            column named by ``args.length_column_name`` speeds up scoring.
        estimator: What turns losses into clean probabilities. Default: the one that ``args`` names.
        **kwargs: Everything else that ``transformers.Trainer`` takes.

    Unlike there, of equal epochs the latest is the best one, each epoch adds a line to the log, and what is
    due at an epoch's last step comes after ``on_epoch_end``. Epochs cannot be stopped midway, and checkpoints
    of transformers' Trainer cannot be resumed from.

    Raises:
        InputError: If the model cannot be gated, ``args`` are others, or the training set has no stable ids
            or proper labels.

    Example:
        >>> trainer = CleaRTrainer(model=peft_model, args=CleaRConfig(output_dir="out"),
        ...                        train_dataset=train, processing_class=tokenizer)  # doctest: +SKIP
        >>> trainer.train(); trainer.label_issues()  # doctest: +SKIP
    """

    def __init__(
        self,
        model: Any = None,
        args: CleaRConfig | None = None,
        data_collator: Any = None,
        train_dataset: Any = None,
        eval_dataset: Any = None,
        processing_class: Any = None,
        *,
        estimator: CleanlinessEstimator | None = None,
        **kwargs: Any,
    ) -> None:
        if model is None:
            raise InputError("The gates need a model that is there: give model, and no model_init.")
        if not isinstance(args, CleaRConfig):
            kind = type(args).__name__
            raise InputError(
                f"args is a {kind}: give a CleaRConfig, which takes all that TrainingArguments takes."
            )
        self._epochs = args.num_train_epochs
        super().__init__(
            model=model,
            args=args,
            data_collator=data_collator,
            train_dataset=train_dataset,
            eval_dataset=eval_dataset,
            processing_class=processing_class,
            **kwargs,
        )
        self._estimator = ESTIMATORS[args.estimator] if estimator is None else estimator
        if self.compute_metrics is not None:
            self.compute_metrics = partial(self._with_belief, self.compute_metrics)
        self._on_validation = False
        self._average = self._new_average()
        self._start = FreshStart(model) if self._fresh_start else None
        self._head: HeadStart | None = None
        if args.clean_routing and args.probe_head and train_dataset is not None:
            rows, *_ = blocks(self._labels, args.seed)
            self._head = HeadStart(self._head_inputs, self._labels, rows, self._groups)

    # What it found out

    @property
    def cleanliness(self) -> CleanlinessState:
        """What the last judgement made of the labels; made now if there has been none (plain training)."""
        if self._state is None:
            if self.train_dataset is None:
                raise InputError("There are no labels to judge: give train_dataset.")
            self._set_state(self._scored())
        assert self._state is not None
        return self._state

    @property
    def clean_probability(self) -> np.ndarray:
        """p, (N,) float32, in the order of the training set."""
        return self.cleanliness.clean_probability

    @property
    def judge(self) -> str:
        """Whose predictions the last judgement rests on: ``probe`` or ``final_model``."""
        return self.cleanliness.judge

    @property
    def doubted(self) -> bool:
        """Whether labels have counted in training only as far as they were believed, and not all were."""
        return self._scores and self.args.soft_labels and self._doubts

    def label_issues(self) -> pd.DataFrame:
        """The training rows, most suspicious first (see ``clear_peft.label_quality.rank_label_issues``)."""
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

    @property
    def _scores(self) -> bool:
        """Whether training makes use of clean probabilities."""
        return self._router is not None

    # The step

    def _begin_memory(self) -> None:
        super()._begin_memory()
        self._set_state(None)
        by_steps = self.args.judge == "steps" and self._scores and self.train_dataset is not None
        self._steps: StepScores | None = None
        if by_steps:
            self._steps = StepScores(len(self._labels), self._num_labels, self.args.device)

    def _shares(self) -> np.ndarray | None:
        """Where the teacher knows little, as early with many classes, steps go to labels that look right.

        A good teacher makes examples of wrong labels nearly as useful. A class that is rare or hard would all
        but vanish with its doubtful labels; ``class_balance`` gives it some of its draws back.
        """
        if not (self._robust and self._doubts and self.args.soft_labels):
            return None
        certainty, classes = self._certainty.cpu().numpy(), self._likeliest.cpu().numpy()
        return balanced(certainty, classes, self.args.class_balance)

    def _believed(self, ids: Tensor) -> Tensor:
        if not (self._robust and self.args.route):
            return super()._believed(ids)
        return self._certainty[ids]

    def _stepped(self, logits: Tensor, labels: Tensor, ids: Tensor) -> None:
        super()._stepped(logits, labels, ids)
        if self._steps is not None and (self.args.reestimate or not self._robust):
            self._steps.step(logits, labels, ids, self.state.epoch or 0.0)

    def per_example_loss(self, logits: Tensor, labels: Tensor, ids: Tensor) -> Tensor:
        """The loss of each example of a batch, (B,) float32.

        Args:
            logits: (B, C).
            labels: Given labels, (B,) int64.
            ids: Positions in the training set, (B,) int64.
        """
        if self._robust and self.args.soft_labels:
            loss = soft_cross_entropy(logits, self._targets(labels, ids))
        else:
            loss = super().per_example_loss(logits, labels, ids)
        if not self._robust:
            return loss
        if self.args.consistency_weight:
            teacher = self._teacher.logits(ids)
            agreement = consistency(logits, teacher, self.args.consistency_temperature)
            loss = loss + self.args.consistency_weight * agreement
        return loss

    def _targets(self, labels: Tensor, ids: Tensor) -> Tensor:
        """(B, C) float32; a probe's p is a posterior, and what it teaches is the rest of that."""
        teacher = self._teacher.probabilities(ids)
        if self.judge == "probe":
            teacher = if_wrong(labels, teacher, self._transition)
        return soft_targets(labels, self._probability[ids], teacher)

    def _certain(self) -> tuple[Tensor, Tensor]:
        """Each target's likeliest class: its probability, (N,) float32, p if it is the label; and which."""
        labels = torch.from_numpy(self._labels).to(self.args.device)
        parts = torch.arange(len(labels), device=labels.device).split(_CHUNK)
        likeliest = [self._targets(labels[ids], ids).max(dim=1) for ids in parts]
        return torch.cat([part.values for part in likeliest]), torch.cat([part.indices for part in likeliest])

    # The epochs

    @property
    def _warm_up(self) -> int:
        """Number of epochs before the clean probabilities are used."""
        return self.args.warm_up(self._epochs)

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
        return self._fresh_start and self._doubts

    @property
    def _doubts(self) -> bool:
        """Whether wrong labels have been found, and epochs are left to make use of that."""
        found = self._state is not None and self._state.components == 2
        return found and self._warm_up < self._epochs

    def _init_training_state(self, *args: Any) -> tuple[int, int]:
        """Transformers' own; who was out of patience when its last checkpoint was saved has no epoch left."""
        steps, steps_per_epoch, epochs, _, _ = args
        self._epochs = steps / steps_per_epoch if self.args.max_steps > 0 else self.args.num_train_epochs
        done = super()._init_training_state(*args)
        return (epochs, 0) if self._out_of_patience else done

    def _before_epoch(self) -> None:
        """Begin anew, if it is time, with the initial adapter and head and no momentum.

        Now, and not when the epoch before ended: its evaluation and its checkpoint are over.
        """
        if self._average is not None:
            self._average.hide()
        if not self._found or self.state.epoch != self._warm_up:
            return
        assert self._start is not None  # where nothing begins anew, nothing is found
        self._start.begin_anew(self.model, self.optimizer)
        self._begin_head(self.clean_probability)

    def _before_training(self) -> None:
        """Without a warm-up, the first epoch needs an estimate too."""
        super()._before_training()
        if self.state.global_step == 0:
            self._start = FreshStart(self.model) if self._fresh_start else None
            self._begin_head()
        if self._scores and self._state is None and self._warm_up == 0:
            self._set_state(self._scored())

    def _begin_head(self, belief: np.ndarray | None = None) -> None:
        """Before the first step of all, or of a fresh start, with the p of all rows, (N,)."""
        if self._head is not None:
            self._head.begin(self.model, belief)
        self._average = self._new_average()

    def _head_inputs(self, head: nn.Linear, rows: np.ndarray) -> Tensor | None:
        return self._pass_over(partial(head_inputs, head), self.train_dataset, self._lengths, rows)

    def _new_average(self) -> WeightAverage | None:
        decay = self.args.average_decay
        return WeightAverage(self.model, decay) if self.args.clean_routing and decay else None

    def _before_step(self) -> None:
        if self._average is not None:
            self._average.hide()

    def _after_step(self) -> None:
        if self._average is not None:
            self._average.update()
        if not self._scores:
            self._set_state(None)  # what somebody has had judged meanwhile was another model's

    def _before_evaluation(self) -> None:
        """After a fresh start the average is evaluated, saved and selected, until the next step."""
        if self._average is not None and self._found and (self.state.epoch or 0) > self._warm_up:
            self._average.show()

    def _after_epoch(self) -> None:
        """Score and estimate, if it is time, and say so."""
        super()._after_epoch()
        beyond = (self.state.epoch or 0) - self._warm_up
        scored = self._scores and (beyond == 0 or (beyond > 0 and self.args.reestimate))
        if self._steps is not None:
            self._steps.end_epoch(self.state.epoch or 0.0, self.accelerator)
        if scored:
            with nullcontext() if self._average is None else self._average.applied():
                state = self._scored(self._steps)
            self._set_state(state)
        self._before_evaluation()
        wrong, afresh = wrong_labels(self._labels, self._clean_labels), self._found and beyond == 0
        figures = epoch_figures(self._tally, self._state, wrong)
        pictures = epoch_pictures(self._tally, self._state if scored else None, wrong, starts_afresh=afresh)
        log_epoch(self, figures, pictures)
        self._tally.clear_gates()

    def _after_evaluation(self) -> None:
        if self._out_of_patience:
            self.control.should_training_stop = True

    @property
    def _out_of_patience(self) -> bool:
        """Whether the last ``args.patience`` evaluations were no better."""
        if not self.args.patience:
            return False
        larger, history = bool(self.args.greater_is_better), self.state.log_history
        return evaluations_without_gain(history, self._metric, larger, self._selectable) >= self.args.patience

    def _selectable(self, epoch: float) -> bool:
        """Whether the model after this epoch may be the best one: not while wrong labels are looked for.

        Nor the one that has found them: it agrees with itself, and is left behind.
        """
        return not self._scores or epoch >= min(self._warm_up + self._found, self._epochs)

    def _scored(self, steps: StepScores | None = None) -> CleanlinessState:
        """What the judge makes of the labels; where steps say nothing yet, the model does."""
        epoch = round(self.state.epoch or 0)
        if self.args.clean_routing and self.args.judge == "probe":
            state = self._probed(epoch)
            if state is not None:
                return state
        losses = None
        if steps is not None and steps.complete:
            logits, held_out, losses = steps.logits, self._held_out(predict_logits), steps.losses
        else:
            logits, held_out = self._everywhere(predict_logits)
        return judged(
            logits,
            self._labels,
            None if held_out is None else (held_out, self._held_out_labels),
            self._estimator,
            self.args,
            epoch=epoch,
            losses=losses,
            before=self._state,
        )

    def _probed(self, epoch: int) -> CleanlinessState | None:
        """What a probe on the model's features makes of the labels; None where it has none such."""

        def features_of(rows: np.ndarray | None) -> Tensor | None:
            if rows is None:
                return self._held_out(hidden_features)
            return self._pass_over(hidden_features, self.train_dataset, self._lengths, rows)

        labels, unseen, classes = self._labels, self._held_out_labels, self._num_labels
        return probed(
            features_of,
            labels,
            unseen,
            classes,
            self.args,
            epoch=epoch,
            groups=self._groups,
            copies=self._copies,
        )

    def _set_state(self, state: CleanlinessState | None) -> None:
        self._state = state
        if state is not None:
            device = self.args.device
            p = torch.from_numpy(state.clean_probability).to(device)
            self._probability = p if state.components == 2 else torch.ones_like(p)
            self._teacher = state.teacher.to(device)
            self._transition = None if state.transition is None else state.transition.to(device)
            self._certainty = self._probability
            if self.args.soft_labels:
                self._certainty, self._likeliest = self._certain()

    def evaluate(self, eval_dataset: Any = None, *args: Any, **kwargs: Any) -> dict[str, float]:
        """As transformers' Trainer; in believed accuracy rows of other sets than its own count alike."""
        self._on_validation = eval_dataset is None or eval_dataset is self.eval_dataset
        try:
            return super().evaluate(eval_dataset, *args, **kwargs)
        finally:
            self._on_validation = False

    def _with_belief(self, measure: Callable[..., dict], prediction: Any, **options: Any) -> dict[str, float]:
        """What ``compute_metrics`` gives and, in training, the accuracy that counts labels by their p.

        Only where there are logits of all rows to take it from.
        """
        metrics, outputs = measure(prediction, **options), prediction.predictions
        logits = outputs[0] if isinstance(outputs, tuple) else outputs
        rows = len(prediction.label_ids)
        whole = getattr(logits, "shape", None) == (rows, self._num_labels) and not options
        if not (self.is_in_train and self.args.clean_routing and whole):
            return metrics
        state = self._state
        belief = state.validation_probability if state is not None and state.components == 2 else np.ones(0)
        known = self._on_validation and len(belief) == len(prediction.label_ids)
        weights = belief[self._order(self.eval_dataset)] if known else None
        return {**metrics, BELIEVED_ACCURACY: believed_accuracy(logits, prediction.label_ids, weights)}

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
        value = metrics.get(f"eval_{name}")
        if value is None:
            return super()._determine_best_metric(metrics, trial)  # which says what there is
        best = max(value, value if self.state.best_metric is None else self.state.best_metric)
        self.state.best_metric = best
        if not within_standard_error(value, best, float(state.validation_probability.sum())):
            return False
        self.state.best_global_step = self.state.global_step
        return True

    def _save_own(self, folder: Path) -> None:
        super()._save_own(folder)
        if self._state is not None and self.args.should_save:  # the same on all processes
            self._state.save(folder)

    def _load_own(self, folder: str) -> None:
        self._set_state(self._read_state(folder))
        super()._load_own(folder)

    def _load_best_model(self) -> None:
        super()._load_best_model()
        self._set_state(self._read_state(self.state.best_model_checkpoint))

    def _read_state(self, folder: str) -> CleanlinessState | None:
        return CleanlinessState.load(folder, (len(self._labels), self._num_labels))

    @property
    def _memory(self) -> dict[str, Any]:
        average = {} if self._average is None else {"average": self._average}
        steps = {} if self._steps is None else {"steps": self._steps}
        start = {} if self._start is None else {"start": self._start}
        return {**super()._memory, **steps, **average, **start}
