"""``clear-peft train``; its options are the fields of ``RunConfig``."""

import inspect
import json
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

import typer

from clear_peft.cli.options import FormatOption, OverwriteOption
from clear_peft.cli.output import Format, Output, shown
from clear_peft.errors import InputError
from clear_peft.run_folder.config import RunConfig, options, read_yaml
from clear_peft.run_folder.option import Option

# where the context keeps what a file says
_FROM_FILE = "clear_peft.from_file"
_FIGURES = {
    "accuracy": "accuracy",
    "micro_f1": "micro-F1",
    "span_f1": "F1 of spans",
    "macro_f1": "macro-F1",
    "mean_average_precision": "mean average precision",
}
# what is written on a command line in place of values that it has no form for
_WRITTEN: dict[type, tuple[type, str | None]] = {list: (str, "NAME,..."), dict: (str, "JSON")}


def _with_options_of_a_run(command: Callable[..., None]) -> Callable[..., None]:
    """Give a command an option for each field of ``RunConfig``, in the place of its ``**given``."""
    parameters = list(inspect.signature(command).parameters.values())
    own = [parameter for parameter in parameters if parameter.kind is not parameter.VAR_KEYWORD]
    command.__signature__ = inspect.Signature([own[0], *map(_parameter, options()), *own[1:]])  # type: ignore[attr-defined]
    return command


def _parameter(option: Option) -> inspect.Parameter:
    kind, metavar = _WRITTEN.get(option.kind, (option.kind, None))
    choices = f" One of {', '.join(option.choices)}." if option.choices else ""
    declared = typer.Option(
        option.flag,
        help=f"{option.meaning}{choices}",
        metavar=metavar,
        rich_help_panel=option.panel,
        autocompletion=(lambda: list(option.choices)) if option.choices else None,
    )
    default = [option.default] if option.repeated and option.default is not None else option.default
    given: Any = list[kind] if option.repeated else kind  # type: ignore[valid-type]
    return inspect.Parameter(
        option.name,
        inspect.Parameter.KEYWORD_ONLY,
        default=inspect.Parameter.empty if option.required else default,
        annotation=Annotated[given if option.required else given | None, declared],
    )


def _read(context: typer.Context, path: Path | None) -> Path | None:
    """Let a YAML file stand in for options; what the command line says wins."""
    if path is not None:
        values = {name: value for name, value in read_yaml(path).items() if value is not None}
        context.meta[_FROM_FILE] = values
        # they need not be given again
        context.default_map = {
            o.name: str(values[o.name]) for o in options() if o.required and o.name in values
        }
    return path


@_with_options_of_a_run
def train(
    context: typer.Context,
    *,
    config: Annotated[
        Path | None,
        typer.Option(help="YAML file with these options.", callback=_read, is_eager=True),
    ] = None,
    resume: Annotated[
        bool, typer.Option("--resume", help="Carry on an interrupted run.", rich_help_panel="Output")
    ] = False,
    overwrite: OverwriteOption = False,
    format: FormatOption = Format.human,  # noqa: A002
    **given: Any,
) -> None:
    """Train on a table with doubtful labels; write an adapter and a ranked list of suspicious rows."""
    told = {
        option.name: _value(option, given[option.name])
        for option in options()
        if getattr(context.get_parameter_source(option.name), "name", "") == "COMMANDLINE"
    }
    run_config = RunConfig.from_mapping(context.meta.get(_FROM_FILE, {}), str(config), over=told)
    if run_config.trust_remote_code and "trust_remote_code" not in told:
        # the file may be a stranger's
        raise InputError(
            f"{config} asks to run code of {run_config.model}: add --trust-remote-code if you trust it."
        )
    out: Output = context.obj
    from clear_peft import pipeline

    metrics = pipeline.train(run_config, resume=resume, overwrite=overwrite, reporter=out)
    from clear_peft.pipeline import distributed  # torch: not before the tables are checked

    if metrics is not None:  # of the process that writes
        out.result(metrics, _summary(metrics, Path(run_config.output)))
    distributed.shutdown()


def _value(option: Option, written: Any) -> Any:
    """What is meant by what stands on the command line."""
    if option.repeated:
        return written[0] if len(written) == 1 else list(written)
    if option.kind is list:
        return [name.strip() for name in written.split(",")] if written else []
    return _parsed(option, written) if option.kind is dict else written


def _parsed(option: Option, written: str) -> Any:
    try:
        values = json.loads(written)
    except (ValueError, RecursionError) as error:
        raise InputError(f"{option.flag} is no JSON ({error}): write e.g. '{{\"r\": 8}}'.") from error
    if not isinstance(values, dict):
        raise InputError(f"{option.flag} must be a JSON object: write e.g. '{{\"r\": 8}}'.")
    return values


def _summary(metrics: dict[str, Any], folder: Path) -> list[str]:
    lines = [
        f"Selected epoch {metrics['selected_epoch']}: {_measured(metrics['validation'])} on the validation "
        "rows (labels as given)"
    ]
    if metrics["test"] is not None:
        lines.append(f"Test: {_measured(metrics['test'])}")
    lines += [
        f"Leak: {count} of {metrics['rows'][what]} {what} rows are copies of training rows, or nearly"
        for what, count in metrics["leaks"].items()
        if count
    ]
    several = "several_labels" in metrics
    if several:
        lines.append(f"Estimated share of given labels that are wrong: {metrics['wrong_estimate']:.1%}")
        lines.append(f"Estimated share of right labels that are missing: {metrics['missing_estimate']:.1%}")
    else:
        lines.append(f"Estimated share of wrong labels: {metrics['noise_rate_estimate']:.1%}")
    if "sources" in metrics:
        shares = (f"{shown(name)} {share:.1%}" for name, share in metrics["sources"].items())
        lines.append(f"Labels that are right, by what all sources say: {', '.join(shares)}")
    if metrics["rows"].get("unlabelled"):
        from clear_peft.run_folder.layout import UNLABELLED

        left = metrics["rows"]["unlabelled"]
        lines.append(f"Rows without a label: {left}, the least sure first: {folder / UNLABELLED}")
    found = metrics.get("detection")
    if found is not None:
        counts = f"{found['found']} of {found['wrong']}"
        lines.append(f"Wrong labels found: {counts}; ROC AUC of the ranking: {found['roc_auc']:.3f}")
    return [
        *lines,
        f"Adapter:       {folder / 'adapter'}",
        f"Label issues:  {folder / 'label_issues.csv'}",
        *([] if several or "labels_of_words" in metrics else [f"Report:        {folder / 'report.html'}"]),
        f"Metrics:       {folder / 'metrics.json'}",
    ]


def _measured(figures: dict[str, float]) -> str:
    """Accuracy and macro-F1; of several labels a row micro-F1, macro-F1 and mean average precision."""
    return ", ".join(f"{_FIGURES[name]} {value:.3f}" for name, value in figures.items())
