"""Methods that are stored as another one and trained otherwise: RoSA, MetaPEFT and GLoRA's search."""

from dataclasses import fields
from typing import Any

from clear_peft.errors import InputError
from clear_peft.tuners.names import check_options
from clear_peft.tuners.plans import GloraPlan, MetaPlan, Plan, RosaPlan, part

_EVERYWHERE = {"target_modules", "modules_to_save"}
_BUILT_ON = {"lora": {"r", "lora_alpha", "lora_dropout"}, "adapter": {"width"}}


def translated(method: str, options: dict[str, Any]) -> tuple[str, dict[str, Any], Plan | None]:
    """As what a method is built, with which options, and what it asks of training.

    Args:
        method: A name out of `available_methods()`.
        options: Its options.

    Returns:
        Of other methods than these three the same, and None.

    Raises:
        InputError: If an option is unknown or out of range.
    """
    given = dict(options)
    if method == "rosa":
        return _rosa(given)
    if method == "metapeft":
        return _metapeft(given)
    if method == "glora" and given.pop("search", True):
        return _glora(given)
    return method, given, None


def _rosa(given: dict[str, Any]) -> tuple[str, dict[str, Any], Plan]:
    known = {"density", "r", "lora_alpha", "lora_dropout"}
    check_options("rosa", given, known | _EVERYWHERE | _names(RosaPlan))
    plan = part(RosaPlan, given)
    density, rank = given.pop("density", 0.006), given.setdefault("r", 4)
    if isinstance(density, bool) or not isinstance(density, int | float) or not 0 < density <= 1:
        raise InputError(f"density is {density!r}: give a number above 0 and of at most 1.")
    if isinstance(rank, bool) or not isinstance(rank, int) or rank < 1:
        raise InputError(f"r is {rank!r}: give a whole number of at least 1.")
    given.setdefault("lora_alpha", 2 * rank)
    return "supertuning", {**given, "sparsity": 1 - density}, plan


def _metapeft(given: dict[str, Any]) -> tuple[str, dict[str, Any], Plan]:
    on = given.pop("on", "lora")
    if on not in _BUILT_ON:
        raise InputError(f"MetaPEFT's on is {on!r}: choose from {', '.join(_BUILT_ON)}.")
    check_options("metapeft", given, {"on"} | _BUILT_ON[on] | _EVERYWHERE | _names(MetaPlan))
    plan = part(MetaPlan, given)
    return on, given, plan


def _glora(given: dict[str, Any]) -> tuple[str, dict[str, Any], Plan]:
    check_options("glora", given, {"search", "r"} | _EVERYWHERE | _names(GloraPlan))
    from clear_peft.tuners.glora import SUPERNET_OPTIONS  # peft has it since 0.20

    plan = part(GloraPlan, given)
    return "glora", {"r": 4, **given, **SUPERNET_OPTIONS}, plan


def _names(kind: type[Plan]) -> set[str]:
    return {field.name for field in fields(kind)}
