"""What is logged when an epoch is over; nothing in training reads it."""

from typing import Any

import numpy as np

from clear_peft.trainer.figures import estimate_figures, loss_histogram
from clear_peft.trainer.state import CleanlinessState
from clear_peft.trainer.tally import Tally


def epoch_figures(tally: Tally, state: CleanlinessState | None, wrong: np.ndarray | None) -> dict[str, float]:
    """The numbers that a logger can plot.

    Args:
        tally: Of the steps.
        state: The last estimate, if there has been one.
        wrong: Which labels are wrong, (N,) bool, if it is known.
    """
    figures: dict[str, float] = {}
    rates = tally.gate_rates()
    if rates is not None:
        figures["gate_rate"] = float(np.mean(rates[0]))
        figures |= {f"gate_rate/block_{i}": rate for i, rate in enumerate(rates[0])}
    if state is not None:
        figures |= estimate_figures(state, wrong)
    if wrong is not None:
        figures["memorised"] = tally.memorised(wrong)
    return figures


def epoch_pictures(
    tally: Tally, scored: CleanlinessState | None, wrong: np.ndarray | None, *, starts_afresh: bool
) -> dict[str, Any]:
    """Histograms and tables.

    Args:
        tally: Of the steps.
        scored: The estimate made after this epoch, if one was.
        wrong: Which labels are wrong, (N,) bool, if it is known.
        starts_afresh: Whether the next epoch begins anew.
    """
    pictures: dict[str, Any] = {"step_losses": tally.losses(wrong)}
    if starts_afresh:
        pictures["starts_afresh"] = True
    rates = tally.gate_rates()
    if rates is not None:
        pictures["gate_rates"] = dict(zip(("blocks", "classes"), rates, strict=True))
    if scored is not None:
        pictures["losses"] = loss_histogram(scored, wrong)
    return pictures


def log_epoch(trainer: Any, figures: dict[str, float], pictures: dict[str, Any]) -> None:
    """Log the figures, and put the pictures into the history alone: no logger could plot them.

    Args:
        trainer: A ``transformers.Trainer``.
        figures: See ``epoch_figures``.
        pictures: See ``epoch_pictures``.
    """
    should_log = trainer.control.should_log
    trainer.log(figures)
    trainer.control.should_log = should_log  # log() takes the Trainer's own turn away
    place = {"epoch": trainer.state.epoch, "step": trainer.state.global_step}
    trainer.state.log_history.append({**place, **pictures})
