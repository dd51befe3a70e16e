"""What a method is."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True, kw_only=True)
class Method:
    """A way to train on doubtful labels, on the loop that all methods share.

    Attributes:
        name: Its name on the command line.
        summary: What it does, in a few words.
        adapter: Whether it trains a PEFT adapter; otherwise the whole model.
        settings: What it sets in ``CleaRConfig``, over the preset.
        trainer: The class in ``clear_peft.training`` that runs it.
        folds: Parts of the training rows that are predicted by models that have not seen them, before the
            final training on the rows whose labels those models do not contradict; 0: none.
        needs: What it takes besides the data and one training run, for the tables that compare methods.
        needs_noise_rate: Whether it has to be told the noise rate, as ``objective_options: {noise_rate: …}``.
    """

    name: str
    summary: str
    adapter: bool = True
    settings: Mapping[str, Any] = field(default_factory=lambda: {"clean_routing": False})
    trainer: str = "CleaRTrainer"
    folds: int = 0
    needs: str = ""
    needs_noise_rate: bool = False
