"""One options object in, a finished folder out; ``find_label_issues`` and the like for what is in memory."""

from clear_peft.lazy import lazy_attributes

__all__ = [
    "evaluate",
    "find_label_issues",
    "find_multilabel_issues",
    "find_response_issues",
    "find_token_issues",
    "load_run",
    "predict",
    "train",
]

# no module here may have the name of a function: importing it would put the module in the function's place
__getattr__ = lazy_attributes(
    __name__,
    {
        "evaluate": "clear_peft.pipeline.commands",
        "find_label_issues": "clear_peft.pipeline.label_issues",
        "find_multilabel_issues": "clear_peft.pipeline.multilabel",
        "find_response_issues": "clear_peft.pipeline.response_issues",
        "find_token_issues": "clear_peft.pipeline.token_issues",
        "load_run": "clear_peft.pipeline.inference",
        "predict": "clear_peft.pipeline.commands",
        "train": "clear_peft.pipeline.commands",
    },
)
