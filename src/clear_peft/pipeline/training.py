"""From a table with doubtful labels to a run folder."""

import copy
import math
import tempfile
import time
import warnings
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, get_type_hints

import numpy as np
import torch
from transformers import EvalPrediction, PrinterCallback, set_seed
from transformers.trainer_callback import ProgressCallback

from clear_peft.baselines import confident_learning, get_method
from clear_peft.baselines.confident_learning import Findings
from clear_peft.data import Examples, say_how_many_are_cut, tokenize
from clear_peft.data.word_tokens import SENTENCE_COLUMN
from clear_peft.errors import ClearWarning, InputError
from clear_peft.files import write_json
from clear_peft.hardware import choose_device
from clear_peft.pipeline import distributed
from clear_peft.pipeline.finalize import measured, quality_of_rows, write_outcome
from clear_peft.pipeline.inference import logits_of
from clear_peft.pipeline.interrupts import saving_first
from clear_peft.pipeline.loggers import check_loggers, keep_logs
from clear_peft.pipeline.metrics import measures
from clear_peft.pipeline.models import check_length, load_classifier, load_tokenizer
from clear_peft.pipeline.progress import Diary, Reporter, ReportTo, Silent, TestCurve
from clear_peft.pipeline.splits import Tables
from clear_peft.report.run import write_report
from clear_peft.run_folder import layout
from clear_peft.run_folder.config import RunConfig
from clear_peft.run_folder.option import check_type
from clear_peft.run_folder.training_settings import check_training
from clear_peft.surroundings import check_single_process
from clear_peft.trainer import CleaRConfig, CleaRTrainer, preset
from clear_peft.trainer.columns import (
    CLEAN_LABEL_COLUMN,
    GROUP_COLUMN,
    ROW_COLUMN,
    VERIFIED_COLUMN,
    VOTES_COLUMN,
)
from clear_peft.trainer.compat import CHECKPOINTING
from clear_peft.trainer.words import WordLabels
from clear_peft.tuners import build
from clear_peft.tuners.anatomy import labels_tokens

# what compares epochs where rows have several labels
_IN_PLACE_OF = {"accuracy": "micro_f1", "weighted_accuracy": "weighted_micro_f1"}
_TYPES = get_type_hints(CleaRConfig)
_CHECKED = [kind for of in (str, int, float, bool) for kind in (of, of | None)]


def train_on(
    config: RunConfig, tables: Tables, *, resume: bool = False, reporter: Reporter | None = None
) -> dict[str, Any] | None:
    """:func:`clear_peft.pipeline.train`, once its tables are read and its output is checked."""
    distributed.check_whole_weights()
    arguments = arguments_of(config, several=tables.names.several)
    reporter = reporter if reporter is not None and distributed.is_main_process() else Silent()
    check_loggers(arguments.report_to)
    _say_if_nothing_follows(arguments)
    reporter.stage(f"Loading {config.model}")
    set_seed(config.seed)
    tokenizer = load_tokenizer(
        config.model, trust_remote_code=config.trust_remote_code, long_texts=config.long_texts
    )
    base = load_classifier(config.model, tables.names, tokenizer, **config.loading, device=arguments.device)
    check_precision(base.dtype, arguments)
    model = tuned(config, base, len(tables.train))
    check_length(model, config.max_length)
    tokens = tokens_of(config, tables, tokenizer)
    cut = cut_texts(config, tokens)
    method = get_method(config.method)
    if method.folds:
        confident_learning.check_installed()
        check_single_process(f"The method {config.method}")
    opening = layout.carried_on if resume else layout.begin
    with distributed.main_process_first(opening(config, tables.digest), Path(config.output)) as folder:
        started, found = time.perf_counter(), None
        if method.folds:
            found = _findings(config, tables, tokens, model, tokenizer, folder, reporter)
            tokens = _only(tokens, found.kept)
        trainer = trainer_of(config, arguments, tokens, model, tokenizer, reporter)
        keep_logs(trainer, folder / layout.TENSORBOARD)
        trainer.add_callback(Diary(partial(_write_down, folder, tables.names.one_a_row)))
        curve = _test_curve(config, tables, trainer, tokenizer)
        checkpoint = layout.last_checkpoint(folder) if resume else None
        reporter.stage(f"Training with {method.summary} on {len(tokens['train'])} rows")
        with saving_first(trainer, reporter):
            trainer.train(resume_from_checkpoint=checkpoint)
        seconds = time.perf_counter() - started - curve.seconds
        reporter.stage(f"Writing {folder}")
        quality = quality_of_rows(config, tables, trainer, tokenizer, found)
        # nobody waits for the first process: what it writes may take longer than a process group allows
        if not distributed.is_main_process():
            return None
        return write_outcome(config, tables, trainer, tokenizer, folder, seconds, quality, cut)


