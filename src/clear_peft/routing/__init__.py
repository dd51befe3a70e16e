"""Clean routing: clean probabilities in, per-example and per-block gates on a PEFT model out."""

from clear_peft.routing.gates import draw_gates
from clear_peft.routing.router import Router, detach

__all__ = ["Router", "detach", "draw_gates"]
