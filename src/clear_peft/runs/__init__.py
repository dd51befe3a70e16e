"""A table in, a run folder out; and from a run folder predictions and scores."""

from clear_peft.lazy import lazy_attributes
from clear_peft.runs.config import RunConfig

__all__ = ["RunConfig", "evaluate", "load_run", "predict", "train"]

# no module here may have the name of a function: importing it would put the module in the function's place
__getattr__ = lazy_attributes(
    __name__,
    {
        "evaluate": "clear_peft.runs.inference",
        "load_run": "clear_peft.runs.inference",
        "predict": "clear_peft.runs.inference",
        "train": "clear_peft.runs.training",
    },
)
