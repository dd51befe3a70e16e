"""``clear-peft predict``."""

from pathlib import Path
from typing import Annotated

import typer

from clear_peft.cli.options import (
    DATA,
    OUTPUT,
    DeviceOption,
    EncodingOption,
    FormatOption,
    OverwriteOption,
    RunOption,
    TextColumnOption,
    TrustOption,
)
from clear_peft.cli.output import Format, Output, counted


def predict(
    context: typer.Context,
    run: RunOption,
    data: Annotated[str, typer.Option(help="Table with the run's text column.", rich_help_panel=DATA)],
    output: Annotated[
        Path, typer.Option(help="CSV, TSV, JSONL or Parquet file to write.", rich_help_panel=OUTPUT)
    ],
    text_column: TextColumnOption = None,
    encoding: EncodingOption = None,
    device: DeviceOption = "auto",
    trust_remote_code: TrustOption = False,
    top: Annotated[
        int,
        typer.Option(
            metavar="K",
            help="Likeliest classes to write: more than one as predicted_label_2, confidence_2 and so on.",
            rich_help_panel=OUTPUT,
        ),
    ] = 1,
    probabilities: Annotated[
        bool,
        typer.Option(
            "--probabilities",
            help="Write the probability of each class too, as probability_ and its name.",
            rich_help_panel=OUTPUT,
        ),
    ] = False,
    overwrite: OverwriteOption = False,
    format: FormatOption = Format.human,  # noqa: A002
) -> None:
    """Predict the labels of a table with a finished run."""
    from clear_peft import pipeline

    out: Output = context.obj
    out.stage(f"Predicting {data}")
    rows = pipeline.predict(
        run,
        data,
        str(output),
        text_column=text_column or None,
        encoding=encoding,
        top=top,
        probabilities=probabilities,
        overwrite=overwrite,
        device=device,
        trust_remote_code=trust_remote_code,
    )
    out.result({"rows": rows, "output": str(output)}, [f"{counted(rows, 'prediction')}: {output}"])
