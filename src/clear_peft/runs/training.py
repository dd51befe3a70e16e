"""From a table with doubtful labels to a run folder."""

import copy
import math
import tempfile
import time
from contextlib import nullcontext
from dataclasses import dataclass, fields, replace
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from transformers import PrinterCallback, set_seed
from transformers.trainer_callback import ProgressCallback

from clear_peft import training
from clear_peft.cleanliness import rank_label_issues
from clear_peft.data import (
    Examples,
    LabelNames,
    escape_formulas,
    hold_out,
    load_examples,
    tokenize,
    write_table,
)
from clear_peft.errors import InputError
from clear_peft.files import write_json
from clear_peft.methods import find
from clear_peft.objectives import cross_entropy
from clear_peft.runs import confident_learning
from clear_peft.runs import folder as run_folder
from clear_peft.runs.confident_learning import Findings
from clear_peft.runs.config import RunConfig
from clear_peft.runs.inference import logits_of
from clear_peft.runs.measures import accuracy_and_f1, detection, memorised, peak_memory
from clear_peft.runs.models import bf16_pays, check_length, load_classifier, load_tokenizer, silently
from clear_peft.runs.progress import Reporter, ReportTo, Silent, TestCurve, epoch_figures
from clear_peft.training import CleaRConfig, CleaRTrainer, preset
from clear_peft.training.indexing import CLEAN_LABEL_COLUMN
from clear_peft.training.trainer import BELIEVED_ACCURACY
from clear_peft.tuners import build


@dataclass(frozen=True)
class _Tables:
    """What a run reads: ``rows`` is the whole of the training file, of which the rest are parts."""

    names: LabelNames
    rows: Examples
    train: Examples
    validation: Examples
    held_out: Examples | None  # the validation rows that come from the training file
    test: Examples | None


@silently()
def train(
    config: RunConfig, *, resume: bool = False, overwrite: bool = False, reporter: Reporter | None = None
) -> dict[str, Any]:
    """Train, choose the epoch on the (noisy) validation rows, and write the run folder.

    Nothing is written before every input has been checked.

    Args:
        config: The run.
        resume: Carry on an interrupted run with the same configuration. Default False.
        overwrite: Whether the output may replace an earlier run. Default False.
        reporter: Told of the progress. Default: nobody.

    Returns:
        What ``metrics.json`` holds.

    Raises:
        InputError: If anything given is wrong; the sentence says what and how to mend it.
    """
    reporter = reporter or Silent()
    run_folder.check(config, resume=resume, overwrite=overwrite)
    reporter.stage(f"Reading {config.data}")
    tables = _read(config)
    reporter.stage(f"Loading {config.model}")
    set_seed(config.seed)
    tokenizer = load_tokenizer(config.model, trust_remote_code=config.trust_remote_code)
    base = load_classifier(config.model, tables.names, tokenizer, trust_remote_code=config.trust_remote_code)
    model = _tuned(config, base, len(tables.train))
    check_length(model, config.max_length)
    tokens = _tokens(config, tables, tokenizer)
    method = find(config.method)
    arguments = _arguments(config)
    if method.folds:
        confident_learning.check_installed()
    with nullcontext(Path(config.output)) if resume else run_folder.begin(config) as folder:
        started, found = time.perf_counter(), None
        if method.folds:
            found = _findings(config, tables, tokens, model, tokenizer, folder, reporter)
            tokens = _only(tokens, found.kept)
        trainer = _trainer(config, arguments, tokens, model, tokenizer, reporter)
        curve = _test_curve(config, tables, trainer, tokenizer)
        checkpoint = run_folder.last_checkpoint(folder) if resume else None
        reporter.stage(f"Training with {method.summary} on {len(tokens['train'])} rows")
        trainer.train(resume_from_checkpoint=checkpoint)
        seconds = time.perf_counter() - started - curve.seconds
        reporter.stage(f"Writing {folder}")
        return _finish(config, tables, trainer, tokenizer, folder, seconds, found)


def _read(config: RunConfig) -> _Tables:
    columns: dict[str, Any] = {"text_column": config.text_column, "label_column": config.label_column}
    table = load_examples(
        config.data, **columns, clean_label_column=config.clean_label_column, id_column=config.id_column
    )
    rows, names = table.examples, table.names
    assert names is not None  # a label column was asked for
    assert rows.labels is not None
    held_out = None
    if config.validation is not None:
        train = rows
        validation = load_examples(config.validation, **columns, names=names).examples
    else:
        kept, held = hold_out(rows.labels, config.validation_fraction, config.seed)
        train, validation = rows.select(kept), rows.select(held)
        held_out = validation
    test = None if config.test is None else load_examples(config.test, **columns, names=names).examples
    return _Tables(names, rows, train, validation, held_out, test)