def _say_if_nothing_follows(arguments: CleaRConfig) -> None:
    """Say that no label is doubted where the warm-up takes all epochs."""
    epochs = arguments.num_train_epochs
    lasts = arguments.warm_up(epochs)
    if arguments.clean_routing and lasts >= epochs:
        warnings.warn(
            f"The warm-up takes {lasts} epochs, and the training has {epochs:g}: all labels are trusted. "
            "Train more epochs, or set warm_up_epochs in training.",
            ClearWarning,
            stacklevel=2,
        )


def _write_down(folder: Path, has_report: bool, epochs: list[dict[str, Any]]) -> None:
    """Let a run be watched while it goes on."""
    write_json(folder / layout.EPOCHS, epochs)
    if has_report:
        with suppress(InputError):  # no page is worth a run
            write_report(folder)


def tokens_of(config: RunConfig, tables: Tables, tokenizer: Any) -> dict[str, Any]:
    """The tables ``train``, ``validation`` and, where there is one, ``test`` as a trainer reads them."""
    tokens = {
        name: tokenize(examples, tokenizer, config.max_length) for name, examples in _parts(tables).items()
    }
    if tables.train.clean_labels is not None:
        tokens["train"] = tokens["train"].add_column(CLEAN_LABEL_COLUMN, tables.train.clean_labels)
    of_table = {"train": tables.train} | ({} if tables.held_out is None else {"validation": tables.held_out})
    for name, examples in of_table.items():
        rows = examples.rows
        if examples.words is not None:
            rows = rows[np.asarray(tokens[name][SENTENCE_COLUMN])]
        known: dict[str, Any] = {GROUP_COLUMN: tables.groups[rows], ROW_COLUMN: rows}
        if examples.votes is not None:
            known[VOTES_COLUMN] = examples.votes.tolist()
        for column, values in known.items():
            tokens[name] = tokens[name].add_column(column, values)
    if tables.train.verified is not None:
        tokens["train"] = _believing(tokens["train"], tables.train, arguments_of(config))
    return tokens


def _parts(tables: Tables) -> dict[str, Examples]:
    """The examples by the name of their table: of the test table too, to say now what is wrong with it."""
    parts = {"train": tables.train, "validation": tables.validation, "test": tables.test}
    return {name: examples for name, examples in parts.items() if examples is not None}


def cut_texts(config: RunConfig, tokens: dict[str, Any]) -> dict[str, int]:
    """How many texts of each table are longer than the model reads; a note says so."""
    whose = {"train": "training texts"}
    return {
        name: say_how_many_are_cut(table, config.max_length, whose.get(name, f"{name} texts"))
        for name, table in tokens.items()
    }


def _believing(tokens: Any, examples: Examples, arguments: CleaRConfig) -> Any:
    """Training rows whose verified ones are believed: by the probe, or else as the labels that they have."""
    verified, labels = examples.verified, examples.labels
    assert verified is not None
    assert labels is not None
    if arguments.clean_routing and arguments.label_estimator == "probe":
        return tokens.add_column(VERIFIED_COLUMN, verified)
    return tokens.remove_columns("labels").add_column("labels", np.where(verified >= 0, verified, labels))


def tuned(config: RunConfig, base: Any, examples: int) -> Any:
    """The model that is trained on so many rows: with its PEFT method, unless all of it is trained."""
    if not get_method(config.method).adapter:
        return base
    options = dict(config.peft_options)
    if config.peft == "adalora":
        options.setdefault("total_step", config.epochs * math.ceil(examples / config.batch_size))
    return build(base, config.peft, target_modules=config.target_modules, options=options)


