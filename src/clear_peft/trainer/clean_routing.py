"""Clean routing for another trainer: TRL's, or one's own."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import torch
from datasets import Dataset

from clear_peft.errors import InputError
from clear_peft.routing import Router
from clear_peft.trainer.columns import ID_COLUMN, IdCollator
from clear_peft.trainer.setup import check_processes, check_sharding

if TYPE_CHECKING:
    from transformers import Trainer as _Base
else:
    _Base = object

CLEAN_PROBABILITY_COLUMN = "clean_probability"


class CleanRouting(_Base):
    """Gates for a trainer of Hugging Face: doubtful rows are read, and teach the adapter little.

    It comes first among the bases, and the training set has a column ``clean_probability``::

        class RoutedSFTTrainer(CleanRouting, SFTTrainer): ...

        trainer = RoutedSFTTrainer(model, args, train_dataset=rows, peft_config=LoraConfig())

    In each training step the blocks of the adapter are open for a row with probability γ·p. Evaluation is as
    without it, and so is what is saved.

    Args:
        *args: As the other base takes them.
        max_gate_prob: γ in [0, 1]. Default 1: a row that is surely clean always passes.
        **kwargs: As the other base takes them; ``train_dataset`` must be among them.

    Attributes:
        router: The gates; ``router.detach()`` takes them out of the model.

    Raises:
        InputError: If the training set has no such column or is streamed, several rows are
            packed into one, or the model has no adapter that can be gated.
    """

    def __init__(self, *args: Any, max_gate_prob: float = 1.0, **kwargs: Any) -> None:
        dataset: Any = kwargs.get("train_dataset")
        p = _clean_probability(dataset)
        ids = np.arange(len(p))
        kwargs["train_dataset"] = dataset.remove_columns(CLEAN_PROBABILITY_COLUMN).add_column(ID_COLUMN, ids)
        super().__init__(*args, **kwargs)
        for name in ("packing", "padding_free"):
            if getattr(self.args, name, False):
                raise InputError(f"With {name} rows have no gates of their own: set {name}=False.")
        check_processes(self.args)
        check_sharding(self)
        self.clean_probability = torch.from_numpy(p).to(self.args.device, torch.float32)
        self.router = Router(self.model, max_gate_prob=max_gate_prob, seed=self.args.seed)
        self.data_collator: Any = IdCollator(self.data_collator)

    def _set_signature_columns_if_needed(self) -> None:
        super()._set_signature_columns_if_needed()
        known: Sequence[str] = self._signature_columns or []
        self._signature_columns: list[str] | None = list(dict.fromkeys([*known, ID_COLUMN]))

    def training_step(self, model: Any, inputs: dict[str, Any], *args: Any, **kwargs: Any) -> torch.Tensor:
        """Forward and backward of a batch through its gates."""
        ids = inputs.pop(ID_COLUMN).to(self.args.device)
        p, step = self.clean_probability[ids], self.state.global_step
        length = inputs["input_ids"].shape[1] if "input_ids" in inputs else None
        with self.router.route(p, example_ids=ids, step=step, sequence_length=length):
            return super().training_step(model, inputs, *args, **kwargs)


def _clean_probability(dataset: Any) -> npt.NDArray[np.float64]:
    """Of each row, (N,)."""
    if not isinstance(dataset, Dataset):
        kind = "no train_dataset" if dataset is None else f"a train_dataset of type {type(dataset).__name__}"
        raise InputError(f"There is {kind}: give a datasets.Dataset by that name.")
    if CLEAN_PROBABILITY_COLUMN not in dataset.column_names:
        raise InputError(
            f"The training set has no column {CLEAN_PROBABILITY_COLUMN}: add one, such as that of "
            "find_response_issues in the order of the rows."
        )
    p = np.asarray(dataset.with_format(None)[CLEAN_PROBABILITY_COLUMN][:], dtype=np.float64)
    if not ((p >= 0) & (p <= 1)).all():
        raise InputError(
            f"The column {CLEAN_PROBABILITY_COLUMN} holds more than numbers from 0 to 1: mend it."
        )
    return p
