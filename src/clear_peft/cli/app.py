"""The command tree, and how a command ends."""

import os
import sys
import time
from typing import Annotated, Any

import typer
import typer.main
from rich.markup import escape

from clear_peft.cli import (
    audit,
    bench,
    demo,
    evaluate,
    export,
    noise,
    predict,
    push,
    report,
    review,
    scan,
    train,
)
from clear_peft.cli.examples import EXAMPLES
from clear_peft.cli.notes import note_everything, noted
from clear_peft.cli.output import Output
from clear_peft.errors import InputError, RunFailedError
from clear_peft.surroundings import check_single_process

app = typer.Typer(
    help="Fine-tune by PEFT on labels you cannot trust; get an adapter and a ranked list of wrong labels.",
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
for command in (
    scan.scan,
    review.review,
    train.train,
    audit.audit,
    report.report,
    predict.predict,
    evaluate.evaluate,
    export.export,
    push.push,
    noise.noise,
    demo.demo,
):
    app.command()(command)
app.add_typer(bench.bench, name="bench")

_INTERRUPTED = 130
# of the commands whose work is not lost
_HOW_TO_GO_ON = {
    "train": "; --resume goes on from the last checkpoint, if there is one",
    "bench": "; the same command goes on from here",
    "review": "; your answers are kept, and the same command goes on from there",
}
# how long torchrun takes, at the most, to end the other processes once one has failed
_FIRST_TO_SPEAK = 20


@app.callback(invoke_without_command=True)
def _root(
    context: typer.Context,
    version: Annotated[bool, typer.Option("--version", help="Show the version and exit.")] = False,
    verbose: Annotated[
        bool,
        typer.Option(
            "--verbose",
            help="Show log lines and warnings of all libraries. Stands before the command: "
            "clear-peft --verbose train …",
        ),
    ] = False,
) -> None:
    if verbose:
        note_everything(context.ensure_object(Output))
    if version:
        from clear_peft import __version__

        typer.echo(__version__)
    elif context.invoked_subcommand is None:
        typer.echo(context.get_help())
    else:
        context.ensure_object(Output).command = context.invoked_subcommand
        if context.invoked_subcommand != "train":
            check_single_process(str(context.invoked_subcommand))


def main() -> None:
    """Run the command line: status 0 done, 1 failed, 2 wrong input, 130 interrupted."""
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):  # a terminal that cannot show a character shows another
            stream.reconfigure(errors="replace")
    output = Output()
    with noted(output):
        sys.exit(_run(output))


def _run(output: Output) -> int:
    try:
        command = typer.main.get_command(app)
        _finish_help(command)
        status = command(obj=output, standalone_mode=False)
    except KeyboardInterrupt:  # while typer builds the commands; later it makes a status of it itself
        status = _INTERRUPTED
    except InputError as error:
        _let_the_first_speak()
        output.error(str(error))
        return 2
    except typer.TyperException as error:
        # an option that is missing, unknown or of the wrong type
        _let_the_first_speak()
        said = str(getattr(error, "format_message", error.__str__)())
        output.error(f"{said.rstrip('.')}; see --help.")
        return 2
    except RunFailedError as error:
        _let_the_first_speak()
        output.error(str(error))
        return 1
    except OSError as error:
        output.error(f"{error}; free space or mend the rights{_HOW_TO_GO_ON.get(output.command, '')}.")
        return 1
    if status == _INTERRUPTED:
        output.error(f"Interrupted{_HOW_TO_GO_ON.get(output.command, '')}.")
    return status or 0


def _finish_help(command: Any, words: str = "") -> None:
    """Add the examples to the help of a command, and let its square brackets be no markup of rich."""
    for described in (command, *command.params):
        described.help = escape(getattr(described, "help", None) or "")
    examples = EXAMPLES.get(words, ())
    command.epilog = "\n\n".join(["Examples:", *map(escape, examples)]) if examples else None
    for name, child in getattr(command, "commands", {}).items():
        _finish_help(child, f"{words} {name}".strip())


def _let_the_first_speak() -> None:
    """What is wrong for all of several processes is said once: torchrun ends those that wait here."""
    if os.environ.get("RANK", "0") != "0":
        time.sleep(_FIRST_TO_SPEAK)
