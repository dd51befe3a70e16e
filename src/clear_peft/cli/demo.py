"""``clear-peft demo``."""

from pathlib import Path
from typing import Annotated

import typer

from clear_peft.cli.options import FormatOption, OverwriteOption
from clear_peft.cli.output import Format, Output


def demo(
    context: typer.Context,
    output: Annotated[Path, typer.Option(help="Folder for the data and the two runs.")] = Path(
        "clear-peft-demo"
    ),
    overwrite: OverwriteOption = False,
    format: FormatOption = Format.human,  # noqa: A002
) -> None:
    """The whole way on packaged news and a packaged model, with 40 % wrong labels put in."""
    from clear_peft.pipeline.demo import run_demo

    out: Output = context.obj
    results = run_demo(output, overwrite=overwrite, reporter=out)
    headings = ("", "accuracy on true test labels", "wrong labels found", "of rows flagged, wrong", "seconds")
    rows = []
    for name, metrics in results.items():
        found = metrics["detection"]
        precision = "–" if found["precision"] is None else f"{found['precision']:.1%}"
        rows.append(
            (
                name,
                f"{metrics['test']['accuracy']:.1%}",
                f"{found['found']} of {found['wrong']}",
                precision,
                f"{metrics['train_seconds']:.0f}",
            )
        )
    files = [
        f"{what:13} {output / name / file}"
        for name in results
        for what, file in (
            ("Adapter:", "adapter"),
            ("Label issues:", "label_issues.csv"),
            ("Report:", "report.html"),
        )
    ]
    out.table(results, "BBC News, 40 % of the training labels wrong", headings, rows, files)
