"""``clear-peft train``."""

import json
from pathlib import Path
from typing import Annotated, Any

import typer

from clear_peft.baselines import METHODS
from clear_peft.cli.options import FormatOption, OverwriteOption
from clear_peft.cli.output import Format, Output
from clear_peft.errors import InputError
from clear_peft.tuners import available_methods

# settings that only a file can hold, and where the context keeps them
_NO_OPTION = ("training", "test_every_epoch")
_FILE_ALONE = "clear_peft.file_alone"


def _from_file(context: typer.Context, path: Path | None) -> Path | None:
    """Let a YAML file set the defaults of the options; what the command line says wins."""
    if path is not None:
        from clear_peft.run_folder.config import read_yaml

        values = read_yaml(path)
        for name in ("target_modules", "report_to"):
            if values.get(name) is not None:
                values[name] = ",".join(values[name])
        if values.get("peft_options") is not None:
            values["peft_options"] = json.dumps(values["peft_options"])
        context.meta[_FILE_ALONE] = {name: values[name] for name in _NO_OPTION if name in values}
        context.default_map = {k: v for k, v in values.items() if v is not None}
    return path


_DATA, _MODEL, _TRAINING, _OUTPUT = "Data", "Model", "Training", "Output"


def train(
    context: typer.Context,
    model: Annotated[
        str, typer.Option(help="Hub name or path of the pretrained model.", rich_help_panel=_MODEL)
    ],
    data: Annotated[
        str,
        typer.Option(
            help="CSV, TSV, JSONL, Parquet, or hub data set NAME, NAME:CONFIG, NAME@SPLIT.",
            rich_help_panel=_DATA,
        ),
    ],
    output: Annotated[str, typer.Option(help="Run folder to write.", rich_help_panel=_OUTPUT)],
    text_column: Annotated[str, typer.Option(help="Column of the texts.", rich_help_panel=_DATA)] = "text",
    label_column: Annotated[str, typer.Option(help="Column of the labels.", rich_help_panel=_DATA)] = "label",
    clean_label_column: Annotated[
        str | None, typer.Option(help="Column of true labels, for evaluation only.", rich_help_panel=_DATA)
    ] = None,
    id_column: Annotated[
        str | None, typer.Option(help="Column of ids, copied to the label issues.", rich_help_panel=_DATA)
    ] = None,
    group_column: Annotated[
        str | None,
        typer.Option(help="Column of what belongs together, e.g. a customer.", rich_help_panel=_DATA),
    ] = None,
    validation: Annotated[
        str | None,
        typer.Option(help="Validation table (default: rows held out of --data).", rich_help_panel=_DATA),
    ] = None,
    validation_fraction: Annotated[
        float, typer.Option(help="Share of rows held out without --validation.", rich_help_panel=_DATA)
    ] = 0.1,
    test: Annotated[
        str | None, typer.Option(help="Test table, measured once at the end.", rich_help_panel=_DATA)
    ] = None,
    peft: Annotated[
        str, typer.Option(help=f"One of {', '.join(available_methods())}.", rich_help_panel=_MODEL)
    ] = "lora",
    peft_options: Annotated[
        str, typer.Option(help='Its further options as JSON, e.g. {"r": 8}.', rich_help_panel=_MODEL)
    ] = "{}",
    target_modules: Annotated[
        str | None, typer.Option(help="Layers to adapt, separated by commas.", rich_help_panel=_MODEL)
    ] = None,
    method: Annotated[
        str, typer.Option(help=f"One of {', '.join(METHODS)}.", rich_help_panel=_TRAINING)
    ] = "clear",
    preset: Annotated[
        str, typer.Option(help="recommended or paper.", rich_help_panel=_TRAINING)
    ] = "recommended",
    epochs: Annotated[int, typer.Option(help="Passes over the rows.", rich_help_panel=_TRAINING)] = 10,
    batch_size: Annotated[int, typer.Option(help="Rows per step.", rich_help_panel=_TRAINING)] = 32,
    learning_rate: Annotated[
        float | None, typer.Option(help="Peak (default: 1e-3, full: 5e-5).", rich_help_panel=_TRAINING)
    ] = None,
    max_length: Annotated[int, typer.Option(help="Tokens per text.", rich_help_panel=_TRAINING)] = 128,
    seed: Annotated[int, typer.Option(help="Seed of everything random.", rich_help_panel=_TRAINING)] = 0,
    trust_remote_code: Annotated[
        bool,
        typer.Option(
            "--trust-remote-code", help="Run code that comes with a hub model.", rich_help_panel=_MODEL
        ),
    ] = False,
    report_to: Annotated[
        str | None,
        typer.Option(
            help="Loggers, separated by commas: tensorboard, wandb, trackio, mlflow, …",
            rich_help_panel=_OUTPUT,
        ),
    ] = None,
    config: Annotated[
        Path | None,
        typer.Option(help="YAML file with these options.", callback=_from_file, is_eager=True),
    ] = None,
    resume: Annotated[
        bool, typer.Option("--resume", help="Carry on an interrupted run.", rich_help_panel=_OUTPUT)
    ] = False,
    overwrite: OverwriteOption = False,
    format: FormatOption = Format.human,  # noqa: A002
) -> None:
    """Train on a table with doubtful labels; write an adapter and a ranked list of suspicious rows."""
    from clear_peft.run_folder.config import RunConfig

    source = context.get_parameter_source("trust_remote_code")
    if trust_remote_code and source is not None and source.name != "COMMANDLINE":
        # the file may be a stranger's
        raise InputError(f"{config} asks to run code of {model}: add --trust-remote-code if you trust it.")
    run_config = RunConfig(
        model=model,
        data=data,
        output=output,
        text_column=text_column,
        label_column=label_column,
        clean_label_column=clean_label_column,
        id_column=id_column,
        group_column=group_column,
        validation=validation,
        validation_fraction=validation_fraction,
        test=test,
        peft=peft,
        peft_options=_parsed(peft_options),
        target_modules=_names(target_modules) or None,
        method=method,
        preset=preset,
        epochs=epochs,
        batch_size=batch_size,
        learning_rate=learning_rate,
        max_length=max_length,
        seed=seed,
        trust_remote_code=trust_remote_code,
        report_to=_names(report_to),
        **context.meta.get(_FILE_ALONE, {}),
    )
    out: Output = context.obj
    from clear_peft import pipeline
    from clear_peft.pipeline import distributed

    metrics = pipeline.train(run_config, resume=resume, overwrite=overwrite, reporter=out)
    if distributed.is_first():
        out.result(metrics, _summary(metrics, Path(output)))
    distributed.leave()


