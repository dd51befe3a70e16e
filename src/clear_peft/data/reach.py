"""Whether the hub of Hugging Face answers: its clients ask six times for each file, which takes minutes."""

import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from threading import Thread

from clear_peft.errors import InputError

# for all of name, connection and answer; each address of a name may take as long by itself
_SECONDS = 10.0
_NO_HUB_NAME = (".", "/", "~")


@contextmanager
def hub_or_cache(name: str) -> Iterator[None]:
    """Inside, the hub's clients look into their cache alone if the hub does not answer within ten seconds.

    Args:
        name: What is loaded inside: a hub name, or a path, of which the hub is not asked.

    Raises:
        InputError: If it does not answer, and what is loaded is not in the cache.
    """
    from huggingface_hub import constants, is_offline_mode

    if os.path.isdir(name) or name.startswith(_NO_HUB_NAME) or is_offline_mode() or _answers():  # noqa: PTH112
        yield
        return
    import datasets

    before = constants.HF_HUB_OFFLINE, datasets.config.HF_HUB_OFFLINE
    constants.HF_HUB_OFFLINE = datasets.config.HF_HUB_OFFLINE = True
    try:
        yield
    except (OSError, ValueError) as error:
        if isinstance(error, InputError):
            raise
        raise InputError(
            f"{constants.ENDPOINT} does not answer, and {name!r} is not in its cache on this machine, or not "
            "whole: check the connection, or give the path of a folder or file."
        ) from error
    finally:
        constants.HF_HUB_OFFLINE, datasets.config.HF_HUB_OFFLINE = before


def _answers() -> bool:
    """Whether the hub gives any answer, be it a refusal."""
    from huggingface_hub import constants, get_session

    answers: list[object] = []

    def ask() -> None:
        with suppress(Exception):  # what clients raise is an open list
            answers.append(get_session().head(constants.ENDPOINT, timeout=_SECONDS))

    # a thread, as looking a name up knows no timeout
    asking = Thread(target=ask, daemon=True)
    asking.start()
    asking.join(_SECONDS)
    return bool(answers)
