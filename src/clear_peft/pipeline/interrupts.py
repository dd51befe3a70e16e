"""Ctrl-C or SIGTERM while a model is trained: a checkpoint first, and then the end."""

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any

import torch
from transformers import TrainerCallback, TrainerControl, TrainerState

from clear_peft.pipeline.progress import Reporter
from clear_peft.trainer import CleaRTrainer

# what Python does about each by itself; a scheduler ends a job by the second
_SIGNALS = {signal.SIGINT: signal.default_int_handler, signal.SIGTERM: signal.SIG_DFL}
# steps after which several processes ask each other: it makes an accelerator wait
_STEPS = 10


@contextmanager
def saving_first(trainer: CleaRTrainer, reporter: Reporter) -> Iterator[None]:
    """Inside, a first Ctrl-C or SIGTERM lets ``trainer`` save a checkpoint where it stands.

    A second one stops at once. Of several processes it is enough that one hears of it: all stop after the
    same step, one in ten. Whatever else the program does about these signals is left alone, and so are
    threads.

    Args:
        trainer: What is trained inside.
        reporter: Told of the first signal.

    Raises:
        KeyboardInterrupt: When the checkpoint is there, or training was over in any case.
    """
    main = threading.current_thread() is threading.main_thread()
    ours = {each: usual for each, usual in _SIGNALS.items() if main and signal.getsignal(each) is usual}
    stop = _SaveAndStop(trainer)
    trainer.add_callback(stop)

    def heard(*_: Any) -> None:
        stop.heard = True
        restore()
        with suppress(RuntimeError):  # it may have come in the middle of another line
            reporter.stage("Interrupted: saving a checkpoint first; Ctrl-C again stops at once")

    def restore() -> None:
        for each, usual in ours.items():
            signal.signal(each, usual)

    for each in ours:
        signal.signal(each, heard)
    try:
        yield
        if stop.anybody_heard():
            raise KeyboardInterrupt
    finally:
        restore()


class _SaveAndStop(TrainerCallback):
    """Stops the training, once that is wanted, at the next checkpoint, and has it saved at the next step.

    Attributes:
        heard: Whether this process has been told to.
    """

    def __init__(self, trainer: CleaRTrainer) -> None:
        self.heard = self._stops = False
        self._trainer = trainer

    def anybody_heard(self) -> bool:
        """Whether one of the processes has; called by all."""
        if self._trainer.args.world_size == 1:
            return self.heard
        heard = torch.tensor(float(self.heard), device=self._trainer.args.device)
        return bool(self._trainer.accelerator.reduce(heard, "sum"))

    def on_step_end(self, args: Any, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        if args.world_size == 1 or state.global_step % _STEPS == 0:
            self._stops = self._stops or self.anybody_heard()
        # the last step of an epoch waits for the epoch's own checkpoint: who resumes takes the epoch for done
        if self._stops and state.epoch != round(state.epoch):
            control.should_save = True

    def on_save(self, args: Any, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        if self._stops:
            raise KeyboardInterrupt
