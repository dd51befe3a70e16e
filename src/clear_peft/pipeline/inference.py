"""A finished run, loaded to predict."""

import os
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from scipy.special import expit
from transformers import DataCollatorForTokenClassification, DataCollatorWithPadding

from clear_peft.baselines import get_method
from clear_peft.data import Examples, LabelNames, say_how_many_are_cut, tokenize
from clear_peft.data.tokens import how_many_are_cut
from clear_peft.data.word_tokens import NO_LABEL, SENTENCE_COLUMN
from clear_peft.errors import InputError
from clear_peft.hardware import bf16_pays, choose_device
from clear_peft.pipeline.models import load_classifier, load_tokenizer
from clear_peft.run_folder import layout
from clear_peft.run_folder.config import CONFIG_NAME, RunConfig
from clear_peft.trainer.columns import IdCollator, with_ids
from clear_peft.trainer.passes import predict_logits
from clear_peft.tuners import load_adapter

# texts of a forward at the most, and tokens: on a CPU twice as many tokens take a tenth longer each
_ROWS, _TOKENS = 64, 1 << 13


@dataclass(frozen=True)
class Run:
    """A finished run, loaded."""

    config: RunConfig
    names: LabelNames
    model: Any
    tokenizer: Any

    def logits(self, examples: Examples) -> np.ndarray:
        """Logits (N, C) float32 of examples, in their order; says how many texts are cut.

        Where words have labels, of all words, (W, C): of these none is cut.
        """
        tokens = tokenize(examples, self.tokenizer, self.config.max_length)
        say_how_many_are_cut(tokens, self.config.max_length, "texts")
        return _logits_of_tokens(self.model, self.tokenizer, tokens)

    def probabilities(self, examples: Examples) -> np.ndarray:
        """Probabilities (N, C) float32 of the classes of examples, not calibrated; see ``logits``.

        Of several labels a row, that each applies: they need not sum to 1.
        """
        return self._probabilities(self.logits(examples))

    def counted_probabilities(self, examples: Examples) -> tuple[np.ndarray, int]:
        """As ``probabilities``, with how many texts are cut, which is left to the caller to say."""
        tokens = tokenize(examples, self.tokenizer, self.config.max_length)
        logits = _logits_of_tokens(self.model, self.tokenizer, tokens)
        return self._probabilities(logits), how_many_are_cut(tokens)

    def _probabilities(self, logits: np.ndarray) -> np.ndarray:
        return expit(logits) if self.names.several else probabilities_of(logits)


def load_run(folder: str | os.PathLike[str], *, device: str = "auto", trust_remote_code: bool = False) -> Run:
    """Load a finished run from its folder.

    Args:
        folder: Run folder, which may come from a stranger.
        device: Where the model is put, as for ``clear_peft.hardware.choose_device``. Default ``auto``.
        trust_remote_code: Whether code that comes with the model may run; what ``config.yaml`` says does not
            count. Default False.

    Raises:
        InputError: If the folder holds no finished run, its pretrained model cannot be loaded, or there is no
            such device.
    """
    place = choose_device(device)
    config, names = layout.read_finished(folder)
    adapter = Path(folder) / layout.ADAPTER
    tokenizer = load_tokenizer(str(adapter), trust_remote_code=trust_remote_code)
    tuned = get_method(config.method).adapter
    base = config.model if tuned else str(adapter)
    try:
        loading = config.loading | {"device": place, "trust_remote_code": trust_remote_code}
        model = load_classifier(base, names, tokenizer, **loading, new_head=tuned)
    except InputError as error:
        config_file = Path(folder) / CONFIG_NAME
        hint = f"if the model has moved, write its place into {config_file}."
        raise InputError(f"{str(error).rstrip('.')}; {hint}") from error
    return Run(config, names, (load_adapter(model, adapter) if tuned else model).to(place), tokenizer)


def logits_of(model: Any, tokenizer: Any, examples: Examples, max_length: int) -> np.ndarray:
    """Logits (N, C) float32 of examples, in their order, on the device that the model is on.

    Where words have labels, of all words, (W, C).
    """
    return _logits_of_tokens(model, tokenizer, tokenize(examples, tokenizer, max_length))


def probabilities_of(logits: np.ndarray) -> np.ndarray:
    """Probabilities (N, C) float32 of the classes, not calibrated, of logits (N, C) float32."""
    return torch.softmax(torch.from_numpy(logits), dim=1).numpy()


def likeliest(probabilities: np.ndarray, top: int) -> tuple[np.ndarray, np.ndarray]:
    """Of probabilities (N, C): the largest of each row, (N, top), falling, and their classes, int64."""
    values, classes = torch.from_numpy(probabilities).topk(top, dim=1)
    return values.numpy(), classes.numpy()


def _logits_of_tokens(model: Any, tokenizer: Any, tokens: Any) -> np.ndarray:
    device = next(model.parameters()).device
    lengths, sizes = np.asarray(tokens["length"]), None
    collator: Any = DataCollatorWithPadding(tokenizer)
    unread = {"labels", "length", "cut"}
    if SENTENCE_COLUMN in tokens.column_names:  # labels say where words are
        sizes = np.array([sum(label != NO_LABEL for label in row) for row in tokens["labels"]])
        collator = DataCollatorForTokenClassification(tokenizer)
        unread = {"length", SENTENCE_COLUMN}
    dataset = with_ids(tokens.remove_columns([c for c in tokens.column_names if c in unread]))
    # a CPU does not mix the two kinds of half precision
    in_bf16 = bf16_pays(device.type) and model.dtype != torch.float16
    with torch.autocast(device.type, torch.bfloat16) if in_bf16 else nullcontext():
        return predict_logits(
            model,
            dataset,
            IdCollator(collator),
            batch_size=max(1, min(_ROWS, _TOKENS // int(lengths.max()))),
            lengths=lengths,
            sizes=sizes,
            prepare=lambda batch: {name: tensor.to(device) for name, tensor in batch.items()},
        ).numpy()
