"""What training does for PEFT methods that ask for more than gradient descent, one file each."""

from importlib import import_module
from typing import Any

from clear_peft.trainer.tuning.base import TunerTraining
from clear_peft.tuners.plans import GloraPlan, MetaPlan, RosaPlan, plan_of

__all__ = ["TunerTraining", "tuner_training"]

# imported when they are needed: not every version of peft has what they stand on
_TRAININGS = {
    RosaPlan: ("rosa", "RosaTraining"),
    MetaPlan: ("metapeft", "MetaTraining"),
    GloraPlan: ("glora", "GloraTraining"),
}


def tuner_training(trainer: Any) -> TunerTraining:
    """What a ``CleaRTrainer`` has to do for the PEFT method of its model."""
    plan = plan_of(trainer.model)
    if plan is None:
        return TunerTraining(trainer)
    module, name = _TRAININGS[type(plan)]
    made: TunerTraining = getattr(import_module(f"{__name__}.{module}"), name)(trainer)
    return made
