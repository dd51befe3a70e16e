"""A Trainer whose steps know every example: drawn, routed, learnt and remembered one by one."""

from collections import deque
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from transformers import TrainerCallback

from clear_peft.errors import InputError
from clear_peft.losses import Objective, cross_entropy, make_objective
from clear_peft.routing import Router
from clear_peft.trainer.config import CleaRConfig
from clear_peft.trainer.indexing import ID_COLUMN
from clear_peft.trainer.passing_trainer import PassingTrainer
from clear_peft.trainer.sampling import ShareSampler
from clear_peft.trainer.state import load_memory, save_memory
from clear_peft.trainer.tally import Tally
from clear_peft.trainer.unlogged_loss import UnloggedLoss
from clear_peft.trainer.watch import FiniteWatch

_DUE = ("should_evaluate", "should_save")


class StepTrainer(PassingTrainer):
    """Minimises per-example losses. It believes every label alike; ``CleaRTrainer`` knows better.

    Args:
        model: A PEFT model that can be gated, or any classifier if ``args.clean_routing`` is False.
        args: ``CleaRConfig``.
        train_dataset: As for ``CleaRTrainer``.
        **kwargs: Everything else that ``transformers.Trainer`` takes.

    Raises:
        InputError: If the model cannot be gated, the loss is to be another's, or a process has several GPUs.
    """

    # the loss is divided by the examples of the whole optimizer step: see compute_loss
    loss_is_scaled_for_ga = True

    def __init__(self, model: Any, args: CleaRConfig, train_dataset: Any = None, **kwargs: Any) -> None:
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
        self._router = (
            Router(model, ceiling=args.gate_ceiling, seed=args.seed) if args.clean_routing else None
        )
        self._begin_memory()
        self._unlogged = UnloggedLoss(self)
        self._watched_loss = FiniteWatch("The loss", args.device)
        self._watched_gradient = FiniteWatch("The gradient", args.device)
        # examples of the optimizer step, micro-batch by micro-batch
        self._step_ids: deque[Tensor] = deque(maxlen=args.gradient_accumulation_steps)
        turns = _Turns(self)
        self.add_callback(turns)
        self.add_callback(_StepEnd(turns))

    def add_callback(self, callback: Any) -> None:
        """Transformers' own; at the end of a step ours is the last, and sees what all others have ordered."""
        super().add_callback(callback)
        self.callback_handler.callbacks.sort(key=lambda known: isinstance(known, _StepEnd))

    # What other trainers change

    def _make_objective(self, args: CleaRConfig) -> Objective:
        return make_objective(args.objective, len(self._labels), self._num_labels, args.options)

    def _begin_memory(self) -> None:
        """Nothing is known of any example: before training, and before it begins once more."""
        if self.train_dataset is not None:
            blocks = 0 if self._router is None else self._router.num_blocks
            self._tally = Tally(self._labels, self._num_labels, blocks, self.args.device)
            self._objective = self._make_objective(self.args)

    def _shares(self) -> np.ndarray | None:
        """The proportions in which the examples of the next epoch are drawn, (N,) float; None: all alike."""
        return None

    def _believed(self, ids: Tensor) -> Tensor:
        """How sure the targets are, as far as the gates are to know, (B,) float32."""
        return torch.ones_like(ids, dtype=torch.float32)

    def per_example_loss(self, logits: Tensor, labels: Tensor, ids: Tensor) -> Tensor:
        """The loss of each example of a batch, (B,) float32; see ``CleaRTrainer.per_example_loss``."""
        return self._objective(logits, labels, ids, epoch=self.state.epoch or 0.0)

    def _stepped(self, logits: Tensor, labels: Tensor, ids: Tensor) -> None:
        """Remember what a step has made of its examples: logits (B, C), given labels (B,), ids (B,)."""
        self._tally.step(logits, ids)

    def _before_training(self) -> None:
        """Training begins, or goes on after a checkpoint."""
        if self.state.global_step == 0:
            self._begin_memory()
        self._unlogged.resume()

    def _before_epoch(self) -> None:
        """The evaluation and the checkpoint of the epoch before, if any, are over."""

    def _before_step(self) -> None:
        """What an optimizer step is made of begins."""

    def _after_step(self) -> None:
        """The optimizer has taken a step."""

    def _before_evaluation(self) -> None:
        """In the middle of an epoch: the model is evaluated or saved next, or it is the last one."""

    def _after_epoch(self) -> None:
        """An epoch is over, and is still to be evaluated and saved. Not called again on resume."""
        self._look()

    def _after_evaluation(self) -> None:
        """The figures of an evaluation have been logged."""

    # The step

    def _get_train_sampler(self, train_dataset: Any = None) -> Any:
        """Transformers' own, unless it draws at random: then ours, which can draw in proportion to belief."""
        strategy = self.args.train_sampling_strategy
        if strategy not in ("random", "group_by_length"):
            return super()._get_train_sampler(train_dataset)
        return ShareSampler(
            len(self._labels),
            self.args.train_batch_size,
            self._lengths if strategy == "group_by_length" else None,
            self.args.seed if self.args.data_seed is None else self.args.data_seed,
            epoch=lambda: int(self.state.epoch or 0),
            shares=self._shares,
        )

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
        length = inputs["input_ids"].shape[1] if "input_ids" in inputs else None
        step = self.state.global_step
        with self._router.route(
            self._believed(ids), example_ids=ids, step=step, sequence_length=length
        ) as gates:
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
            known = labels >= 0  # -100 stands for none
            loss = cross_entropy(outputs.logits[known], labels[known]).mean()
            return (loss, outputs) if return_outputs else loss
        self._step_ids.append(ids)
        # what has no label is there to fill up the batch
        logits, ids = outputs.logits[: len(labels)], ids[: len(labels)]
        self._stepped(logits, labels, ids)
        losses = self.per_example_loss(logits, labels, ids)
        self._watched_loss.see(losses.isfinite(), ids, self.state.global_step + 1)
        # divided before the sum: a process that has only such rows may count none
        loss = (losses / (len(losses) if num_items_in_batch is None else num_items_in_batch)).sum()
        if self.args.average_tokens_across_devices:
            loss = loss * self.accelerator.num_processes  # counted over all ranks, averaged by DDP
        return (loss, outputs) if return_outputs else loss

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

    # Checkpoints

    @property
    def _memory(self) -> dict[str, Any]:
        """What carries tensors from one step to the next, besides weights and optimizer."""
        return {"objective": self._objective, "tally": self._tally, "unlogged": self._unlogged}

    def _save_own(self, folder: Path) -> None:
        """Write into a checkpoint what transformers' Trainer does not know of."""
        save_memory(self._memory, folder, self.args.process_index)

    def _load_own(self, folder: str) -> None:
        """Go on from what ``_save_own`` wrote."""
        load_memory(self._memory, folder, self.args.process_index, self.args.world_size)

    def _save_checkpoint(self, model: nn.Module, trial: Any) -> None:
        self._look()
        # first, so that a checkpoint with a trainer_state.json, which comes last, is whole
        folder = Path(self._get_output_dir(trial)) / f"checkpoint-{self.state.global_step}"
        folder.mkdir(parents=True, exist_ok=True)
        self._save_own(folder)
        super()._save_checkpoint(model, trial)

    def _save_rng_state(self, output_dir: str) -> None:
        """Transformers' own, on all processes before ``trainer_state.json`` calls the checkpoint whole."""
        super()._save_rng_state(output_dir)
        self.accelerator.wait_for_everyone()

    def _load_from_checkpoint(self, resume_from_checkpoint: str, model: nn.Module | None = None) -> None:
        super()._load_from_checkpoint(resume_from_checkpoint, model)
        self._load_own(resume_from_checkpoint)


