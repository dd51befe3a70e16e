"""The loop: score the training set, estimate which labels are right, route, step."""

from clear_peft.trainer.config import CleaRConfig, preset
from clear_peft.trainer.state import CleanlinessState
from clear_peft.trainer.trainer import CleaRTrainer

__all__ = ["CleaRConfig", "CleaRTrainer", "CleanlinessState", "preset"]
