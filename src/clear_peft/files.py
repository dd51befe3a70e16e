"""Files that appear whole or not at all."""

import json
import math
import os
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import numpy as np

from clear_peft.errors import InputError


def atomic_write(path: str | os.PathLike[str], content: str | bytes) -> None:
    """Write a file so that a reader, or a crash, never sees half of it.

    The content goes to a temporary file in the same folder, reaches the disk, and takes the place of
    ``path`` in one step. Where ``path`` is a symbolic link, the file that it points to is replaced. Who may
    read the file stays as it was.

    Args:
        path: File to write; its folder must exist.
        content: Text (written as UTF-8, line ends as they are) or bytes.

    Raises:
        InputError: If the folder is missing or cannot be written to.
    """
    data = content.encode("utf-8") if isinstance(content, str) else content
    target = Path(os.path.realpath(path))
    temporary = target.with_name(f".{target.name[:100]}.{os.getpid()}.tmp")
    try:
        try:
            temporary.unlink(missing_ok=True)
            with temporary.open("xb") as stream:  # never through a link that somebody has laid there
                with suppress(FileNotFoundError):
                    shutil.copymode(target, temporary)
                stream.write(data)
                stream.flush()
                os.fsync(stream.fileno())
            temporary.replace(target)
        finally:
            temporary.unlink(missing_ok=True)
    except OSError as error:
        reason = (error.strerror or str(error)).lower()
        raise InputError(
            f"Cannot write {os.fspath(path)!r}: {reason}; choose an existing folder that you may write to."
        ) from error


@contextmanager
def replaced_folder(final: Path) -> Iterator[Path]:
    """A folder to be filled, which takes the place of another one, or of none, when it is whole.

    Args:
        final: The folder; what it holds is gone afterwards.

    Raises:
        OSError: If it cannot be written; then all is as before.
    """
    part, earlier = (final.with_name(f".{final.name}.{os.getpid()}.{end}") for end in ("part", "earlier"))
    shutil.rmtree(part, ignore_errors=True)
    part.mkdir(parents=True)
    try:
        yield part
        if final.exists():
            final.rename(earlier)
        try:
            part.rename(final)
        except OSError:
            if earlier.exists():
                earlier.rename(final)
            raise
    finally:
        shutil.rmtree(part, ignore_errors=True)
        shutil.rmtree(earlier, ignore_errors=True)


def refuse_links_out(folder: str | os.PathLike[str]) -> None:
    """Refuse a folder with a symbolic link that leads out of it.

    In a folder from a stranger it could have us read, or replace, any file there is.

    Args:
        folder: The folder, with all that lies in it; it may itself be behind a link.

    Raises:
        InputError: With the first such link.
    """
    inside = Path(folder).resolve()
    for entry in sorted(inside.rglob("*")):
        if entry.is_symlink() and not Path(os.path.realpath(entry)).is_relative_to(inside):
            raise InputError(
                f"{entry} is a symbolic link out of its folder: put the file itself there, or delete it."
            )


def plain_json(value: Any) -> Any:
    """Turn a value into what JSON can hold.

    NumPy scalars and arrays become numbers and lists, a ``float32`` keeps its short decimal form (0.9, not
    0.8999999761581421), dates become their ISO text, and NaN and infinities, which JSON lacks, become None.

    Args:
        value: Anything nested of dicts, lists, tuples, NumPy values and plain Python values.

    Returns:
        The same structure of dicts, lists and plain values; objects of other types are passed through.
    """
    if isinstance(value, Mapping):
        return {key: plain_json(item) for key, item in value.items()}
    if isinstance(value, np.ndarray):
        # Not tolist(), which would widen float32; [()] makes a scalar of an array without dimensions.
        value = list(value) if value.ndim else value[()]
    if isinstance(value, list | tuple):
        return [plain_json(item) for item in value]
    if isinstance(value, np.floating):
        value = float(str(value))
    elif isinstance(value, np.datetime64 | np.timedelta64):
        value = str(value)
    elif isinstance(value, np.generic):
        value = value.item()
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value


def write_json(path: str | os.PathLike[str], value: Any) -> None:
    """Write a value as indented JSON, atomically.

    Args:
        path: File to write; its folder must exist.
        value: What :func:`plain_json` takes; NaN and infinities are written as null.

    Raises:
        InputError: If the folder is missing or cannot be written to.
        TypeError: If the value holds an object that JSON has no form for.
    """
    text = json.dumps(plain_json(value), indent=2, ensure_ascii=False, allow_nan=False)
    # Half a surrogate pair has no UTF-8 form; backslashreplace writes it as the JSON escape \udXXX.
    atomic_write(path, (text + "\n").encode("utf-8", "backslashreplace"))
