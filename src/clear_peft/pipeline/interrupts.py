"""Ctrl-C while a model is trained: a checkpoint first, and then the end."""

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any

from transformers import TrainerCallback, TrainerControl, TrainerState

from clear_peft.pipeline.progress import Reporter
from clear_peft.trainer import CleaRTrainer


@contextmanager
def saving_first(trainer: CleaRTrainer, reporter: Reporter) -> Iterator[None]:
    """Inside, a first Ctrl-C lets ``trainer`` save a checkpoint where it stands; a second stops at once.

    Whatever else the program does about Ctrl-C is left alone, and so are threads and several processes, whose
    steps may differ when they hear of it.

    Args:
        trainer: What is trained inside.
        reporter: Told of the first Ctrl-C.

    Raises:
        KeyboardInterrupt: When the checkpoint is there, or training was over in any case.
    """
    alone = threading.current_thread() is threading.main_thread() and trainer.args.world_size == 1
    if not alone or signal.getsignal(signal.SIGINT) is not signal.default_int_handler:
        yield
        return
    stop = _SaveAndStop()
    trainer.add_callback(stop)

    def heard(*_: Any) -> None:
        stop.wanted = True
        signal.signal(signal.SIGINT, signal.default_int_handler)
        with suppress(RuntimeError):  # it may have come in the middle of another line
            reporter.stage("Interrupted: saving a checkpoint first; Ctrl-C again stops at once")

    signal.signal(signal.SIGINT, heard)
    try:
        yield
        if stop.wanted:
            raise KeyboardInterrupt
    finally:
        signal.signal(signal.SIGINT, signal.default_int_handler)


class _SaveAndStop(TrainerCallback):
    """Stops the training, once that is wanted, at the next checkpoint, and has it saved at the next step."""

    def __init__(self) -> None:
        self.wanted = False

    def on_step_end(self, args: Any, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        # the last step of an epoch waits for the epoch's own checkpoint: who resumes takes the epoch for done
        if self.wanted and state.epoch != round(state.epoch):
            control.should_save = True

    def on_save(self, args: Any, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        if self.wanted:
            raise KeyboardInterrupt
