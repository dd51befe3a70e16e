"""``clear-peft report``."""

from pathlib import Path
from typing import Annotated

import typer

from clear_peft.cli.options import OUTPUT, FormatOption, PlotFormat, PlotFormatOption, RunOption
from clear_peft.cli.output import Format, Output


def report(
    context: typer.Context,
    run: RunOption,
    output: Annotated[
        Path | None,
        typer.Option(
            help="Page to write, .html (default: report.html in the run folder).", rich_help_panel=OUTPUT
        ),
    ] = None,
    plots: Annotated[
        Path | None, typer.Option(help="Folder for the plots as files, too.", rich_help_panel=OUTPUT)
    ] = None,
    plot_format: PlotFormatOption = PlotFormat.svg,
    format: FormatOption = Format.human,  # noqa: A002
) -> None:
    """Write the report of a run, finished or not: one page that needs no network and no server."""
    from clear_peft.report.figures import write_figures
    from clear_peft.report.run import check_page, read_record, save_report
    from clear_peft.run_folder.layout import REPORT

    out: Output = context.obj
    page = run / REPORT if output is None else output
    check_page(page)
    out.stage(f"Reading {run}")
    record = read_record(run)
    files = [] if plots is None else write_figures(record, plots, plot_format.value)
    save_report(record, page)
    values = {
        "report": str(page),
        "plots": [str(file) for file in files],
        "finished": record.metrics is not None,
        "missing": list(record.missing),
    }
    lines = [f"Report: {page}", *(f"Plot: {file}" for file in files)]
    if record.metrics is None:
        lines.append("The run is not finished: the report holds what there is so far.")
    out.result(values, [*lines, *record.missing])
