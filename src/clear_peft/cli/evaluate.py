"""``clear-peft evaluate``."""

from typing import Annotated

import typer

from clear_peft.cli.options import (
    DATA,
    EncodingOption,
    FormatOption,
    RunOption,
    TextColumnOption,
    TrustOption,
)
from clear_peft.cli.output import Format, Output


def evaluate(
    context: typer.Context,
    run: RunOption,
    data: Annotated[
        str, typer.Option(help="Table with the run's text and label columns.", rich_help_panel=DATA)
    ],
    text_column: TextColumnOption = None,
    label_column: Annotated[
        str | None,
        typer.Option(help="Column of the labels (default: as in the run's table).", rich_help_panel=DATA),
    ] = None,
    encoding: EncodingOption = None,
    trust_remote_code: TrustOption = False,
    format: FormatOption = Format.human,  # noqa: A002
) -> None:
    """Measure a finished run on a table with right labels."""
    from clear_peft import pipeline

    out: Output = context.obj
    out.stage(f"Evaluating on {data}")
    scores = pipeline.evaluate(
        run,
        data,
        text_column=text_column or None,
        label_column=label_column,
        encoding=encoding,
        trust_remote_code=trust_remote_code,
    )
    line = (
        f"accuracy {scores['accuracy']:.4f}, macro-F1 {scores['macro_f1']:.4f} on {scores['examples']} rows"
    )
    out.result(scores, [line])
