"""What a method is."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Method:
    """A way to train on doubtful labels, on the loop that all methods share.

    Attributes:
        name: Its name on the command line.
        summary: What it does, in a few words.
        adapter: Whether it trains a PEFT adapter; otherwise the whole model.
        settings: What it sets in ``CleaRConfig``, over the preset.
    """

    name: str
    summary: str
    adapter: bool
    settings: Mapping[str, Any]
