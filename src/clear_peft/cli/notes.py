"""What the package and its libraries remark while a command runs, and what of it is shown."""

import logging
import os
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from clear_peft.cli.output import Output
from clear_peft.errors import ClearWarning

# log lines that nobody has to act on: the logger, and words of the line
_NOISE = (
    # a new head is as it should be; of layers that are new, clear_peft.pipeline.models warns
    ("transformers.modeling_utils", "LOAD REPORT"),
    # the configuration follows the tokenizer, as it should
    ("transformers.trainer_utils", "The tokenizer has new PAD/BOS/EOS tokens"),
    # checkpoints are told apart by the numbers in their names
    ("transformers.trainer_utils", "mtime may not be reliable"),
    # the exporter to ONNX knows operators of models of images, too
    ("torch.onnx._internal.exporter._registration", "torchvision is not installed"),
    # said wherever bitsandbytes is installed, whatever it is to do: its own kernels will do
    ("bitsandbytes.backends.cpu.ops", "from kernels-community"),
)
# bars of libraries, which would cut through our own: `Output.step` shows one where it pays
_BARS = ("HF_HUB_DISABLE_PROGRESS_BARS", "HF_DATASETS_DISABLE_PROGRESS_BARS")
# libraries that do not go by the level of the root logger
_LEVELS = ("TRANSFORMERS_VERBOSITY", "DATASETS_VERBOSITY", "HF_HUB_VERBOSITY")


@contextmanager
def noted(output: Output) -> Iterator[None]:
    """Inside, an output is what shows log lines and warnings: those that matter, or all if it is verbose."""
    for name in _BARS:
        os.environ.setdefault(name, "1")
    root, make = logging.getLogger(), logging.getLogRecordFactory()
    level, handler = root.level, _Notes(output)

    def made(*args: Any, **more: Any) -> logging.LogRecord:
        record = make(*args, **more)
        _take_from_terminal(logging.getLogger(record.name))
        return record

    def warned(message: Any, category: type[Warning], filename: str, lineno: int, *_: Any, **__: Any) -> None:
        if output.verbose:
            output.note(f"{message} ({category.__name__}, {filename}:{lineno})")
        elif issubclass(category, ClearWarning) and _is_first():
            output.note(str(message))

    root.addHandler(handler)
    logging.setLogRecordFactory(made)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            warnings.simplefilter("default", ClearWarning)
            warnings.showwarning = warned
            yield
    finally:
        logging.setLogRecordFactory(make)
        root.removeHandler(handler)
        root.setLevel(level)


def note_everything(output: Output) -> None:
    """Let an output show all log lines from INFO on, and all warnings."""
    output.verbose = True
    for name in _LEVELS:
        os.environ.setdefault(name, "info")
    logging.getLogger().setLevel(logging.INFO)
    warnings.simplefilter("default")


def _take_from_terminal(logger: logging.Logger | None) -> None:
    """Let a library that brings a handler for stderr log to the root logger instead."""
    while logger is not None:
        for handler in [h for h in logger.handlers if type(h) is logging.StreamHandler]:
            logger.removeHandler(handler)
            logger.propagate = True
        logger = logger.parent


class _Notes(logging.Handler):
    """Shows log lines by an output."""

    def __init__(self, output: Output) -> None:
        super().__init__(logging.INFO)
        self._output = output

    def emit(self, record: logging.LogRecord) -> None:
        try:
            text = record.getMessage()
        except (TypeError, ValueError):  # the library's own mistake
            text = str(record.msg)
        if self._output.verbose:
            self._output.note(f"{record.levelname} {record.name}: {text}")
        elif record.levelno >= logging.WARNING and not _is_noise(record.name, text) and _is_first():
            self._output.note(f"{record.name.partition('.')[0]}: {text}")


def _is_noise(logger: str, text: str) -> bool:
    return any(logger == known and words in text for known, words in _NOISE)


def _is_first() -> bool:
    """Whether this process is the one of several (torchrun) that speaks, or the only one."""
    return os.environ.get("RANK", "0") == "0"
