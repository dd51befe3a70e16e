"""``clear-peft demo``."""

from pathlib import Path
from typing import Annotated, Any

import typer

from clear_peft.cli.options import OUTPUT, FormatOption, OverwriteOption
from clear_peft.cli.output import Format, Output, table_of

_NAMES = {"plain": "plain PEFT", "clear": "clean routing"}


def demo(
    context: typer.Context,
    output: Annotated[
        Path, typer.Option(help="Folder for the data, the scan and the two runs.", rich_help_panel=OUTPUT)
    ] = Path("clear-peft-demo"),
    overwrite: OverwriteOption = False,
    format: FormatOption = Format.human,  # noqa: A002
) -> None:
    """Show what it does, in minutes: find wrong labels in news articles, and train in spite of them."""
    from clear_peft.cli.scan import result_lines, result_values
    from clear_peft.pipeline import demo as parts

    out: Output = context.obj
    how: dict[str, Any] = {"overwrite": overwrite, "reporter": out}
    parts.prepare(output, **how)
    found, counts = parts.scan_demo(output, **how)
    if out.format is Format.human:
        values = result_values(found)
        out.suspicious(values, [*result_lines(found, values), *_of_scan(counts, parts.NOISE_RATE)])
    runs = {method: parts.train_demo(output, method, **how) for method in parts.METHODS}
    headings = ("trained with", "right on test articles", "macro-F1", "wrong labels learnt", "seconds")
    rows = [
        (
            _NAMES[method],
            f"{run['test']['accuracy']:.1%}",
            f"{run['test']['macro_f1']:.1%}",
            f"{run['memorised']:.1%}",
            f"{run['train_seconds']:.0f}",
        )
        for method, run in runs.items()
    ]
    lines = [*_of_runs(runs, parts.EPOCHS, parts.MAX_LENGTH), *_where_to_look(output)]
    table = table_of("The same model, trained twice", headings, rows)
    out.tables({"scan": counts, **runs}, [table], lines)


def _of_scan(counts: dict[str, int], rate: float) -> list[str]:
    """What the scan has shown, in words."""
    return [
        "",
        f"In this table, an article carries the name of the next topic with a probability of {rate:.0%}.",
        f"The scan does not know the true labels. It lists {counts['listed']} rows, and the labels of "
        f"{counts['found']} of them are wrong; {counts['wrong']} labels are wrong in all.",
        "",
    ]


def _of_runs(runs: dict[str, Any], epochs: int, max_length: int) -> list[str]:
    """What the two runs have shown, in words."""
    right = {method: f"{run['test']['accuracy']:.1%}" for method, run in runs.items()}
    rows = runs["plain"]["rows"]
    return [
        "",
        f"Both were trained on the same {rows['train']} rows, wrong labels included: {epochs} epochs, "
        f"{max_length} tokens of each text.",
        f"Plain PEFT trusts every label. It gets the topic of {right['plain']} of {rows['test']} test "
        "articles right.",
        f"Clean routing trusts a label as far as it looks right. It gets {right['clear']} right.",
        "",
    ]


def _where_to_look(output: Path) -> list[str]:
    page = (output / "clear" / "report.html").resolve().as_uri()
    return [
        f"Open the report:   python3 -m webbrowser {page}",
        f"All labels judged: {output / 'clear' / 'label_issues.csv'}",
        f"Adapter:           {output / 'clear' / 'adapter'}",
    ]
