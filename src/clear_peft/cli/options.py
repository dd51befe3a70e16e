"""Options that several commands share."""

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from clear_peft.cli.output import Format


class PlotFormat(StrEnum):
    """File formats of plots."""

    svg = "svg"
    png = "png"


def _set_format(context: typer.Context, value: Format) -> Format:
    # eager, so that what is wrong with the other options is said in this form already
    context.obj.format = value
    return value


FormatOption = Annotated[
    Format,
    typer.Option(
        "--format",
        help="To a person, to a program, or not at all.",
        rich_help_panel="Output",
        callback=_set_format,
        is_eager=True,
    ),
]
PlotFormatOption = Annotated[
    PlotFormat, typer.Option("--plot-format", help="File format of the plots.", rich_help_panel="Output")
]
RunOption = Annotated[Path, typer.Option("--run", help="Run folder that train has written.")]
TrustOption = Annotated[
    bool, typer.Option("--trust-remote-code", help="Run code that comes with the run's model.")
]
OverwriteOption = Annotated[bool, typer.Option("--overwrite", help="Replace what is there already.")]
