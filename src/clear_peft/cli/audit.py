"""``clear-peft audit``."""

import shlex
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from clear_peft.cli.options import OUTPUT, RUN, FormatOption, OverwriteOption, RunOption
from clear_peft.cli.output import Format, Output, counted, shown
from clear_peft.errors import InputError

if TYPE_CHECKING:
    from clear_peft.audit import Audit

_TOP = 10
_CORRECTIONS = "Corrections"


def audit(
    context: typer.Context,
    run: RunOption,
    threshold: Annotated[
        float,
        typer.Option(
            help="List rows whose label is right with a lower probability than this.", rich_help_panel=RUN
        ),
    ] = 0.5,
    data: Annotated[
        str | None,
        typer.Option(help="For --apply: the training table, if it has moved.", rich_help_panel=_CORRECTIONS),
    ] = None,
    apply: Annotated[
        Path | None,
        typer.Option(
            help="Corrections from the report; the corrected table goes to --output.",
            rich_help_panel=_CORRECTIONS,
        ),
    ] = None,
    output: Annotated[
        Path | None,
        typer.Option(
            help="CSV, TSV, JSONL or Parquet file to write: audited or corrected rows.",
            rich_help_panel=OUTPUT,
        ),
    ] = None,
    overwrite: OverwriteOption = False,
    format: FormatOption = Format.human,  # noqa: A002
) -> None:
    """Say which labels of a run's table look wrong; with --apply, write the table corrected."""
    out: Output = context.obj
    if apply is not None:
        if output is None:
            raise InputError("--apply needs --output: name the file for the corrected table.")
        _correct(out, run, data, apply, output, overwrite=overwrite)
        return
    if data is not None:
        raise InputError("--data goes with --apply: leave it out, or give the corrections.")
    from clear_peft.audit.run import audit_run, write_audit

    out.stage(f"Auditing {run}")
    found = audit_run(run, threshold=threshold)
    if output is not None:
        write_audit(run, found, output, overwrite=overwrite)
    values = _values(found)
    lines = _lines(found, values)
    if output is not None:
        values["output"] = str(output)
        lines.append(f"Audited rows: {output}")
    out.suspicious(values, lines)


def _correct(
    out: Output, run: Path, data: str | None, corrections: Path, output: Path, *, overwrite: bool
) -> None:
    from clear_peft.audit.run import apply_corrections
    from clear_peft.run_folder import RunConfig

    out.stage(f"Correcting the table of {run}")
    made = apply_corrections(run, corrections, output, data=data, overwrite=overwrite)
    # corrected labels stand in a column that the run made of its annotators
    made_of = RunConfig.load(run).annotator_column
    table = ["--verified", str(corrections)] if made_of else ["--data", str(output)]
    trained = [*table, "--output", f"{run if run.name else run.resolve()}-corrected"]
    again = shlex.join(["clear-peft", "train", "--config", str(run / "config.yaml"), *trained])
    counts = f"{made['relabelled']} relabelled, {made['dropped']} dropped, {made['kept']} kept as they were"
    lines = [f"{made['rows']} rows: {output} ({counts})", f"Train on them: {again}"]
    out.result({**made, "output": str(output), "train": again}, lines)


def _values(found: "Audit") -> dict[str, Any]:
    """The audit for a program."""
    from clear_peft.audit import confused_pairs, to_check

    issues = found.issues
    groups = issues.loc[issues["duplicate_group"] >= 0, "duplicate_group"]
    conflicts = issues[issues["duplicate_conflict"]]
    return {
        "rows": len(issues),
        "listed": int(to_check(issues)["is_label_issue"].sum()),
        "threshold": found.threshold,
        "expected_precision": found.expected_precision,
        "noise_rate": found.noise_rate,
        "noise_rate_interval": found.noise_rate_interval,
        "predictions": found.predictions,
        "confused": confused_pairs(found.joint, found.labels, len(issues)).to_dict("records"),
        "duplicates": {
            "groups": int(groups.nunique()),
            "rows": len(groups),
            "conflicting_groups": int(conflicts["duplicate_group"].nunique()),
            "conflicting_rows": conflicts["row"].tolist(),
        },
        "most_suspicious": issues.head(_TOP).to_dict("records"),
    }


def _lines(found: "Audit", values: dict[str, Any]) -> list[str]:
    """The audit for a person."""
    listed = f"{values['listed']} of {values['rows']} rows listed: right with less than {found.threshold:g}"
    if found.expected_precision is not None:
        listed += f"; by estimate {found.expected_precision:.1%} of their labels are wrong"
    lines = [
        listed,
        f"Estimated share of wrong labels: {found.noise_rate:.1%} ({found.said_interval('{:.1%}'.format)})",
        found.predictions,
    ]
    if values["confused"]:
        lines.append("Classes most often taken for each other:")
        lines += [
            f"  {shown(pair['true'])} labelled {shown(pair['given'])}: about {counted(pair['rows'], 'row')}"
            for pair in values["confused"]
        ]
    doubles = values["duplicates"]
    rows = doubles["conflicting_rows"]
    lines.append(
        f"{counted(doubles['groups'], 'group')} of texts that are alike, {doubles['conflicting_groups']} of "
        f"them with different labels{': rows ' + ', '.join(map(str, rows[:_TOP])) if rows else ''}"
        f"{' …' if len(rows) > _TOP else ''}"
    )
    return lines
