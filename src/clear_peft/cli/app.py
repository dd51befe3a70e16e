"""The command tree, and how a command ends."""

import logging
import sys
import warnings
from typing import Annotated

import typer

from clear_peft.cli import demo, evaluate, predict, train
from clear_peft.cli.output import Format, Output
from clear_peft.errors import InputError

app = typer.Typer(
    help="Fine-tune by PEFT on labels you cannot trust; get an adapter and a ranked list of wrong labels.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
for command in (train.train, predict.predict, evaluate.evaluate, demo.demo):
    app.command()(command)


@app.callback(invoke_without_command=True)
def _version(
    context: typer.Context,
    version: Annotated[bool, typer.Option("--version", help="Show the version and exit.")] = False,
) -> None:
    if version:
        from clear_peft import __version__

        typer.echo(__version__)
        raise typer.Exit


def main() -> None:
    """Run the command line: status 0 done, 1 failed, 2 wrong input, 130 interrupted."""
    output = Output(Format.json if "json" in sys.argv else Format.human)
    # what libraries remark on the way is for their authors; what goes wrong is raised
    warnings.simplefilter("ignore")
    logging.getLogger("transformers").setLevel(logging.ERROR)
    try:
        app()
    except InputError as error:
        output.error(str(error))
        sys.exit(2)
    except KeyboardInterrupt:
        output.error("interrupted; a training run is carried on with train --resume")
        sys.exit(130)
    except OSError as error:
        output.error(f"{error}; free space or mend the rights, and carry a training run on with --resume")
        sys.exit(1)
