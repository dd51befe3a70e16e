"""``clear-peft noise``."""

from pathlib import Path
from typing import Annotated

import typer

from clear_peft.cli.options import (
    DATA,
    OUTPUT,
    DataOption,
    EncodingOption,
    FormatOption,
    LabelColumnOption,
    NormalizeLabelsOption,
    OverwriteOption,
    TextColumnsOption,
    names_of,
    one_or_more,
)
from clear_peft.cli.output import Format, Output

_NOISE = "Noise"


def noise(
    context: typer.Context,
    data: DataOption,
    kind: Annotated[
        str,
        typer.Option(
            help="symmetric, symmetric-inclusive, pair, map, matrix or instance.",
            rich_help_panel=_NOISE,
        ),
    ],
    output: Annotated[
        Path, typer.Option(help="CSV, TSV, JSONL or Parquet file to write.", rich_help_panel=OUTPUT)
    ],
    rate: Annotated[
        float | None, typer.Option(help="Noise rate, for all kinds but matrix.", rich_help_panel=_NOISE)
    ] = None,
    seed: Annotated[int, typer.Option(help="Seed of everything random.", min=0, rich_help_panel=_NOISE)] = 0,
    text_column: TextColumnsOption = ["text"],  # noqa: B006
    label_column: LabelColumnOption = "label",
    normalize_labels: NormalizeLabelsOption = False,
    unlabelled: Annotated[
        str | None,
        typer.Option(
            metavar="NAME,...",
            help="What stands for a missing label besides an empty cell; rows without a label stay as they "
            "are.",
            rich_help_panel=DATA,
        ),
    ] = None,
    encoding: EncodingOption = None,
    class_map: Annotated[
        list[str] | None,
        typer.Option(
            "--map",
            metavar="A=B",
            help="For map: labels A flip to B; may be repeated.",
            rich_help_panel=_NOISE,
        ),
    ] = None,
    matrix: Annotated[
        Path | None,
        typer.Option(
            help="For matrix: CSV or JSON file, numbers in the order of the labels or with names.",
            rich_help_panel=_NOISE,
        ),
    ] = None,
    model: Annotated[
        str | None,
        typer.Option(help="For instance: pretrained model that embeds the texts.", rich_help_panel=_NOISE),
    ] = None,
    overwrite: OverwriteOption = False,
    format: FormatOption = Format.human,  # noqa: A002
) -> None:
    """Put wrong labels into a table, for experiments; the labels that it had go to a column clean_label."""
    from clear_peft.pipeline.corrupt import add_noise

    out: Output = context.obj
    out.stage(f"Putting noise into {data}")
    made = add_noise(
        data,
        output,
        kind=kind,
        rate=rate,
        seed=seed,
        text_column=one_or_more(text_column),
        label_column=label_column,
        normalize_labels=normalize_labels,
        unlabelled=names_of(unlabelled),
        encoding=encoding,
        class_map=class_map or (),
        matrix=matrix,
        model=model,
        overwrite=overwrite,
    )
    out.result(made, [f"{made['changed']} of {made['rows']} labels changed ({made['rate']:.1%}): {output}"])
