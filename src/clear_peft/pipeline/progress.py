"""How a run tells what it is doing."""

import math
import time
from collections.abc import Callable
from typing import Any, Protocol

from transformers import TrainerCallback, TrainerControl, TrainerState

# Trainer's name in its log → ours, in the order in which they are shown
_FIGURES = {
    "epoch_loss": "train_loss",
    "eval_loss": "validation_loss",
    "eval_accuracy": "validation_accuracy",
    "eval_micro_f1": "validation_micro_f1",
    "eval_span_f1": "validation_span_f1",
    "eval_macro_f1": "validation_macro_f1",
    "eval_mean_average_precision": "validation_mean_average_precision",
    "eval_weighted_accuracy": "validation_weighted_accuracy",
    "eval_weighted_micro_f1": "validation_weighted_micro_f1",
    "eval_weighted_macro_f1": "validation_weighted_macro_f1",
    "eval_weighted_mean_average_precision": "validation_weighted_mean_average_precision",
    "noise_rate": "noise_rate",
    "clean_probability": "clean_probability",
    "gate_rate": "gate_rate",
    "detection_auc": "detection_auc",
    "memorised": "memorised",
    "test_accuracy": "test_accuracy",
    "test_micro_f1": "test_micro_f1",
    "test_span_f1": "test_span_f1",
    "test_macro_f1": "test_macro_f1",
    "test_mean_average_precision": "test_mean_average_precision",
    "losses": "losses",
    "step_losses": "step_losses",
    "gate_rates": "gate_rates",
    "restarts": "restarts",
}


class Reporter(Protocol):
    """Whoever shows the progress of a run."""

    def stage(self, text: str) -> None:
        """A new stage has begun."""

    def step(self, done: int, total: int) -> None:
        """Steps of the training are done."""

    def epoch(self, figures: dict[str, Any]) -> None:
        """An epoch is over, and these are its figures."""


class Silent:
    """Shows nothing."""

    def stage(self, text: str) -> None:
        """Nothing."""

    def step(self, done: int, total: int) -> None:
        """Nothing."""

    def epoch(self, figures: dict[str, Any]) -> None:
        """Nothing."""


class ReportTo(TrainerCallback):
    """Passes what the Trainer does on to a reporter."""

    def __init__(self, reporter: Reporter) -> None:
        self.reporter = reporter

    def on_step_end(self, args: Any, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        """A step is over."""
        self.reporter.step(state.global_step, state.max_steps)

    def on_evaluate(self, args: Any, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        """The validation after an epoch is over."""
        self.reporter.epoch(epoch_figures(state.log_history)[-1])


class Diary(TrainerCallback):
    """Lets the figures of all epochs so far be written down after each."""

    def __init__(self, write: Callable[[list[dict[str, Any]]], None]) -> None:
        self.write = write

    def on_evaluate(self, args: Any, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        """The validation after an epoch is over."""
        if state.is_world_process_zero:
            self.write(epoch_figures(state.log_history))


class TestCurve(TrainerCallback):
    """Writes test figures into the history after every epoch; nothing reads them but tables and plots.

    Attributes:
        seconds: What that took, so that it can be left out of the training time.
    """

    def __init__(self, measure: Callable[[], dict[str, float]]) -> None:
        self.measure = measure
        self.seconds = 0.0

    def on_epoch_end(self, args: Any, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        """An epoch is over."""
        started = time.perf_counter()
        figures = {f"test_{name}": value for name, value in self.measure().items()}
        state.log_history.append({"epoch": state.epoch, "step": state.global_step, **figures})
        self.seconds += time.perf_counter() - started


def number_of_epoch(reached: float) -> int:
    """The number of the epoch, from 1, that a run is in or has just ended; the last may be cut short."""
    return math.ceil(reached - 1e-6)


def epoch_figures(log_history: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The figures of every epoch, out of the Trainer's log."""
    epochs: dict[int, dict[str, Any]] = {}
    for entry in log_history:
        number = number_of_epoch(entry["epoch"])
        record = epochs.setdefault(number, {"epoch": number})
        record |= {ours: entry[theirs] for theirs, ours in _FIGURES.items() if theirs in entry}
    return [epochs[number] for number in sorted(epochs)]
