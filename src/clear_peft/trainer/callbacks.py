"""When a trainer's turn is: callbacks that order what the loop of transformers leaves open."""

from typing import Any

from transformers import TrainerCallback, TrainerControl

from clear_peft.errors import InputError

_DUE = ("should_evaluate", "should_save")


class Turns(TrainerCallback):
    """Calls a trainer's own methods around training, epochs and steps.

    Args:
        trainer: With the methods of the names below.
    """

    def __init__(self, trainer: Any) -> None:
        self.trainer = trainer

    def on_train_begin(self, *_: Any, **more: Any) -> None:
        """Training begins, or goes on after a checkpoint."""
        # what is due at a step's end has to see what every other callback has ordered
        callbacks = self.trainer.callback_handler.callbacks
        callbacks.sort(key=lambda known: isinstance(known, WaitForEpochEnd))
        batches, together = len(more["train_dataloader"]), self.trainer.args.gradient_accumulation_steps
        if self.trainer.state.global_step == 0:
            self.trainer.tuning.begin()
        self.trainer.begin_training(steps_per_epoch=max(-(-batches // together), 1))

    def on_epoch_begin(self, *_: Any, **__: Any) -> None:
        """The evaluation and the checkpoint of the epoch before, if any, are over."""
        self.trainer.tuning.begin_epoch()
        self.trainer.begin_epoch()

    def on_step_begin(self, *_: Any, **__: Any) -> None:
        """The micro-batches of an optimizer step begin."""
        self.trainer.reading.done()
        self.trainer.guard.begin_step()
        self.trainer.tuning.begin_step()

    def on_optimizer_step(self, *_: Any, **__: Any) -> None:
        """The optimizer has taken a step."""
        self.trainer.weights.step()
        self.trainer.tuning.end_step()

    def on_epoch_end(self, *_: Any, **__: Any) -> None:
        """An epoch is over, and is still to be evaluated and saved. Not called again on resume."""
        self.trainer.end_epoch()

    def on_evaluate(self, args: Any, state: Any, control: TrainerControl, **_: Any) -> None:
        """The figures of an evaluation have been logged."""
        if self.trainer.selection.out_of_patience():
            control.should_training_stop = True

    def on_train_end(self, *_: Any, **__: Any) -> None:
        """The best model has been loaded, where that is asked for."""
        self.trainer.end_training()


class WaitForEpochEnd(TrainerCallback):
    """Lets what is due at the last step of an epoch wait until the epoch is over.

    A run that goes on from a checkpoint of that step would miss the end of the epoch otherwise.
    """

    def __init__(self) -> None:
        self._waiting: set[str] = set()

    def on_step_end(self, args: Any, state: Any, control: TrainerControl, **_: Any) -> None:
        """Every other callback has said what it wants."""
        if control.should_epoch_stop:
            raise InputError(
                "A callback stops an epoch before its end: let epochs have all their rows, and set max_steps "
                "or control.should_training_stop to end the training."
            )
        if float(state.epoch).is_integer():
            self._waiting = {due for due in _DUE if getattr(control, due)}
            for due in self._waiting:
                setattr(control, due, False)

    def on_epoch_end(self, args: Any, state: Any, control: TrainerControl, **_: Any) -> None:
        """Now it is due."""
        for due in self._waiting:
            setattr(control, due, True)
        self._waiting = set()
