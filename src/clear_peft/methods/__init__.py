"""One file per way to train on doubtful labels; light, so that the command line can list them."""

from clear_peft.errors import InputError
from clear_peft.methods import (
    cleanlab,
    clear,
    co_teaching,
    early_stopping,
    elr,
    full,
    full_early_stopping,
    gce,
    label_smoothing,
    plain,
    sce,
    selc,
    selfmix,
    stgn,
)
from clear_peft.methods.method import Method

METHODS: dict[str, Method] = {
    module.METHOD.name: module.METHOD
    for module in (
        clear,
        plain,
        early_stopping,
        full,
        full_early_stopping,
        label_smoothing,
        gce,
        sce,
        elr,
        selc,
        stgn,
        co_teaching,
        selfmix,
        cleanlab,
    )
}


def find(name: str) -> Method:
    """Look a method up.

    Raises:
        InputError: If there is none of that name.
    """
    if name not in METHODS:
        raise InputError(f"There is no method {name!r}: choose from {', '.join(METHODS)}.")
    return METHODS[name]


__all__ = ["METHODS", "Method", "find"]
