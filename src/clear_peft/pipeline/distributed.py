"""Several processes, as torchrun and accelerate start them: all train, and the first one writes."""

import atexit
import os
import sys
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path

from accelerate import PartialState

from clear_peft.errors import InputError


def is_main_process() -> bool:
    """Whether this process is the one that writes and speaks; True where there is no other."""
    return PartialState().is_main_process


def check_whole_weights() -> None:
    """Refuse shards: the first process alone evaluates and writes, by weights that it holds.

    Raises:
        InputError: If accelerate launch is to shard.
    """
    for name in ("FSDP", "DEEPSPEED"):
        if os.environ.get(f"ACCELERATE_USE_{name}", "false").lower() in ("true", "1"):
            raise InputError(
                f"clear-peft train keeps whole weights in each process: leave {name} out, or train by "
                "CleaRTrainer, which shards, in a script of your own."
            )


@contextmanager
def main_process_first(opening: AbstractContextManager[Path], folder: Path) -> Iterator[Path]:
    """Inside, the folder is there: the first process has opened it when all had checked what they read.

    Args:
        opening: What makes the folder, and mends it after an error.
        folder: What it will yield, as the other processes see it.
    """
    processes = PartialState()
    processes.wait_for_everyone()
    if processes.is_main_process:
        with opening:
            processes.wait_for_everyone()
            yield folder
    else:
        processes.wait_for_everyone()
        yield folder


def shutdown() -> None:
    """End this process where it is one of several; elsewhere, nothing.

    Without Python's own last steps: threads of the process group that are still there then abort now and
    then, and what was done would count as failed (pytorch/pytorch#179291).
    """
    # no waiting: what the first process writes may take longer than a process group allows
    if PartialState().num_processes == 1:
        return
    atexit._run_exitfuncs()  # loggers have something to say in the end
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(0)