class _Turns(TrainerCallback):
    """Tells a trainer when its turn is.

    What is due every so many steps, and after the last one of an epoch, waits until the epoch is over: what
    goes on from its checkpoint would miss the epoch's end otherwise.
    """

    def __init__(self, trainer: StepTrainer) -> None:
        self.trainer = trainer
        self._waiting: set[str] = set()

    def on_train_begin(self, *_: Any, **__: Any) -> None:
        self.trainer._before_training()

    def on_epoch_begin(self, *_: Any, **__: Any) -> None:
        self.trainer._before_epoch()

    def on_step_begin(self, *_: Any, **__: Any) -> None:
        self.trainer._step_ids.clear()  # an epoch's last step has fewer micro-batches than the one before
        self.trainer._before_step()

    def step_end(self, state: Any, control: Any) -> None:
        """The optimizer has taken a step, and every other callback has said what it wants."""
        if control.should_epoch_stop:
            raise InputError(
                "A callback stops an epoch before its end: let epochs have all their rows, and set max_steps "
                "or control.should_training_stop to end the training."
            )
        self.trainer._after_step()
        if float(state.epoch).is_integer():
            self._waiting = {due for due in _DUE if getattr(control, due)}
            for due in self._waiting:
                setattr(control, due, False)
        elif control.should_training_stop or any(getattr(control, due) for due in _DUE):
            self.trainer._before_evaluation()

    def on_epoch_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        self.trainer._after_epoch()
        for due in self._waiting:
            setattr(control, due, True)
        self._waiting = set()

    def on_evaluate(self, *_: Any, **__: Any) -> None:
        self.trainer._after_evaluation()


class _StepEnd(TrainerCallback):
    """The part of ``_Turns`` that has to come last."""

    def __init__(self, turns: _Turns) -> None:
        self._turns = turns

    def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        self._turns.step_end(state, control)
