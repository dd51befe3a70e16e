"""``clear-peft predict``."""

from pathlib import Path
from typing import Annotated, Any

import typer

from clear_peft.cli.options import (
    DATA,
    OUTPUT,
    CpusOption,
    DeviceOption,
    EncodingOption,
    Engine,
    EngineOption,
    FormatOption,
    GpusOption,
    OverwriteOption,
    RunOption,
    TextColumnOption,
    TrustOption,
)
from clear_peft.cli.output import Format, Output, counted
from clear_peft.errors import InputError


def predict(
    context: typer.Context,
    run: RunOption,
    data: Annotated[str, typer.Option(help="Table with the run's text column.", rich_help_panel=DATA)],
    output: Annotated[
        Path,
        typer.Option(
            help="CSV, TSV, JSONL or Parquet file to write; with --engine ray, a folder of Parquet files.",
            rich_help_panel=OUTPUT,
        ),
    ],
    text_column: TextColumnOption = None,
    encoding: EncodingOption = None,
    device: DeviceOption = "auto",
    trust_remote_code: TrustOption = False,
    top: Annotated[
        int,
        typer.Option(
            metavar="K",
            help="Likeliest classes to write: more than one as predicted_label_2, confidence_2 and so on. Of "
            "several labels a row, predicted_labels has all that are likelier to apply than not.",
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
    engine: EngineOption = Engine.embedded,
    cpus: CpusOption = None,
    gpus: GpusOption = None,
    format: FormatOption = Format.human,  # noqa: A002
) -> None:
    """Predict the labels of a table with a finished run."""
    out: Output = context.obj
    added: dict[str, Any] = {
        "text_column": text_column or None,
        "top": top,
        "probabilities": probabilities,
        "overwrite": overwrite,
        "device": device,
        "trust_remote_code": trust_remote_code,
    }
    if engine is Engine.ray:
        if encoding is not None:
            raise InputError("--engine ray reads Parquet, which has no --encoding: leave that out.")
        from clear_peft.pipeline.ray_predict import predict_with_ray

        rows = predict_with_ray(run, data, output, out, **added, cpus=cpus or 1, gpus=gpus or 0)
    elif cpus is not None or gpus is not None:
        raise InputError("--cpus and --gpus are for Ray: add --engine ray.")
    else:
        from clear_peft import pipeline

        out.stage(f"Predicting {data}")
        rows = pipeline.predict(run, data, str(output), encoding=encoding, **added)
    out.result({"rows": rows, "output": str(output)}, [f"{counted(rows, 'prediction')}: {output}"])
