"""``clear-peft review``."""

from contextlib import suppress
from typing import Annotated, Any

import typer

from clear_peft.cli.output import Output

_DATA, _JUDGE, _PAGE = "Data", "Judge", "Page"


def review(
    context: typer.Context,
    data: Annotated[
        str,
        typer.Option(
            help="CSV, TSV, JSONL, Parquet, or hub data set NAME[:CONFIG][@SPLIT].", rich_help_panel=_DATA
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
    model: Annotated[
        str | None,
        typer.Option(
            help="Hub name or path of a pretrained encoder (default: all-MiniLM-L6-v2).",
            rich_help_panel=_JUDGE,
        ),
    ] = None,
    max_length: Annotated[int, typer.Option(help="Tokens per text.", min=1, rich_help_panel=_JUDGE)] = 128,
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
            help="Keep no features of texts for the next time in ~/.cache/clear-peft, or $CLEAR_PEFT_CACHE.",
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
            help="Folder of the scan and of corrections.csv; an earlier review there goes on (default: scan- "
            "and the name of the data).",
            rich_help_panel=_PAGE,
        ),
    ] = None,
    batch: Annotated[
        int,
        typer.Option(help="Rows before all others are judged anew.", min=1, max=100, rich_help_panel=_PAGE),
    ] = 20,
    port: Annotated[
        int,
        typer.Option(
            help="Port of this machine (default: a free one).", min=0, max=65535, rich_help_panel=_PAGE
        ),
    ] = 0,
    no_browser: Annotated[
        bool,
        typer.Option("--no-browser", help="Print the link and open no browser.", rich_help_panel=_PAGE),
    ] = False,
) -> None:
    """Say in a browser which labels are right; the other rows are judged by your answers."""
    from clear_peft.pipeline.scan import ScanOptions
    from clear_peft.review import Review, ReviewServer

    out: Output = context.obj
    session = Review(
        ScanOptions(
            data=data,
            text_column=text_column,
            label_column=label_column,
            group_column=group_column,
            model=model,
            embeddings=embeddings,
            output=output,
            max_length=max_length,
            cache=not no_cache,
            trust_remote_code=trust_remote_code,
        ),
        out,
        batch_size=batch,
    )
    with ReviewServer(session, port) as server:
        out.stage(f"Review: {server.url} (stop it there by Finish, or here by Ctrl+C)")
        if not no_browser:
            typer.launch(server.url)
        # the answers are kept already, so Ctrl+C is as good an end as any
        with suppress(KeyboardInterrupt):
            server.serve_forever()
    out.result(session.summary, _lines(data, session.summary))


def _lines(data: str, summary: dict[str, Any]) -> list[str]:
    """The end of a review for a person."""
    given = summary["answered"]
    lines = [f"{given['keep']} labels are right, {given['relabel']} wrong, {given['drop']} rows of no use"]
    if not sum(given.values()):
        return ["Nothing was answered"]
    source = f"by {summary['random_rows']} random rows" if summary["random_rows"] else "by the model alone"
    lines.append(f"Estimated share of wrong labels: {summary['noise_rate']:.1%} ({source})")
    if given["keep"] + given["relabel"]:
        lines.append(
            f"Train with your answers: clear-peft train --data {data} --verified {summary['corrections']}"
        )
    return lines