def _names(listed: str | None) -> list[str]:
    return [name.strip() for name in listed.split(",")] if listed else []


def _parsed(options: str) -> dict[str, Any]:
    try:
        values = json.loads(options)
    except json.JSONDecodeError as error:
        raise InputError(f"--peft-options is no JSON ({error}): write e.g. '{{\"r\": 8}}'.") from error
    if not isinstance(values, dict):
        raise InputError("--peft-options must be a JSON object: write e.g. '{\"r\": 8}'.")
    return values


def _summary(metrics: dict[str, Any], folder: Path) -> list[str]:
    lines = [
        f"Selected epoch {metrics['selected_epoch']}: "
        f"accuracy {metrics['validation']['accuracy']:.3f} on the validation rows (labels as given)"
    ]
    if metrics["test"] is not None:
        test = metrics["test"]
        lines.append(f"Test: accuracy {test['accuracy']:.3f}, macro-F1 {test['macro_f1']:.3f}")
    lines.append(f"Estimated share of wrong labels: {metrics['noise_rate_estimate']:.1%}")
    found = metrics.get("detection")
    if found is not None:
        counts = f"{found['found']} of {found['wrong']}"
        lines.append(f"Wrong labels found: {counts}; ROC AUC of the ranking: {found['roc_auc']:.3f}")
    return [
        *lines,
        f"Adapter:       {folder / 'adapter'}",
        f"Label issues:  {folder / 'label_issues.csv'}",
        f"Report:        {folder / 'report.html'}",
        f"Metrics:       {folder / 'metrics.json'}",
    ]
