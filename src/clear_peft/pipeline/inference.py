"""What a finished run can do: predict and be measured."""

import os
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from transformers import DataCollatorWithPadding

from clear_peft.baselines import get_method
from clear_peft.data import Examples, LabelNames, check_output, load_examples, tokenize, write_table
from clear_peft.errors import InputError
from clear_peft.hardware import bf16_pays
from clear_peft.pipeline.metrics import accuracy_and_f1
from clear_peft.pipeline.models import load_classifier, load_tokenizer
from clear_peft.run_folder import layout
from clear_peft.run_folder.config import CONFIG_NAME, RunConfig
from clear_peft.trainer.columns import IdCollator, with_ids
from clear_peft.trainer.passes import predict_logits
from clear_peft.tuners import load_adapter

_BATCH_SIZE = 64


@dataclass(frozen=True)
class Run:
    """A finished run, loaded."""

    config: RunConfig
    names: LabelNames
    model: Any
    tokenizer: Any

    def logits(self, examples: Examples) -> np.ndarray:
        """Logits (N, C) float32 of examples, in their order."""
        return logits_of(self.model, self.tokenizer, examples, self.config.max_length)


def load_run(folder: str | os.PathLike[str], *, trust_remote_code: bool = False) -> Run:
    """Load a finished run from its folder.

    Args:
        folder: Run folder, which may come from a stranger.
        trust_remote_code: Whether code that comes with the model may run; what ``config.yaml`` says does not
            count. Default False.

    Raises:
        InputError: If the folder holds no finished run, or its pretrained model cannot be loaded.
    """
    config, names = _finished(folder)
    adapter = Path(folder) / layout.ADAPTER
    tokenizer = load_tokenizer(str(adapter), trust_remote_code=trust_remote_code)
    tuned = get_method(config.method).adapter
    base = config.model if tuned else str(adapter)
    try:
        model = load_classifier(base, names, tokenizer, trust_remote_code=trust_remote_code, new_head=tuned)
    except InputError as error:
        config_file = Path(folder) / CONFIG_NAME
        hint = f"if the model has moved, write its place into {config_file}."
        raise InputError(f"{str(error).rstrip('.')}; {hint}") from error
    return Run(config, names, load_adapter(model, adapter) if tuned else model, tokenizer)


def _finished(folder: str | os.PathLike[str]) -> tuple[RunConfig, LabelNames]:
    config = RunConfig.load(folder)
    labels = Path(folder) / layout.ADAPTER / layout.LABELS
    if not labels.is_file():
        raise InputError(f"{folder} holds a run that is not finished: carry it on with train --resume.")
    return config, LabelNames.load(labels)


def logits_of(model: Any, tokenizer: Any, examples: Examples, max_length: int) -> np.ndarray:
    """Logits (N, C) float32 of examples, in their order, on the best device that there is."""
    device = "cuda" if torch.cuda.is_available() else "cpu"
    tokens = tokenize(examples, tokenizer, max_length)
    lengths = np.asarray(tokens["length"])
    dataset = with_ids(tokens.remove_columns([c for c in ("labels", "length") if c in tokens.column_names]))
    with torch.autocast(device, torch.bfloat16) if bf16_pays() else nullcontext():
        return predict_logits(
            model.to(device),
            dataset,
            IdCollator(DataCollatorWithPadding(tokenizer)),
            batch_size=_BATCH_SIZE,
            lengths=lengths,
            prepare=lambda batch: {name: tensor.to(device) for name, tensor in batch.items()},
        ).numpy()


def evaluate(
    folder: str | os.PathLike[str], data: str, *, trust_remote_code: bool = False
) -> dict[str, float]:
    """Accuracy and macro-F1 of a finished run on a table with right labels.

    Args:
        folder: Run folder.
        data: Table with the run's text and label columns.
        trust_remote_code: As for :func:`load_run`.

    Returns:
        ``accuracy``, ``macro_f1`` (fractions) and ``examples`` (their number).

    Raises:
        InputError: If the folder or the table is not what it should be.
    """
    config, names = _finished(folder)
    table = load_examples(data, text_column=config.text_column, label_column=config.label_column, names=names)
    examples = table.examples
    assert examples.labels is not None  # a label column was asked for
    predicted = load_run(folder, trust_remote_code=trust_remote_code).logits(examples).argmax(axis=1)
    return {**accuracy_and_f1(predicted, examples.labels), "examples": len(examples)}


def predict(
    folder: str | os.PathLike[str],
    data: str,
    output: str,
    *,
    overwrite: bool = False,
    trust_remote_code: bool = False,
) -> int:
    """Write a table with the columns of the input, ``predicted_label`` and ``confidence``.

    Args:
        folder: Run folder.
        data: Table with the run's text column.
        output: CSV, TSV, JSONL or Parquet file to write.
        overwrite: Whether it may be there already.
        trust_remote_code: As for :func:`load_run`.

    Returns:
        The number of rows.

    Raises:
        InputError: If the folder or the table is not what it should be, or the output cannot be written.
    """
    check_output(output, [data], overwrite=overwrite)
    config, _ = _finished(folder)
    table = load_examples(data, text_column=config.text_column, label_column=None)
    taken = {"predicted_label", "confidence"} & set(table.frame.columns)
    if taken:
        raise InputError(f"{data} has a column {' and '.join(sorted(taken))} already: rename it there.")
    run = load_run(folder, trust_remote_code=trust_remote_code)
    logits = torch.from_numpy(run.logits(table.examples))
    confidence, predicted = torch.softmax(logits, dim=1).max(dim=1)
    frame = table.frame.assign(
        predicted_label=[run.names.names[i] for i in predicted.tolist()],
        confidence=confidence.numpy().astype(np.float64).round(6),
    )
    write_table(frame, output)
    return len(frame)
