"""One file per way to train on doubtful labels; light, so that the command line can list them."""

from clear_peft.errors import InputError
from clear_peft.methods import clear, full, plain
from clear_peft.methods.method import Method

METHODS: dict[str, Method] = {m.name: m for m in (clear.METHOD, plain.METHOD, full.METHOD)}


def find(name: str) -> Method:
    """Look a method up.

    Raises:
        InputError: If there is none of that name.
    """
    if name not in METHODS:
        raise InputError(f"There is no method {name!r}: choose from {', '.join(METHODS)}.")
    return METHODS[name]


__all__ = ["METHODS", "Method", "find"]
