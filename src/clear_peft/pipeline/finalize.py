"""What a run has found out, written into its folder when training is over."""

from contextlib import suppress
from dataclasses import asdict, replace
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from scipy.special import softmax

from clear_peft.audit import audit
from clear_peft.baselines import get_method
from clear_peft.baselines.confident_learning import Findings
from clear_peft.data import Examples, LabelNames, escape_formulas, write_table
from clear_peft.data.token_rows import Sentences, first_words
from clear_peft.errors import InputError
from clear_peft.files import atomic_write, write_json
from clear_peft.label_quality import LabelQuality, MultilabelQuality, label_quality_from_pred_probs
from clear_peft.pipeline.inference import logits_of, probabilities_of
from clear_peft.pipeline.judge import sources_of, what_to_label_next
from clear_peft.pipeline.metrics import detection, measures, memorised, peak_memory
from clear_peft.pipeline.multilabel import estimates_of, listed_labels
from clear_peft.pipeline.progress import epoch_figures, number_of_epoch
from clear_peft.pipeline.splits import Tables
from clear_peft.pipeline.token_issues import listed_spans
from clear_peft.report import RunRecord
from clear_peft.report.card import model_card
from clear_peft.report.run import save_report
from clear_peft.run_folder import layout
from clear_peft.run_folder.config import RunConfig
from clear_peft.run_folder.quality_file import save_label_quality
from clear_peft.trainer import CleaRTrainer, Phase
from clear_peft.trainer.estimate import Quality
from clear_peft.trainer.spans import SpanScheme, word_figures


def write_outcome(
    config: RunConfig,
    tables: Tables,
    trainer: CleaRTrainer,
    tokenizer: Any,
    folder: Path,
    seconds: float,
    quality: Quality,
    cut: dict[str, int],
) -> dict[str, Any]:
    """Measure the trained model, and write it all.

    Args:
        config: The run.
        tables: What it has read.
        trainer: After training.
        tokenizer: The model's.
        folder: Run folder.
        seconds: What training took.
        quality: Of the rows of the training table.
        cut: How many texts of each table are longer than the model reads.

    Returns:
        What ``metrics.json`` holds.
    """
    issues, model = list_of_issues(quality, tables), trainer.model

    def write(adapter: Path) -> None:
        model.save_pretrained(adapter)
        tokenizer.save_pretrained(adapter)
        names.save(adapter / layout.LABELS)
        atomic_write(adapter / layout.CARD, model_card(record, names.names))  # over peft's own

    def on(examples: Examples) -> dict[str, float]:
        return measured(model, tokenizer, examples, config.max_length)

    peak = peak_memory(trainer.args.device.type)
    metrics: dict[str, Any] = {
        "test": None if tables.test is None else on(tables.test),
        "validation": on(tables.validation),
        **facts_of(config, tables, trainer, quality),
        **_sources(config, tables, quality),
        "cut_texts": cut,
        "leaks": tables.leaks,
    }
    given, true = tables.rows.labels, tables.rows.clean_labels
    if given is not None and true is not None:
        wrong = np.zeros(len(tables.groups), bool)
        wrong[tables.rows.rows] = given != true
        metrics["detection"] = detection(issues, wrong)
        # the list may hold what others predict
        predicted = logits_of(model, tokenizer, tables.train, config.max_length).argmax(axis=1)
        columns = {"row": tables.train.rows, "given_label": tables.train.labels}
        metrics["memorised"] = memorised(pd.DataFrame({**columns, "predicted_label": predicted}), wrong)
    metrics |= {"train_seconds": seconds, "peak_memory_bytes": peak}
    noise_found, names = has_found_noise(trainer), tables.names
    found_wrong = None
    if names.one_a_row and isinstance(quality, LabelQuality):
        found_wrong = audit(issues, quality, names.names, noise_found=noise_found)
    record = RunRecord(folder.resolve().name, asdict(config), metrics["epochs"], metrics, found_wrong)
    layout.save_adapter(folder, write)
    write_table(escape_formulas(issues), folder / layout.LABEL_ISSUES)
    if tables.unlabelled is not None:
        logits = logits_of(model, tokenizer, tables.unlabelled, config.max_length)
        left = probabilities_of(logits)
        listed = what_to_label_next(tables.unlabelled, left.max(axis=1), left.argmax(axis=1), tables.names)
        write_table(escape_formulas(listed), folder / layout.UNLABELLED)
    if names.one_a_row and isinstance(quality, LabelQuality):
        save_label_quality(folder / layout.LABEL_QUALITY, quality, names.names, noise_found=noise_found)
    write_json(folder / layout.METRICS, metrics)  # last: its presence says that the run is finished
    if names.one_a_row:  # of others there is no report
        with suppress(InputError):  # clear-peft report says what is wrong
            save_report(record, folder / layout.REPORT)
    return metrics


