"""``clear-peft review``."""

import shlex
from contextlib import suppress
from typing import Annotated, Any

import typer

from clear_peft.cli.options import (
    AnnotatorColumnOption,
    DataOption,
    EmbeddingsOption,
    EncoderDeviceOption,
    EncoderOption,
    EncoderTrustOption,
    EncodingOption,
    GroupColumnOption,
    LabelColumnOption,
    LongTexts,
    LongTextsOption,
    MaxLengthOption,
    NoCacheOption,
    NormalizeLabelsOption,
    OpinionColumnOption,
    TextColumnsOption,
    UnlabelledOption,
    names_of,
    one_or_more,
)
from clear_peft.cli.output import Output

_PAGE = "Page"


def review(
    context: typer.Context,
    data: DataOption,
    text_column: TextColumnsOption = ["text"],  # noqa: B006
    label_column: LabelColumnOption = "label",
    normalize_labels: NormalizeLabelsOption = False,
    unlabelled: UnlabelledOption = None,
    encoding: EncodingOption = None,
    opinion_column: OpinionColumnOption = None,
    annotator_column: AnnotatorColumnOption = None,
    group_column: GroupColumnOption = None,
    model: EncoderOption = None,
    max_length: MaxLengthOption = 128,
    long_texts: LongTextsOption = LongTexts.head,
    embeddings: EmbeddingsOption = None,
    no_cache: NoCacheOption = False,
    device: EncoderDeviceOption = "auto",
    trust_remote_code: EncoderTrustOption = False,
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
    from clear_peft.pipeline.scan_options import ScanOptions
    from clear_peft.review import Review, ReviewServer

    out: Output = context.obj
    session = Review(
        ScanOptions(
            data=data,
            text_column=one_or_more(text_column),
            label_column=label_column,
            normalize_labels=normalize_labels,
            unlabelled=names_of(unlabelled),
            encoding=encoding,
            opinion_column=opinion_column or (),
            annotator_column=annotator_column or (),
            group_column=group_column,
            model=model,
            embeddings=embeddings,
            output=output,
            max_length=max_length,
            long_texts=long_texts,
            cache=not no_cache,
            device=device,
            trust_remote_code=trust_remote_code,
        ),
        out,
        batch_size=batch,
    )
    with ReviewServer(session, port) as server:
        out.stage(f"Review: {server.url} (stop it there by Finish, or here by Ctrl+C)")
        if not no_browser:
            typer.launch(server.url_for_once())
        # the answers are kept already, so Ctrl+C is as good an end as any
        with suppress(KeyboardInterrupt):
            server.serve_forever()
        with server.lock:  # what is being judged is written to its end
            session.finish()
            summary = session.summary
    table = ["--data", data]
    if text_column != ["text"]:
        table += [word for column in text_column for word in ("--text-column", column)]
    if label_column != "label":
        table += ["--label-column", label_column]
    for option, columns in (("--opinion-column", opinion_column), ("--annotator-column", annotator_column)):
        table += [word for column in columns or () for word in (option, column)]
    for option, value in (
        ("--unlabelled", unlabelled),
        ("--encoding", encoding),
        ("--group-column", group_column),
    ):
        table += [option, value] if value else []
    table += ["--normalize-labels"] if normalize_labels else []
    out.result(summary, _lines(table, summary))


def _lines(table: list[str], summary: dict[str, Any]) -> list[str]:
    """The end of a review for a person."""
    given = summary["answered"]
    lines = [f"{given['keep']} labels are right, {given['relabel']} wrong, {given['drop']} rows of no use"]
    if not sum(given.values()):
        return ["Nothing was answered"]
    source = f"by {summary['random_rows']} random rows" if summary["random_rows"] else "by the model alone"
    lines.append(f"Estimated share of wrong labels: {summary['noise_rate']:.1%} ({source})")
    if given["keep"] + given["relabel"]:
        command = shlex.join(["clear-peft", "train", *table, "--verified", summary["corrections"]])
        command += " --model MODEL --output FOLDER"
        lines.append(f"Train with your answers: {command}")
    return lines
