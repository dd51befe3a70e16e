"""Options of a method that is more than an objective."""

from dataclasses import MISSING, fields
from typing import TypeVar

from clear_peft.errors import InputError
from clear_peft.trainer.config import CleaRConfig

Options = TypeVar("Options")


def method_options(kind: type[Options], method: str, args: CleaRConfig) -> Options:
    """Make a method's options out of ``args.loss_options``.

    Args:
        kind: Dataclass of the options; those without a default have to be given.
        method: Name of the method, for the sentence.
        args: The settings; the objective must be cross entropy, and clean routing off.

    Raises:
        InputError: If the objective is another, gates are on, classes are weighed, or an option is unknown or
            missing.
    """
    if args.loss != "cross_entropy":
        raise InputError(f"{method} trains on cross entropy: leave out loss {args.loss!r}.")
    if args.clean_routing:
        raise InputError(f"{method} has no gates: set clean_routing=False.")
    if args.class_weights != "none":
        raise InputError(f"{method} compares the losses of rows as they are: leave out class_weights.")
    given = args.options
    own = {field.name: field.default is MISSING for field in fields(kind)}  # type: ignore[arg-type]
    if unknown := ", ".join(name for name in given if name not in own):
        raise InputError(f"{method} has no option {unknown}: choose from {', '.join(own)}.")
    if missing := ", ".join(name for name, needed in own.items() if needed and name not in given):
        raise InputError(f"{method} has to be told the {missing}: give loss_options {{{missing}: …}}.")
    return kind(**given)