def facts_of(config: RunConfig, tables: Tables, trainer: CleaRTrainer, quality: Quality) -> dict[str, Any]:
    """What is known of a training without measuring anything; arguments as for ``write_outcome``."""
    args = trainer.args
    return {
        "rows_per_step": args.train_batch_size * args.gradient_accumulation_steps * args.world_size,
        "selected_epoch": number_of_epoch(_selected_epoch(trainer)),
        "epochs": epoch_figures(trainer.state.log_history),
        **_estimates(quality, tables.names),
        "rows": {
            "train": len(tables.train),
            "validation": len(tables.validation),
            "test": None if tables.test is None else len(tables.test),
            **({} if tables.unlabelled is None else {"unlabelled": len(tables.unlabelled)}),
        },
        "method": config.method,
        "peft": config.peft if get_method(config.method).adapter else None,
        **_not_quantized(trainer.model),
        "seed": config.seed,
        "training": args.own,
        "versions": {n: version(n) for n in ("clear-peft", "torch", "transformers", "peft", "scikit-learn")},
    }


def _estimates(quality: Quality, names: LabelNames) -> dict[str, Any]:
    """How many labels are wrong."""
    if isinstance(quality, MultilabelQuality):
        return estimates_of(quality, names)
    if names.words:  # an interval would take the words of a sentence for independent
        return {"labels_of_words": True, "words": len(quality), "noise_rate_estimate": quality.noise_rate}
    return {"noise_rate_estimate": quality.noise_rate, "noise_rate_interval": quality.noise_rate_interval}


def _sources(config: RunConfig, tables: Tables, quality: Quality) -> dict[str, Any]:
    """What share of the labels of each source is right, where there are several."""
    if isinstance(quality, MultilabelQuality) or tables.names.words:
        return {}
    return sources_of(
        tables.rows, quality, config.annotator_column or config.label_column, config.opinion_column
    )


def _not_quantized(model: Any) -> dict[str, list[str]]:
    """What is not, of a quantized base model: whoever loads it again has to say so."""
    how = getattr(model.config, "quantization_config", None)
    return {} if how is None else {"not_quantized": how.llm_int8_skip_modules}


def has_found_noise(trainer: CleaRTrainer) -> bool:
    """Whether training went on with soft labels."""
    return trainer.phase is Phase.ROBUST and trainer.args.soft_labels


def measured(model: Any, tokenizer: Any, examples: Examples, max_length: int) -> dict[str, float]:
    """``measures`` on examples with labels; where words have them, ``word_figures``."""
    assert examples.labels is not None
    logits = logits_of(model, tokenizer, examples, max_length)
    if examples.words is None:
        return measures(logits, examples.labels)
    names = [model.config.id2label[i] for i in range(logits.shape[1])]
    labels, first = np.concatenate(examples.labels), first_words(examples.words)
    return word_figures(logits.argmax(axis=1), labels, first, SpanScheme.of(names))


def _selected_epoch(trainer: CleaRTrainer) -> float:
    best = trainer.state.best_global_step
    epochs = (e["epoch"] for e in trainer.state.log_history if e["step"] == best)
    return next(epochs, trainer.state.epoch)  # the last one, where none was selected


def quality_of_rows(
    config: RunConfig, tables: Tables, trainer: CleaRTrainer, tokenizer: Any, found: Findings | None
) -> Quality:
    """Which labels of the training table look right, in its order: of the held-out rows too.

    Called by every process: a pass over the rows, where none has been made yet, is shared out. Arguments as
    for ``write_outcome``.
    """
    if found is None:
        found_by_trainer: Quality = trainer.label_quality
        return found_by_trainer
    parts, unseen = [tables.train], [found.logits]
    if tables.held_out is not None:
        parts.append(tables.held_out)
        unseen.append(logits_of(trainer.model, tokenizer, tables.held_out, config.max_length))
    row = np.concatenate([part.rows for part in parts])
    order = np.argsort(row)
    given = np.concatenate([part.labels for part in parts])[order]
    pred_probs = softmax(np.concatenate(unseen)[order].astype(np.float64), axis=1)
    rows = row[order]
    return replace(label_quality_from_pred_probs(pred_probs, given, groups=tables.groups[rows]), row=rows)


def list_of_issues(quality: Quality, tables: Tables) -> pd.DataFrame:
    """The rows of the training table, most suspicious first, as ``label_issues.csv`` has them.

    Of several labels a row, a line for each label, as a scan has them, and the id of the row if it has one;
    of labels of words so are spans.
    """
    if isinstance(quality, LabelQuality) and tables.rows.words is not None:
        words = tables.rows.words
        assert tables.rows.labels is not None
        issues = listed_spans(quality, Sentences(words, np.concatenate(tables.rows.labels), tables.names))
        if tables.rows.ids is not None:
            issues["id"] = np.array(tables.rows.ids, dtype=object)[issues["row"]]
        return issues
    if isinstance(quality, MultilabelQuality):
        return listed_labels(quality, tables.rows, tables.names)
    issues = quality.issues(tables.names.names).drop(columns="group")
    rows = issues["row"].to_numpy()
    listed = tables.rows.select(np.searchsorted(tables.rows.rows, rows))
    issues.insert(1, "text", listed.texts)
    if listed.ids is not None:
        issues["id"] = listed.ids
    issues["split"] = np.where(np.isin(rows, tables.train.rows), "train", "validation")
    return issues