def arguments_of(config: RunConfig, *, several: bool = False) -> CleaRConfig:
    """The settings of the trainer.

    Args:
        config: The run.
        several: Whether rows have several labels or none: epochs are then compared by micro-F1 where the
            preset or the method says accuracy. Default False.

    Raises:
        InputError: If those in ``training`` are unknown, of another type, or not for a run to set, or there
            is no such device.
    """
    check_training(config.training)
    for name, value in config.training.items():
        if _TYPES.get(name) in _CHECKED:
            check_type(f"training.{name}", value, _TYPES[name])
    recipe = {**preset(config.preset, config.peft, config.device), **get_method(config.method).settings}
    if several:
        recipe["metric_for_best_model"] = _IN_PLACE_OF[recipe["metric_for_best_model"]]
    settings: dict[str, Any] = {
        **recipe,
        **_half(config),
        **({CHECKPOINTING: True} if config.gradient_checkpointing else {}),
        "output_dir": config.output,
        "num_train_epochs": config.epochs,
        "per_device_train_batch_size": config.batch_size,
        "per_device_eval_batch_size": 2 * config.batch_size,
        "learning_rate": config.peak_learning_rate,
        "seed": config.seed,
        "class_weights": config.class_weights,
        "report_to": config.report_to,
        "run_name": Path(config.output).name,
        **({} if config.select_by is None else {"metric_for_best_model": config.select_by}),
        **config.training,
    }
    try:
        arguments = CleaRConfig(**settings)
    except InputError:
        raise
    except (ValueError, TypeError) as error:
        reason = " ".join(str(error).split()).rstrip(".:")
        raise InputError(f"What training holds does not fit ({reason}): mend it there.") from error
    if config.device not in ("auto", arguments.device.type):
        raise InputError(
            f"device is {config.device!r}, and transformers takes {arguments.device.type!r}: leave use_cpu "
            "out of training, unset ACCELERATE_USE_CPU, or give device auto."
        )
    if config.dtype == "float16":
        check_precision(torch.float16, arguments)
    return arguments


def _half(config: RunConfig) -> dict[str, bool]:
    """What a base model in float16 asks of training on a GPU: gradients that are scaled."""
    scaled = config.dtype == "float16" and choose_device(config.device) == "cuda"
    return {"fp16": True, "bf16": False} if scaled else {}


def check_precision(dtype: torch.dtype, arguments: CleaRConfig) -> None:
    """Refuse to train on a base model of a precision in which gradients would vanish.

    Raises:
        InputError: If it is float16, and gradients are not scaled.
    """
    if dtype == torch.float16 and not arguments.fp16:
        raise InputError(
            "The base model is in float16, where gradients vanish unless they are scaled, as they are on a "
            "CUDA GPU with dtype float16: give dtype bfloat16 or float32."
        )


def trainer_of(
    config: RunConfig,
    arguments: CleaRConfig,
    tokens: dict[str, Any],
    model: Any,
    tokenizer: Any,
    reporter: Reporter,
    kind: Callable[..., CleaRTrainer] | None = None,
) -> CleaRTrainer:
    """A trainer that speaks to the reporter alone; ``kind`` makes it. Default: that of the method."""
    trainer: CleaRTrainer = (kind or get_method(config.method).trainer())(
        model=model,
        args=arguments,
        train_dataset=tokens["train"],
        eval_dataset=tokens["validation"],
        processing_class=tokenizer,
        # whatever figure an epoch is chosen by
        compute_metrics=WordLabels(model).metrics if labels_tokens(model) else _measure,
        callbacks=[ReportTo(reporter)],
    )
    for callback in (PrinterCallback, ProgressCallback):
        trainer.remove_callback(callback)
    return trainer


def _measure(prediction: EvalPrediction) -> dict[str, float]:
    return measures(prediction.predictions, prediction.label_ids)


def _only(tokens: dict[str, Any], rows: np.ndarray) -> dict[str, Any]:
    """The same tables with some of the training rows: copied, as select would copy later, and show a bar."""
    train = tokens["train"]
    return {**tokens, "train": train.from_dict(train[rows], features=train.features)}


def _findings(
    config: RunConfig,
    tables: Tables,
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
            arguments = arguments_of(replace(config, output=scratch))
            arguments.report_to = []  # a fold is no run of its own
            trainer = trainer_of(
                config, arguments, _only(tokens, rows), copy.deepcopy(model), tokenizer, reporter
            )
            trainer.train()
        return logits_of(trainer.model, tokenizer, tables.train.select(held), config.max_length)

    logits = confident_learning.out_of_sample_logits(
        labels,
        len(tables.names.names),
        get_method(config.method).folds,
        config.seed,
        train_and_predict,
        folder / layout.OUT_OF_SAMPLE,
        reporter.stage,
        tables.groups[tables.train.rows],
    )
    return confident_learning.find_issues(labels, logits)


def _test_curve(config: RunConfig, tables: Tables, trainer: CleaRTrainer, tokenizer: Any) -> TestCurve:
    def measure() -> dict[str, float]:
        assert tables.test is not None  # the configuration has been checked
        with trainer.averaged():
            return measured(trainer.model, tokenizer, tables.test, config.max_length)

    curve = TestCurve(measure)
    if config.test_every_epoch:
        trainer.add_callback(curve)
    return curve
