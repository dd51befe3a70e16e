"""A folder that is written shard by shard: when it may be begun, and when work on it goes on."""

import json
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from clear_peft.data.checks import listing
from clear_peft.errors import InputError
from clear_peft.files import write_json
from clear_peft.pipeline.big_table import Shard
from clear_peft.pipeline.feature_cache import version_of
from clear_peft.pipeline.scan_options import held_by

# written last; what the folder was begun with, until then
SUMMARY, _BEGUN = "summary.json", "begun.json"


def files_of(shards: Sequence[Shard]) -> list[list[Any]]:
    """What tells the files of a table from others: name, size and time of each."""
    files = {shard.path: shard.file for shard in shards}
    stats = [(name, Path(path).stat()) for path, name in files.items()]
    return [[name, stat.st_size, stat.st_mtime_ns] for name, stat in stats]


def model_in(name: str) -> str:
    """What tells a model in a folder from others; of one of the hub its name, as it may not be here yet."""
    return version_of(name) if Path(name).is_dir() else name


def check_begun(folder: Path, data: str, begun: dict[str, Any], *, overwrite: bool) -> None:
    """Refuse a folder that must not be written to; changes nothing.

    Args:
        folder: The folder.
        data: Folder that is read, perhaps with a split.
        begun: What the work hangs on: a list, text or number by what sentences call it.
        overwrite: Whether what was written before is replaced.

    Raises:
        InputError: If it cannot be written to, lies in the data, is of somebody else, finished, or begun with
            something else.
    """
    held = held_by(folder)
    source = Path(data.rpartition("@")[0] or data)
    if source.is_dir() and folder.resolve().is_relative_to(source.resolve()):
        raise InputError(f"{folder} lies in {source}, the table itself: give another --output.")
    if held and not held & {SUMMARY, _BEGUN}:
        raise InputError(f"{folder} holds something else: give another folder as --output.")
    if not held or overwrite:
        return
    if SUMMARY in held:
        raise InputError(f"{folder} is finished already: give another --output, or --overwrite.")
    try:
        earlier = json.loads((folder / _BEGUN).read_text(encoding="utf-8"))
        others = [name for name, value in begun.items() if earlier.get(name) != value]
    except (OSError, ValueError, AttributeError):
        others = list(begun)
    if others:
        raise InputError(
            f"{folder} was begun with other values of {listing(others)}: give another --output, or "
            "--overwrite."
        )


def begin(folder: Path, begun: dict[str, Any], parts: Sequence[str], *, anew: bool) -> None:
    """Make the folder, or go on with it; call ``check_begun`` first.

    Args:
        folder: The folder.
        begun: As for ``check_begun``.
        parts: What the work writes into it, as patterns.
        anew: Whether what was written before is removed.

    Raises:
        InputError: If it cannot be written to.
    """
    try:
        if anew:
            for place in [place for name in (SUMMARY, _BEGUN, *parts) for place in folder.glob(name)]:
                shutil.rmtree(place) if place.is_dir() else place.unlink()
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        reason = (error.strerror or str(error)).lower()
        raise InputError(f"Cannot write {folder}: {reason}; choose another --output.") from error
    write_json(folder / _BEGUN, begun)


def finish(folder: Path, summary: dict[str, Any]) -> None:
    """Write the summary, which says that all is there."""
    write_json(folder / SUMMARY, summary)
    (folder / _BEGUN).unlink()
