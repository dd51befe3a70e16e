"""The loop: score the training set, estimate which labels are right, route, step."""

from clear_peft.training.co_teaching import CoTeachingTrainer
from clear_peft.training.config import CleaRConfig, preset
from clear_peft.training.selfmix import SelfMixTrainer
from clear_peft.training.state import CleanlinessState
from clear_peft.training.trainer import CleaRTrainer

__all__ = ["CleaRConfig", "CleaRTrainer", "CleanlinessState", "CoTeachingTrainer", "SelfMixTrainer", "preset"]
