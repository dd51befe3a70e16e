"""A table in, a finished folder out; ``find_label_issues`` for what is in memory."""

from clear_peft.lazy import lazy_attributes

__all__ = ["find_label_issues"]

# importing a module of the same name would put it in the function's place
__getattr__ = lazy_attributes(__name__, {"find_label_issues": "clear_peft.pipeline.label_issues"})
