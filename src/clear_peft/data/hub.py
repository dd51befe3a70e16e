"""Data sets of the Hugging Face hub, and folders as its clients write them."""

import os
import re
from pathlib import Path

import pandas as pd

from clear_peft.data.arrow import read_parquet, table_to_frame
from clear_peft.data.checks import listing
from clear_peft.data.reach import hub_or_cache
from clear_peft.errors import InputError

_NAME = re.compile(r"(?P<name>[\w.-]+(/[\w.-]+)?)(:(?P<config>[^@:/\s]+))?(@(?P<split>.+))?", re.ASCII)
# splits as files and folders are named
_SPLIT = re.compile(r"(?<![a-z])(train|validation|valid|val|dev|test)(?![a-z])")


def folder_of(source: str) -> tuple[Path, str | None] | None:
    """The folder and the split that ``folder`` or ``folder@split`` mean; None where there is no folder."""
    for name, split in ((source, None), (source.rpartition("@")[0], source.rpartition("@")[2])):
        if name and os.path.isdir(name):  # noqa: PTH112  (unlike Path.is_dir, False for impossible names)
            return Path(name), split
    return None


def read_folder(folder: Path, split: str | None) -> pd.DataFrame:
    """Read a folder of Parquet files, or what ``save_to_disk`` of datasets has written.

    Args:
        folder: The folder.
        split: Which part of it. Default: all, if it holds no more than one.

    Raises:
        InputError: If it holds neither, or several splits and none, or another one, was named.
    """
    name = os.fspath(folder)
    if (folder / "state.json").is_file() or (folder / "dataset_dict.json").is_file():
        import datasets

        try:
            saved = datasets.load_from_disk(name)
            if isinstance(saved, datasets.DatasetDict):
                saved = saved[_only_split(name, list(saved), split)]
            return table_to_frame(saved.with_format("arrow")[:], name)
        except InputError:
            raise
        except Exception as error:  # as with the hub
            raise InputError(f"{name!r} is not a sound folder of save_to_disk; write it anew.") from error
    import pyarrow as pa  # type: ignore[import-untyped]

    parts = [read_parquet(path.read_bytes(), str(path)) for path in parquet_files(folder, split)]
    try:
        return table_to_frame(pa.concat_tables(parts), name)
    except pa.ArrowException as error:
        raise InputError(
            f"The Parquet files in {name!r} have other columns; give them one by one."
        ) from error


def parquet_files(folder: Path, split: str | None) -> list[Path]:
    """The Parquet files of a folder, sorted.

    Args:
        folder: The folder.
        split: Which part of it. Default: all, if it holds no more than one.

    Raises:
        InputError: If there is none, or they are of several splits and none, or another one, was named.
    """
    name = os.fspath(folder)
    shards: dict[str, list[Path]] = {}
    for path in sorted(folder.rglob("*.parquet")):
        found = _SPLIT.search(path.relative_to(folder).as_posix().lower())
        shards.setdefault(found[0] if found else "", []).append(path)
    if not shards:
        raise InputError(f"{name!r} is a folder without Parquet files; give a file, or such a folder.")
    return shards[_only_split(name, list(shards), split)]


def _only_split(name: str, splits: list[str], wanted: str | None) -> str:
    if wanted is None and len(splits) == 1:
        return splits[0]
    if wanted in splits:
        return wanted
    shown = [split or "files of none" for split in splits]
    raise InputError(f"{name!r} holds {listing(shown)}; say which split, as in {f'{name}@{splits[0]}'!r}.")


def read_hub(source: str) -> pd.DataFrame:
    """Load one split of a hub data set; class ids become class names.

    Code that a data set brings along is never run.

    Args:
        source: ``name[:config][@split]``; the split is ``train`` unless given.

    Returns:
        The split; an example without a class (id -1) has None.

    Raises:
        InputError: If the name, configuration or split does not exist, or the hub cannot be reached.
    """
    match = _NAME.fullmatch(source)
    if match is None:
        raise InputError(
            f"{source!r} is neither a file nor a hub data set; write name, name:config or name@split."
        )
    import datasets

    try:
        with hub_or_cache(match["name"]):
            data = datasets.load_dataset(match["name"], match["config"], split=match["split"] or "train")
        return table_to_frame(data.with_format("arrow")[:], source)
    except InputError:
        raise
    except Exception as error:  # what the hub's client raises is an open list
        lines = str(error).strip().splitlines() or [type(error).__name__]
        raise InputError(
            f"{source!r} is no file and cannot be loaded from the hub: {lines[0].rstrip('.')}; "
            "check the name, or your connection."
        ) from error
