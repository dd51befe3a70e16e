"""``clear-peft scan``."""

from typing import TYPE_CHECKING, Annotated, Any

import typer

from clear_peft.cli.options import FormatOption, OverwriteOption
from clear_peft.cli.output import Format, Output, shown

if TYPE_CHECKING:
    from clear_peft.pipeline.scan import ScanResult

_TOP, _PAIRS = 10, 5
_DATA, _JUDGE, _OUTPUT = "Data", "Judge", "Output"


def scan(
    context: typer.Context,
    data: Annotated[
        str,
        typer.Option(
            help="CSV, TSV, JSONL, Parquet, or hub data set NAME[:CONFIG][@SPLIT].",
            rich_help_panel=_DATA,
        ),
    ],
    text_column: Annotated[str, typer.Option(help="Column of the texts.", rich_help_panel=_DATA)] = "text",
    label_column: Annotated[str, typer.Option(help="Column of the labels.", rich_help_panel=_DATA)] = "label",
    group_column: Annotated[
        str | None,
        typer.Option(
            help="Column that says which rows belong together, such as a customer or a document.",
            rich_help_panel=_DATA,
        ),
    ] = None,
    verified_column: Annotated[
        str | None,
        typer.Option(
            help="Column that says which rows a person has looked at: their true label, or true where the "
            "given one is right.",
            rich_help_panel=_DATA,
        ),
    ] = None,
    verified: Annotated[
        str | None,
        typer.Option(
            help="corrections.csv of an earlier report, in place of that column: kept and relabelled rows "
            "are verified.",
            rich_help_panel=_DATA,
        ),
    ] = None,
    model: Annotated[
        str | None,
        typer.Option(
            help="Hub name or path of a pretrained encoder (default: all-MiniLM-L6-v2).",
            rich_help_panel=_JUDGE,
        ),
    ] = None,
    max_length: Annotated[int, typer.Option(help="Tokens per text.", min=1, rich_help_panel=_JUDGE)] = 128,
    pred_probs: Annotated[
        str | None,
        typer.Option(
            help="Instead of a model: .npy or Parquet file of out-of-sample probabilities, a column for each "
            "class; classes by number where all labels are whole numbers, else sorted by name.",
            rich_help_panel=_JUDGE,
        ),
    ] = None,
    embeddings: Annotated[
        str | None,
        typer.Option(
            help="Instead of a model: .npy or Parquet file of embeddings, a row for each row.",
            rich_help_panel=_JUDGE,
        ),
    ] = None,
    no_cache: Annotated[
        bool,
        typer.Option(
            "--no-cache",
            help="Keep no features of texts for the next scan in ~/.cache/clear-peft, or $CLEAR_PEFT_CACHE.",
            rich_help_panel=_JUDGE,
        ),
    ] = False,
    trust_remote_code: Annotated[
        bool,
        typer.Option(
            "--trust-remote-code", help="Run code that comes with the model.", rich_help_panel=_JUDGE
        ),
    ] = False,
    output: Annotated[
        str | None,
        typer.Option(
            help="Folder to write (default: scan- and the name of the data).", rich_help_panel=_OUTPUT
        ),
    ] = None,
    overwrite: OverwriteOption = False,
    format: FormatOption = Format.human,  # noqa: A002
) -> None:
    """Say which labels of a table look wrong: one pass of a frozen model, no training."""
    from clear_peft.pipeline.scan import ScanOptions
    from clear_peft.pipeline.scan import scan as scan_table

    out: Output = context.obj
    found = scan_table(
        ScanOptions(
            data=data,
            text_column=text_column,
            label_column=label_column,
            group_column=group_column,
            verified_column=verified_column,
            verified=verified,
            model=model,
            pred_probs=pred_probs,
            embeddings=embeddings,
            output=output,
            max_length=max_length,
            cache=not no_cache,
            trust_remote_code=trust_remote_code,
            overwrite=overwrite,
        ),
        out,
    )
    values = _values(found)
    out.suspicious(values, _lines(found, values))


def _values(found: "ScanResult") -> dict[str, Any]:
    """The scan for a program."""
    from clear_peft.audit import confused_pairs
    from clear_peft.run_folder.layout import LABEL_ISSUES, REPORT

    issues = found.audit.issues
    pairs = confused_pairs(found.audit.joint, found.audit.labels, len(issues), limit=_PAIRS)
    return {
        **found.metrics,
        "confused": pairs.to_dict("records"),
        "most_suspicious": issues.head(_TOP).to_dict("records"),
        "label_issues": str(found.folder / LABEL_ISSUES),
        "report": str(found.folder / REPORT),
    }


def _lines(found: "ScanResult", values: dict[str, Any]) -> list[str]:
    """The scan for a person."""
    lines = [
        f"{values['rows']} rows, {values['classes']} classes",
        f"Estimated share of wrong labels: {found.audit.noise_rate:.1%} "
        f"({found.audit.said_interval('{:.1%}'.format)})",
        f"{values['listed']} rows are more likely wrong than right",
    ]
    if values["verified"]:
        lines.append(f"{values['verified']} rows are verified, and the others are judged by them")
    if values["confused"]:
        lines.append("Classes most often taken for each other:")
        lines += [
            f"  {shown(pair['true'])} labelled {shown(pair['given'])}: about {pair['rows']:.0f} rows"
            for pair in values["confused"]
        ]
    return [
        *lines,
        f"All rows: {values['label_issues']}",
        f"Report: {values['report']}",
        f"{values['seconds']:.1f} seconds",
    ]