def _tokens(config: RunConfig, tables: _Tables, tokenizer: Any) -> dict[str, Any]:
    parts = {"train": tables.train, "validation": tables.validation}
    if tables.test is not None:
        parts["test"] = tables.test  # needed only at the end, but what is wrong with it is said now
    tokens = {name: tokenize(examples, tokenizer, config.max_length) for name, examples in parts.items()}
    if tables.train.clean_labels is not None:
        tokens["train"] = tokens["train"].add_column(CLEAN_LABEL_COLUMN, tables.train.clean_labels)
    return tokens


def _tuned(config: RunConfig, base: Any, examples: int) -> Any:
    if not find(config.method).adapter:
        return base
    options = dict(config.peft_options)
    if config.peft == "adalora":
        options.setdefault("total_step", config.epochs * math.ceil(examples / config.batch_size))
    return build(base, config.peft, target_modules=config.target_modules, options=options)


def _arguments(config: RunConfig) -> CleaRConfig:
    settings: dict[str, Any] = {
        "output_dir": config.output,
        "num_train_epochs": config.epochs,
        "per_device_train_batch_size": config.batch_size,
        "per_device_eval_batch_size": 2 * config.batch_size,
        "learning_rate": config.peak_learning_rate,
        "warmup_steps": 0.06,
        "seed": config.seed,
        "bf16": bf16_pays(),
        "use_cpu": not torch.cuda.is_available(),
        "train_sampling_strategy": "group_by_length",
        "eval_strategy": "epoch",
        "save_strategy": "epoch",
        "logging_strategy": "epoch",
        "save_total_limit": 1,
        "load_best_model_at_end": True,
        "metric_for_best_model": "accuracy",
        "greater_is_better": True,
        "report_to": "none",
        "dataloader_pin_memory": torch.cuda.is_available(),
    }
    settings |= {**preset(config.preset, config.peft), **find(config.method).settings, **config.training}
    if settings.get("clean_routing", True) and settings.get("fresh_start", True):
        # a tenth of the rows, many labels wrong: counting those that are believed tells epochs apart better
        settings["metric_for_best_model"] = BELIEVED_ACCURACY
    unknown = settings.keys() - {setting.name for setting in fields(CleaRConfig) if setting.init}
    if unknown:
        raise InputError(f"CleaRConfig has no {', '.join(sorted(unknown))}: mend what training holds.")
    return CleaRConfig(**settings)


def _trainer(
    config: RunConfig,
    arguments: CleaRConfig,
    tokens: dict[str, Any],
    model: Any,
    tokenizer: Any,
    reporter: Reporter,
) -> CleaRTrainer:
    trainer: CleaRTrainer = getattr(training, find(config.method).trainer)(
        model=model,
        args=arguments,
        train_dataset=tokens["train"],
        eval_dataset=tokens["validation"],
        processing_class=tokenizer,
        compute_metrics=lambda e: accuracy_and_f1(e.predictions.argmax(axis=1), e.label_ids),
        callbacks=[ReportTo(reporter)],
    )
    for callback in (PrinterCallback, ProgressCallback):
        trainer.remove_callback(callback)
    return trainer


def _only(tokens: dict[str, Any], rows: np.ndarray) -> dict[str, Any]:
    """The same tables with some of the training rows: copied, as select would copy later, and show a bar."""
    train = tokens["train"]
    return {**tokens, "train": train.from_dict(train[rows], features=train.features)}


def _findings(
    config: RunConfig,
    tables: _Tables,
    tokens: dict[str, Any],
    model: Any,
    tokenizer: Any,
    folder: Path,
    reporter: Reporter,
) -> Findings:
    """Confident learning on the training rows, by models like the one that is trained in the end."""
    labels = tables.train.labels
    assert labels is not None

    def train_and_predict(rows: np.ndarray, held: np.ndarray) -> np.ndarray:
        with tempfile.TemporaryDirectory() as scratch:
            arguments = _arguments(replace(config, output=scratch))
            trainer = _trainer(
                config, arguments, _only(tokens, rows), copy.deepcopy(model), tokenizer, reporter
            )
            trainer.train()
        return logits_of(trainer.model, tokenizer, tables.train.select(held), config.max_length)

    logits = confident_learning.out_of_sample_logits(
        labels,
        find(config.method).folds,
        config.seed,
        train_and_predict,
        folder / run_folder.OUT_OF_SAMPLE,
        reporter,
    )
    return confident_learning.find_issues(labels, logits)


def _test_curve(config: RunConfig, tables: _Tables, trainer: CleaRTrainer, tokenizer: Any) -> TestCurve:
    def measure() -> dict[str, float]:
        assert tables.test is not None  # the configuration has been checked
        return _measured(trainer.model, tokenizer, tables.test, config.max_length)

    curve = TestCurve(measure)
    if config.test_every_epoch:
        trainer.add_callback(curve)
    return curve


