"""The command tree, and how a command ends."""

import logging
import os
import sys
import time
import warnings
from typing import Annotated

import typer

from clear_peft.cli import audit, bench, demo, evaluate, noise, predict, report, scan, train
from clear_peft.cli.output import Output
from clear_peft.errors import InputError

app = typer.Typer(
    help="Fine-tune by PEFT on labels you cannot trust; get an adapter and a ranked list of wrong labels.",
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
for command in (
    scan.scan,
    train.train,
    audit.audit,
    report.report,
    predict.predict,
    evaluate.evaluate,
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
}
# how long torchrun takes, at the most, to end the other processes once one has failed
_FIRST_TO_SPEAK = 5.0


@app.callback(invoke_without_command=True)
def _root(
    context: typer.Context,
    version: Annotated[bool, typer.Option("--version", help="Show the version and exit.")] = False,
) -> None:
    if version:
        from clear_peft import __version__

        typer.echo(__version__)
    elif context.invoked_subcommand is None:
        typer.echo(context.get_help())
    else:
        context.ensure_object(Output).command = context.invoked_subcommand


def main() -> None:
    """Run the command line: status 0 done, 1 failed, 2 wrong input, 130 interrupted."""
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):  # a terminal that cannot show a character shows another
            stream.reconfigure(errors="replace")
    output = Output()
    # what libraries remark on the way is for their authors; what goes wrong is raised
    warnings.simplefilter("ignore")
    logging.disable(logging.WARNING)
    sys.exit(_run(output))


def _run(output: Output) -> int:
    try:
        status = app(obj=output, standalone_mode=False)
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
    except OSError as error:
        output.error(f"{error}; free space or mend the rights{_HOW_TO_GO_ON.get(output.command, '')}.")
        return 1
    if status == _INTERRUPTED:
        output.error(f"Interrupted{_HOW_TO_GO_ON.get(output.command, '')}.")
    return status or 0


def _let_the_first_speak() -> None:
    """What is wrong for all of several processes is said once: torchrun ends those that wait here."""
    if os.environ.get("RANK", "0") != "0":
        time.sleep(_FIRST_TO_SPEAK)
