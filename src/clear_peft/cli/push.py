"""``clear-peft push``."""

from typing import Annotated

import typer

from clear_peft.cli.options import OUTPUT, FormatOption, RunOption
from clear_peft.cli.output import Format, Output


def push(
    context: typer.Context,
    run: RunOption,
    repo_id: Annotated[
        str,
        typer.Option("--repo-id", help="Name on the hub, such as someone/tickets.", rich_help_panel=OUTPUT),
    ],
    private: Annotated[
        bool, typer.Option("--private", help="Show it to its owner alone.", rich_help_panel=OUTPUT)
    ] = False,
    format: FormatOption = Format.human,  # noqa: A002
) -> None:
    """Upload the adapter of a run and its card to the Hugging Face hub; no text of the table goes along."""
    from clear_peft.pipeline.push import push as upload

    out: Output = context.obj
    out.stage(f"Uploading the adapter of {run}")
    url, files = upload(run, repo_id, private=private)
    out.result({"url": url, "files": files}, [f"Model: {url}", f"Files: {', '.join(files)}"])
