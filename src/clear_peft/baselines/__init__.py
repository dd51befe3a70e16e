"""What else people try on noisy labels: one table of methods, and algorithms that are more than a loss."""

from clear_peft.baselines.methods import METHODS, Method, get_method

__all__ = ["METHODS", "Method", "get_method"]
