"""``clear-peft export``."""

from pathlib import Path
from typing import Annotated

import typer

from clear_peft.cli.options import OUTPUT, FormatOption, OverwriteOption, RunOption, TrustOption
from clear_peft.cli.output import Format, Output


def export(
    context: typer.Context,
    run: RunOption,
    output: Annotated[Path, typer.Option(help="Folder to write.", rich_help_panel=OUTPUT)],
    trust_remote_code: TrustOption = False,
    overwrite: OverwriteOption = False,
    format: FormatOption = Format.human,  # noqa: A002
) -> None:
    """Merge the adapter of a run into its model, for whatever serves transformers models."""
    from clear_peft.pipeline.merging import export as write_model

    out: Output = context.obj
    out.stage(f"Merging {run}")
    error = write_model(run, output, overwrite=overwrite, trust_remote_code=trust_remote_code)
    lines = [f"Model: {output}", f"Its logits are those of the run within {error:.1g}"]
    out.result({"output": str(output), "largest_difference": error}, lines)
