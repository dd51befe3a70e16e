"""``clear-peft bench``."""

from enum import StrEnum
from functools import partial
from pathlib import Path
from typing import Annotated

import typer

from clear_peft.cli.options import OUTPUT, FormatOption, PlotFormat, PlotFormatOption
from clear_peft.cli.output import Format, Output
from clear_peft.errors import InputError

_GRID, _RESULTS = "Grid", "Results"


class Engine(StrEnum):
    """What runs cells."""

    processes = "processes"
    ray = "ray"


bench = typer.Typer(
    help="Compare methods on a grid of data, noise, PEFT methods and seeds.", no_args_is_help=True
)

ResultsOption = Annotated[
    list[Path],
    typer.Option(
        "--results",
        help="Results file that bench run has written; may be repeated.",
        rich_help_panel=_RESULTS,
    ),
]
MethodsOption = Annotated[
    list[str] | None,
    typer.Option("--method", help="Method to show; may be repeated. Default: all.", rich_help_panel=_RESULTS),
]
DataOption = Annotated[
    list[str] | None,
    typer.Option(
        "--data",
        help="Data set of the grid to show; may be repeated. Default: all.",
        rich_help_panel=_RESULTS,
    ),
]


@bench.command()
def run(
    context: typer.Context,
    grid: Annotated[
        str,
        typer.Option(
            help="YAML file, or a grid that ships: ablation, cpu, dropout, heads, larger, paper, peft, "
            "rates, rebuilt, relatives, settings, smoke, tuned, unseen, verified.",
            rich_help_panel=_GRID,
        ),
    ],
    results: Annotated[
        Path,
        typer.Option(help="Results file, .jsonl; its cells are not run again.", rich_help_panel=OUTPUT),
    ],
    data_dir: Annotated[
        Path,
        typer.Option(help="Folder in which the grid's tables are looked up.", rich_help_panel=_GRID),
    ] = Path(),
    workers: Annotated[
        int,
        typer.Option(help="Cells at the same time; they share the cores.", min=1, rich_help_panel=_GRID),
    ] = 1,
    limit: Annotated[
        int | None, typer.Option(help="Cells to run at most.", min=1, rich_help_panel=_GRID)
    ] = None,
    engine: Annotated[
        Engine,
        typer.Option(
            help="Processes of this machine, or tasks of a Ray cluster (RAY_ADDRESS), whose machines all see "
            "the data folder.",
            rich_help_panel=_GRID,
        ),
    ] = Engine.processes,
    cpus: Annotated[
        float | None, typer.Option(help="CPUs of a cell, with --engine ray.", min=0.1, rich_help_panel=_GRID)
    ] = None,
    gpus: Annotated[
        float | None,
        typer.Option(
            help="GPUs of a cell, with --engine ray; 0.25 puts four on one.", min=0, rich_help_panel=_GRID
        ),
    ] = None,
    format: FormatOption = Format.human,  # noqa: A002
) -> None:
    """Run the cells of a grid that the results file lacks."""
    from clear_peft.bench.grid import read_grid
    from clear_peft.bench.runner import run_grid

    out: Output = context.obj
    run_cells = None
    if engine is Engine.ray:
        from clear_peft.bench.ray_engine import in_ray

        run_cells = partial(in_ray, cpus=cpus or 1, gpus=gpus or 0)
    elif cpus is not None or gpus is not None:
        raise InputError("--cpus and --gpus are those of a Ray task: add --engine ray.")
    outcome = run_grid(
        read_grid(grid),
        results,
        data_dir=data_dir,
        workers=workers,
        limit=limit,
        engine=run_cells,
        say=lambda line: typer.echo(line, err=True) if out.format is Format.human else None,
    )
    values = {
        "cells": outcome.cells,
        "skipped": outcome.skipped,
        "done": outcome.done,
        "failed": outcome.failed,
        "results": str(results),
    }
    missing = outcome.cells - outcome.skipped - outcome.done
    out.result(values, [f"{outcome.done} cells run, {missing} of {outcome.cells} still to run: {results}"])
    for name, sentence in outcome.failed.items():
        out.error(f"{name} failed: {sentence}")
    if outcome.failed:
        raise typer.Exit(1)


@bench.command()
def table(
    context: typer.Context,
    results: ResultsOption,
    methods: MethodsOption = None,
    data: DataOption = None,
    output: Annotated[
        Path | None,
        typer.Option(help="File to write, .md, or .csv for the figures alone.", rich_help_panel=OUTPUT),
    ] = None,
    format: FormatOption = Format.human,  # noqa: A002
) -> None:
    """Tables of every cell, and the methods compared over the cells with noise."""
    from clear_peft.bench import tables
    from clear_peft.bench.store import read_all

    records = read_all(results, methods or (), data or ())
    cells, summary = tables.tables_of(records)
    text = tables.as_markdown(cells, summary, tables.hardware_of(records))
    if output is not None:
        tables.write(output, cells, text)
    out: Output = context.obj
    out.result(
        tables.as_values(cells, summary), text.splitlines() if output is None else [f"Written: {output}"]
    )


@bench.command()
def plot(
    context: typer.Context,
    results: ResultsOption,
    output: Annotated[Path, typer.Option(help="Folder for the plots.", rich_help_panel=OUTPUT)],
    methods: MethodsOption = None,
    data: DataOption = None,
    plot_format: PlotFormatOption = PlotFormat.svg,
    format: FormatOption = Format.human,  # noqa: A002
) -> None:
    """Accuracy by epoch and by noise rate, memorised labels, losses with their mixture, cost."""
    from clear_peft.bench.plots import write_plots
    from clear_peft.bench.store import read_all

    files = write_plots(read_all(results, methods or (), data or ()), output, plot_format.value)
    out: Output = context.obj
    out.result({"files": [str(file) for file in files]}, [str(file) for file in files])
