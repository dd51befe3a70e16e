"""``CleaRTrainer``: warm up, estimate which labels are right, restart, route."""

from clear_peft.trainer.clean_routing import CleanRouting
from clear_peft.trainer.config import CleaRConfig, preset
from clear_peft.trainer.estimate import Estimate
from clear_peft.trainer.phases import Phase
from clear_peft.trainer.trainer import CleaRTrainer

__all__ = ["CleaRConfig", "CleaRTrainer", "CleanRouting", "Estimate", "Phase", "preset"]
