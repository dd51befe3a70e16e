"""What an option of a run is, in words."""

from dataclasses import dataclass
from types import NoneType
from typing import Any, get_args, get_origin

from pydantic import ConfigDict, TypeAdapter, ValidationError

from clear_peft.errors import InputError

KINDS = {
    str: "text",
    int: "a whole number",
    float: "a number",
    bool: "true or false",
    list: "a list of names",
    dict: "options by name, as JSON can hold them",
}


@dataclass(frozen=True)
class Option:
    """A field of ``RunConfig``, as a command line or a table shows it.

    Attributes:
        name: As in ``config.yaml``.
        kind: ``str``, ``int``, ``float``, ``bool``, ``list`` (of names) or ``dict`` (options by name).
        required: Whether it has to be given.
        default: None where it has none, or the meaning says what it is.
        limits: Of a number, in words; may be empty.
        choices: Values that it may have; none: any of its kind.
        panel: Where ``--help`` shows it.
        meaning: What it is.
        repeated: Whether a list may be given in place of one value, as by giving it several times.
    """

    name: str
    kind: type
    required: bool
    default: Any
    limits: str
    choices: tuple[str, ...]
    panel: str
    meaning: str
    repeated: bool = False

    @property
    def flag(self) -> str:
        """Its name on a command line."""
        return f"--{self.name.replace('_', '-')}"

    @property
    def wanted(self) -> str:
        """What to give, for a sentence."""
        return f"{KINDS[self.kind]} {self.limits}".rstrip()


def kind_of(annotation: Any) -> type:
    """``list`` of ``list[str] | None``, and so on."""
    inner = [kind for kind in get_args(annotation) if kind is not NoneType]
    if NoneType in get_args(annotation):
        return kind_of(inner[0])
    if list[str] in inner:  # or one name
        return str
    return get_origin(annotation) or annotation


def limits_of(constraints: list[Any]) -> str:
    """What a number has to be, in words; may be empty."""
    limits = {
        name: getattr(limit, name)
        for limit in constraints
        for name in ("ge", "gt", "le", "lt")
        if hasattr(limit, name)
    }
    match limits:
        case {"ge": low, "le": high}:
            return f"from {low} to {high}"
        case {"gt": low, "lt": high}:
            return f"above {low} and below {high}"
        case {"ge": low}:
            return f"of at least {low}"
        case {"gt": low}:
            return f"above {low}"
    return ""


def check_type(name: str, value: object, kind: Any) -> None:
    """Refuse a value of another type.

    Args:
        name: Of the option, for the sentence.
        value: Its value.
        kind: ``str``, ``int``, ``float`` or ``bool``, or one of them or None.

    Raises:
        InputError: If it is of another type.
    """
    try:
        TypeAdapter(kind, config=ConfigDict(strict=True)).validate_python(value)
    except ValidationError as error:
        raise InputError(f"{name} is {shown(value)}: give {KINDS[kind_of(kind)]}.") from error


def shown(value: object) -> str:
    """A value for a sentence."""
    try:
        return repr(value)
    except ValueError:  # Python writes out no whole number of more than 4,300 digits
        return "too long a number"
