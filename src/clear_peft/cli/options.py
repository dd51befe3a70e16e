"""Options that several commands share."""

from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import typer

from clear_peft.cli.output import Format
from clear_peft.hardware import DEVICES

# panels of the help pages
RUN, DATA, JUDGE, OUTPUT, ENGINE = "Run", "Data", "Judge", "Output", "Engine"


class PlotFormat(StrEnum):
    """File formats of plots."""

    svg = "svg"
    png = "png"


class LongTexts(StrEnum):
    """What a frozen model reads of texts that are too long."""

    head = "head"
    tail = "tail"
    windows = "windows"


class Engine(StrEnum):
    """What goes through a table."""

    embedded = "embedded"
    ray = "ray"


def _set_format(context: typer.Context, value: Format) -> Format:
    # eager, so that what is wrong with the other options is said in this form already
    context.obj.format = value
    return value


def _device(panel: str) -> Any:
    return typer.Option(
        "--device",
        help=f"Where the model runs: {', '.join(DEVICES)}. auto is a CUDA GPU if there is one, else the CPU.",
        autocompletion=lambda: list(DEVICES),
        rich_help_panel=panel,
    )


FormatOption = Annotated[
    Format,
    typer.Option(
        "--format",
        help="Print for a person, as JSON for a program, or nothing.",
        rich_help_panel=OUTPUT,
        callback=_set_format,
        is_eager=True,
    ),
]
PlotFormatOption = Annotated[
    PlotFormat, typer.Option("--plot-format", help="File format of the plots.", rich_help_panel=OUTPUT)
]
RunOption = Annotated[
    Path, typer.Option("--run", help="Run folder that train has written.", rich_help_panel=RUN)
]
TrustOption = Annotated[
    bool,
    typer.Option(
        "--trust-remote-code", help="Run code that comes with the run's model.", rich_help_panel=RUN
    ),
]
DeviceOption = Annotated[str, _device(RUN)]
OverwriteOption = Annotated[
    bool, typer.Option("--overwrite", help="Replace what is there already.", rich_help_panel=OUTPUT)
]
TextColumnOption = Annotated[
    list[str] | None,
    typer.Option(
        "--text-column",
        help="Column of the texts; may be repeated (default: as in the run's table).",
        rich_help_panel=DATA,
    ),
]
EncodingOption = Annotated[
    str | None,
    typer.Option("--encoding", help="Encoding of the table, such as cp1252.", rich_help_panel=DATA),
]

EngineOption = Annotated[
    Engine,
    typer.Option(
        "--engine",
        help="This process, or Ray (RAY_ADDRESS, or this machine): for a folder of Parquet files, larger "
        "than memory. All machines see data and output by the same path.",
        rich_help_panel=ENGINE,
    ),
]
CpusOption = Annotated[
    float | None,
    typer.Option("--cpus", help="CPUs of a model, with --engine ray.", min=0.1, rich_help_panel=ENGINE),
]
GpusOption = Annotated[
    float | None,
    typer.Option(
        "--gpus",
        help="GPUs of a model, with --engine ray; 0.25 puts four on one.",
        min=0,
        rich_help_panel=ENGINE,
    ),
]

# of scan and review

DataOption = Annotated[
    str,
    typer.Option(
        "--data",
        help="CSV, TSV, JSON, JSONL, Parquet, XLSX, or hub data set NAME[:CONFIG][@SPLIT].",
        rich_help_panel=DATA,
    ),
]
TextColumnsOption = Annotated[
    list[str],
    typer.Option("--text-column", help="Column of the texts; may be repeated.", rich_help_panel=DATA),
]
LabelColumnOption = Annotated[
    str, typer.Option("--label-column", help="Column of the labels.", rich_help_panel=DATA)
]
NormalizeLabelsOption = Annotated[
    bool,
    typer.Option(
        "--normalize-labels",
        help="Take labels for one that differ only in case, white space, hyphens, underscores or what "
        "cannot be seen.",
        rich_help_panel=DATA,
    ),
]
UnlabelledOption = Annotated[
    str | None,
    typer.Option(
        "--unlabelled",
        metavar="NAME,...",
        help="What stands for a missing label besides an empty cell. Rows without a label are predicted "
        "in unlabelled.csv, the least sure first.",
        rich_help_panel=DATA,
    ),
]
OpinionColumnOption = Annotated[
    list[str] | None,
    typer.Option(
        "--opinion-column",
        help="Column of another label for the same rows, by a rule, a model or another person; empty cells "
        "say nothing. May be repeated. Labels are judged by what all sources say.",
        rich_help_panel=DATA,
    ),
]
AnnotatorColumnOption = Annotated[
    list[str] | None,
    typer.Option(
        "--annotator-column",
        help="Column of an annotator's labels; give two or more in place of --label-column, which then names "
        "their consensus. Empty cells say nothing.",
        rich_help_panel=DATA,
    ),
]
IdColumnOption = Annotated[
    str | None,
    typer.Option(
        "--id-column",
        help="Column of ids that differ from row to row, copied into the list.",
        rich_help_panel=DATA,
    ),
]
GroupColumnOption = Annotated[
    str | None,
    typer.Option(
        "--group-column",
        help="Column that says which rows belong together, such as a customer or a document.",
        rich_help_panel=DATA,
    ),
]
EncoderOption = Annotated[
    str | None,
    typer.Option(
        "--model",
        help="Hub name or path of a pretrained encoder (default: all-MiniLM-L6-v2).",
        rich_help_panel=JUDGE,
    ),
]
MaxLengthOption = Annotated[
    int, typer.Option("--max-length", help="Tokens per text.", min=1, rich_help_panel=JUDGE)
]
LongTextsOption = Annotated[
    LongTexts,
    typer.Option(
        "--long-texts",
        help="What is read of longer texts: the first tokens, the last, or all in windows, one forward each.",
        rich_help_panel=JUDGE,
    ),
]
EmbeddingsOption = Annotated[
    str | None,
    typer.Option(
        "--embeddings",
        help="Instead of a model: .npy or Parquet file of embeddings, a row for each row.",
        rich_help_panel=JUDGE,
    ),
]
NoCacheOption = Annotated[
    bool,
    typer.Option(
        "--no-cache",
        help="Keep no features of texts for the next time in ~/.cache/clear-peft, or $CLEAR_PEFT_CACHE.",
        rich_help_panel=JUDGE,
    ),
]
EncoderDeviceOption = Annotated[str, _device(JUDGE)]
EncoderTrustOption = Annotated[
    bool,
    typer.Option("--trust-remote-code", help="Run code that comes with the model.", rich_help_panel=JUDGE),
]


def one_or_more(columns: list[str]) -> str | list[str]:
    """One column as it is named, several as a list."""
    return columns[0] if len(columns) == 1 else columns


def names_of(listed: str | None) -> list[str]:
    """Names that are separated by commas."""
    return [name.strip() for name in listed.split(",")] if listed else []
