"""What a run has found out, written into its folder when training is over."""

import json
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import asdict
from importlib.metadata import version
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from safetensors.numpy import save
from scipy.special import softmax

from clear_peft.audit import audit
from clear_peft.baselines import get_method
from clear_peft.baselines.confident_learning import Findings
from clear_peft.data import Examples, escape_formulas, write_table
from clear_peft.errors import InputError
from clear_peft.files import atomic_write, write_json
from clear_peft.label_quality import TopProbs, label_quality_from_pred_probs, rank_label_issues
from clear_peft.pipeline.inference import logits_of
from clear_peft.pipeline.metrics import accuracy_and_f1, detection, memorised, peak_memory
from clear_peft.pipeline.progress import epoch_figures
from clear_peft.pipeline.splits import Tables
from clear_peft.report import RunRecord
from clear_peft.report.card import model_card
from clear_peft.report.run import save_report
from clear_peft.run_folder import layout
from clear_peft.run_folder.config import RunConfig
from clear_peft.trainer import CleaRTrainer
from clear_peft.trainer.teacher import Teacher

_CHUNK = 1 << 14


class Judged(NamedTuple):
    """What is known of the labels of every row of the training file.

    Attributes:
        issues: The list, most suspicious first.
        probabilities: Class probabilities by whom the list comes from, in the file's order.
        noise_rate_interval: Of the noise rate; None where no noise model was fitted.
    """

    issues: pd.DataFrame
    probabilities: TopProbs
    noise_rate_interval: tuple[float, float] | None


def write_outcome(
    config: RunConfig,
    tables: Tables,
    trainer: CleaRTrainer,
    tokenizer: Any,
    folder: Path,
    seconds: float,
    found: Findings | None,
    judged: Judged,
) -> dict[str, Any]:
    """Measure the trained model, and write it all.

    Args:
        config: The run.
        tables: What it has read.
        trainer: After training.
        tokenizer: The model's.
        folder: Run folder.
        seconds: What training took.
        found: What confident learning has found, where that is the method.
        judged: What ``judge_rows`` returns.

    Returns:
        What ``metrics.json`` holds.
    """
    issues, probabilities, interval = judged
    model = trainer.model

    def write(adapter: Path) -> None:
        model.save_pretrained(adapter)
        tokenizer.save_pretrained(adapter)
        tables.names.save(adapter / layout.LABELS)
        atomic_write(adapter / layout.CARD, model_card(record, tables.names.names))  # over peft's own

    def on(examples: Examples) -> dict[str, float]:
        return measured(model, tokenizer, examples, config.max_length)

    peak = peak_memory()
    metrics: dict[str, Any] = {
        "test": None if tables.test is None else on(tables.test),
        "validation": on(tables.validation),
        "selected_epoch": round(_selected_epoch(trainer)),
        "epochs": epoch_figures(trainer.state.log_history),
        "noise_rate_estimate": float(1 - issues["clean_probability"].mean()),
        "rows": {
            "train": len(tables.train),
            "validation": len(tables.validation),
            "test": None if tables.test is None else len(tables.test),
        },
    }
    given, true = tables.rows.labels, tables.rows.clean_labels
    if given is not None and true is not None:
        wrong = given != true
        metrics["detection"] = detection(issues, wrong)
        # the list may hold what others predict
        predicted = logits_of(model, tokenizer, tables.train, config.max_length).argmax(axis=1)
        columns = {"row": tables.train.rows, "given_label": tables.train.labels}
        metrics["memorised"] = memorised(pd.DataFrame({**columns, "predicted_label": predicted}), wrong)
    metrics |= {
        "train_seconds": seconds,
        "peak_memory_bytes": peak,
        "method": config.method,
        "peft": config.peft if get_method(config.method).adapter else None,
        "seed": config.seed,
        "training": trainer.args.own,
        "versions": {n: version(n) for n in ("clear-peft", "torch", "transformers", "peft", "scikit-learn")},
    }
    source = trainer.judge if found is None else "out_of_sample"
    about = {
        "labels": tables.names.names,
        "source": source,
        "doubted": trainer.doubted,
        "noise_rate_interval": interval,
    }
    found_wrong = audit(
        issues,
        probabilities,
        tables.names.names,
        source=source,
        doubted=trainer.doubted,
        noise_rate_interval=interval,
    )
    record = RunRecord(folder.resolve().name, asdict(config), metrics["epochs"], metrics, found_wrong)
    layout.save_adapter(folder, write)
    write_table(escape_formulas(issues), folder / layout.LABEL_ISSUES)
    atomic_write(folder / layout.PREDICTIONS, save(probabilities.arrays(), {"clear": json.dumps(about)}))
    write_json(folder / layout.METRICS, metrics)  # last: its presence says that the run is finished
    with suppress(InputError):  # clear-peft report says what is wrong
        save_report(record, folder / layout.REPORT)
    return metrics