def _measured(model: Any, tokenizer: Any, examples: Examples, max_length: int) -> dict[str, float]:
    assert examples.labels is not None
    logits = logits_of(model, tokenizer, examples, max_length)
    return accuracy_and_f1(logits.argmax(axis=1), examples.labels)


def _finish(
    config: RunConfig,
    tables: _Tables,
    trainer: CleaRTrainer,
    tokenizer: Any,
    folder: Path,
    seconds: float,
    found: Findings | None,
) -> dict[str, Any]:
    model = trainer.model

    def write(adapter: Path) -> None:
        model.save_pretrained(adapter)
        tokenizer.save_pretrained(adapter)
        tables.names.save(adapter / run_folder.LABELS)

    def measured(examples: Examples) -> dict[str, float]:
        return _measured(model, tokenizer, examples, config.max_length)

    issues = _label_issues(config, tables, trainer, tokenizer, found)
    peak = peak_memory()
    metrics: dict[str, Any] = {
        "test": None if tables.test is None else measured(tables.test),
        "validation": measured(tables.validation),
        "selected_epoch": round(_selected_epoch(trainer)),
        "epochs": epoch_figures(trainer.state.log_history),
        "noise_rate_estimate": float(
            1 - issues["clean_probability"].mean() if found is None else found.is_issue.mean()
        ),
    }
    given, true = tables.rows.labels, tables.rows.clean_labels
    if given is not None and true is not None:
        wrong = given != true
        metrics["detection"] = detection(issues, wrong)
        learnt = issues[issues["split"] == "train"]
        if found is not None:  # the list holds what models predict that have not seen the row
            predicted = logits_of(model, tokenizer, tables.train, config.max_length).argmax(axis=1)
            columns = {"row": tables.train.rows, "given_label": tables.train.labels}
            learnt = pd.DataFrame({**columns, "predicted_label": predicted})
        metrics["memorised"] = memorised(learnt, wrong)
    metrics |= {
        "train_seconds": seconds,
        "peak_memory_bytes": peak,
        "method": config.method,
        "peft": config.peft if find(config.method).adapter else None,
        "seed": config.seed,
        "versions": {n: version(n) for n in ("clear-peft", "torch", "transformers", "peft", "scikit-learn")},
    }
    run_folder.save_adapter(folder, write)
    write_table(escape_formulas(issues), folder / run_folder.LABEL_ISSUES)
    write_json(folder / run_folder.METRICS, metrics)  # last: its presence says that the run is finished
    return metrics


def _selected_epoch(trainer: CleaRTrainer) -> float:
    best = trainer.state.best_global_step
    return next(e["epoch"] for e in trainer.state.log_history if e["step"] == best)


def _label_issues(
    config: RunConfig, tables: _Tables, trainer: CleaRTrainer, tokenizer: Any, found: Findings | None
) -> pd.DataFrame:
    """Every row of the training file, the held-out ones too, most suspicious first."""
    if found is None:
        state = trainer.cleanliness
        scored = (state.losses, state.clean_probability, state.teacher.argmax(axis=1))
    else:
        scored = (found.losses, found.quality, found.predicted)
    examples, parts = [tables.train], [scored]
    if tables.held_out is not None:
        logits = torch.from_numpy(logits_of(trainer.model, tokenizer, tables.held_out, config.max_length))
        losses = cross_entropy(logits, torch.from_numpy(tables.held_out.labels)).numpy()
        order = np.argsort(scored[0])
        believed = np.interp(losses, scored[0][order], scored[1][order])
        examples.append(tables.held_out)
        parts.append((losses, believed.astype(np.float32), logits.argmax(dim=1).numpy()))
    losses, probability, predicted = (np.concatenate(columns) for columns in zip(*parts, strict=True))
    issues = rank_label_issues(
        probability,
        losses,
        given=np.concatenate([e.labels for e in examples]),
        predicted=predicted,
        names=tables.names.names,
    )
    if found is not None:
        inside = issues["row"] < len(tables.train)
        issues.loc[inside, "is_label_issue"] = found.is_issue[issues.loc[inside, "row"]]
    rows = np.concatenate([e.rows for e in examples])[issues["row"]]
    issues["row"] = rows
    issues.insert(1, "text", [tables.rows.texts[row] for row in rows])
    if tables.rows.ids is not None:
        issues["id"] = [tables.rows.ids[row] for row in rows]
    held = set() if tables.held_out is None else set(tables.held_out.rows.tolist())
    issues["split"] = ["validation" if row in held else "train" for row in rows]
    return issues
