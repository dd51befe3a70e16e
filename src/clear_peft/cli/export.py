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
    onnx: Annotated[
        bool,
        typer.Option(
            "--onnx", help="Write model.onnx, too, and compare it with torch.", rich_help_panel=OUTPUT
        ),
    ] = False,
    trust_remote_code: TrustOption = False,
    overwrite: OverwriteOption = False,
    format: FormatOption = Format.human,  # noqa: A002
) -> None:
    """Merge the adapter of a run into its model, for whatever serves transformers models."""
    from clear_peft.pipeline.merging import ONNX
    from clear_peft.pipeline.merging import export as write_model

    out: Output = context.obj
    out.stage(f"Merging {run}")
    made = write_model(run, output, onnx=onnx, overwrite=overwrite, trust_remote_code=trust_remote_code)
    lines = [f"Model: {output}", f"Its logits are those of the run within {made.difference:.1g}"]
    values = {"output": str(output), "largest_difference": made.difference}
    if made.onnx is not None:
        lines += [f"ONNX: {output / ONNX}", f"Its logits are the same within {made.onnx:.1g} of the largest"]
        values |= {"onnx": str(output / ONNX), "onnx_relative_difference": made.onnx}
    out.result(values, lines)
