"""Losses by name."""

import inspect
from collections.abc import Callable, Mapping
from typing import Any

from clear_peft.errors import InputError
from clear_peft.losses.base import Loss
from clear_peft.losses.elr import ELR
from clear_peft.losses.selc import SELC
from clear_peft.losses.stateless import GCE, SCE, CrossEntropy, LabelSmoothing
from clear_peft.losses.stgn import STGN

# called as kind(num_examples, num_classes, **options)
LOSSES: dict[str, Callable[..., Loss]] = {
    kind.name: kind for kind in (CrossEntropy, LabelSmoothing, GCE, SCE, ELR, SELC, STGN)
}


def make_loss(
    name: str, num_examples: int, num_classes: int, options: Mapping[str, Any] | None = None
) -> Loss:
    """Make a loss for a training set.

    Args:
        name: One of ``LOSSES``.
        num_examples: N, the size of the training set.
        num_classes: C.
        options: Of that loss, by name. Default: its defaults.

    Raises:
        InputError: If there is no loss or option of that name, one that it needs is missing, or one is
            out of its range.
    """
    if name not in LOSSES:
        raise InputError(f"There is no loss {name!r}: choose from {', '.join(LOSSES)}.")
    kind, options = LOSSES[name], options or {}
    parameters = inspect.signature(kind).parameters.values()
    own = [parameter for parameter in parameters if parameter.kind is parameter.KEYWORD_ONLY]
    names = [parameter.name for parameter in own]
    unknown = ", ".join(option for option in options if option not in names)
    if unknown:
        remedy = f"choose from {', '.join(names)}" if names else "leave it out, there are none"
        raise InputError(f"Loss {name!r} has no option {unknown}: {remedy}.")
    missing = ", ".join(p.name for p in own if p.default is p.empty and p.name not in options)
    if missing:
        raise InputError(f"Loss {name!r} needs the option {missing}: give it.")
    return kind(num_examples, num_classes, **options)
