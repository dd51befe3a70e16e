"""Parameter-efficient fine-tuning of Hugging Face models on labels that cannot be trusted."""

from importlib.metadata import version

from clear_peft.errors import InputError
from clear_peft.lazy import lazy_attributes

__version__ = version("clear-peft")
__all__ = [
    "CleaRClassifier",
    "CleaRConfig",
    "CleaRTrainer",
    "CleanRouting",
    "InputError",
    "LabelQuality",
    "MultilabelQuality",
    "Router",
    "__version__",
    "find_label_issues",
    "find_multilabel_issues",
    "find_response_issues",
    "find_token_issues",
    "preset",
    "tokenize_words",
]
__getattr__ = lazy_attributes(
    __name__,
    {
        "CleaRClassifier": "clear_peft.classifier",
        "CleaRConfig": "clear_peft.trainer",
        "CleaRTrainer": "clear_peft.trainer",
        "CleanRouting": "clear_peft.trainer",
        "LabelQuality": "clear_peft.label_quality",
        "MultilabelQuality": "clear_peft.label_quality",
        "Router": "clear_peft.routing",
        "find_label_issues": "clear_peft.pipeline",
        "find_multilabel_issues": "clear_peft.pipeline",
        "find_response_issues": "clear_peft.pipeline",
        "find_token_issues": "clear_peft.pipeline",
        "preset": "clear_peft.trainer",
        "tokenize_words": "clear_peft.data.word_tokens",
    },
)
