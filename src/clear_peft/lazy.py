"""Names that are imported when they are first used: torch, peft and transformers take seconds."""

import gc
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, nullcontext
from importlib import import_module
from typing import Any


def lazy_attributes(package: str, homes: Mapping[str, str]) -> Callable[[str], Any]:
    """Make a package's ``__getattr__``.

    Args:
        package: ``__name__`` of the package.
        homes: The module in which each public name lives.
    """

    def __getattr__(name: str) -> Any:  # noqa: N807
        if name not in homes:
            raise AttributeError(f"module {package!r} has no attribute {name!r}")
        with nullcontext() if homes[name] in sys.modules else quick_imports():
            return getattr(import_module(homes[name]), name)

    return __getattr__


@contextmanager
def quick_imports() -> Iterator[None]:
    """Inside, no garbage is looked for.

    What torch and transformers import is close to a million objects, nearly all of which stay. Python would
    look through them nine times meanwhile, which is a third of the time.
    """
    if not gc.isenabled():
        yield
        return
    gc.disable()
    try:
        yield
    finally:
        if not gc.get_freeze_count():
            # makes them all old, without a look at them; what others have frozen stays so
            gc.freeze()
            gc.unfreeze()
        gc.enable()