def measured(model: Any, tokenizer: Any, examples: Examples, max_length: int) -> dict[str, float]:
    """Accuracy and macro-F1 on examples with labels."""
    assert examples.labels is not None
    logits = logits_of(model, tokenizer, examples, max_length)
    return accuracy_and_f1(logits.argmax(axis=1), examples.labels)


def _selected_epoch(trainer: CleaRTrainer) -> float:
    best = trainer.state.best_global_step
    epochs = (e["epoch"] for e in trainer.state.log_history if e["step"] == best)
    return next(epochs, trainer.state.epoch)  # the last one, where none was selected


def judge_rows(
    config: RunConfig, tables: Tables, trainer: CleaRTrainer, tokenizer: Any, found: Findings | None
) -> Judged:
    """The list of label issues, and what it comes from.

    Of every row of the training file, the held-out ones too. Called by every process: a pass over the rows,
    where none has been made yet, is shared out. Arguments as for ``write_outcome``.
    """
    examples = [tables.train] if tables.held_out is None else [tables.train, tables.held_out]
    given = np.concatenate([e.labels for e in examples])
    places = np.concatenate([e.rows for e in examples])
    names = tables.names.names
    if found is None:
        state, interval = trainer.cleanliness, trainer.cleanliness.parameters.get("noise_rate_interval")
        losses, probability, teachers = state.losses, state.clean_probability, [state.teacher]
        if tables.held_out is not None:
            losses = np.concatenate([losses, state.validation_losses])
            probability = np.concatenate([probability, state.validation_probability])
            teachers.append(state.validation_teacher)
        probabilities = TopProbs.concatenate([part for teacher in teachers for part in _top_probs(teacher)])
        issues = rank_label_issues(
            probability, losses, given=given, predicted=probabilities.predicted, names=names
        )
    else:
        unseen = found.logits
        if tables.held_out is not None:
            held = logits_of(trainer.model, tokenizer, tables.held_out, config.max_length)
            unseen = np.concatenate([unseen, held])
        quality = label_quality_from_pred_probs(
            softmax(unseen.astype(np.float64), axis=1), given, groups=tables.groups[places]
        )
        issues, interval = quality.issues(names).drop(columns="group"), quality.noise_rate_interval
        probabilities = quality.pred_probs
    rows = places[issues["row"]]
    issues["row"] = rows
    issues.insert(1, "text", [tables.rows.texts[row] for row in rows])
    if tables.rows.ids is not None:
        issues["id"] = [tables.rows.ids[row] for row in rows]
    issues["split"] = np.where(np.isin(rows, tables.train.rows), "train", "validation")
    return Judged(issues, probabilities[places.argsort()], None if interval is None else tuple(interval))


def _top_probs(teacher: Teacher) -> Iterator[TopProbs]:
    """What it predicts, part by part: all classes of all rows are never held together."""
    for start in range(0, len(teacher), _CHUNK):
        yield TopProbs.of(teacher.probabilities(slice(start, start + _CHUNK)).cpu().numpy())
