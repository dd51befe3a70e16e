"""Data sets of the Hugging Face hub."""

import re

import pandas as pd

from clear_peft.data.arrow import table_to_frame
from clear_peft.errors import InputError

_NAME = re.compile(r"(?P<name>[\w.-]+(/[\w.-]+)?)(:(?P<config>[^@:/\s]+))?(@(?P<split>.+))?", re.ASCII)


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
        data = datasets.load_dataset(match["name"], match["config"], split=match["split"] or "train")
        frame = table_to_frame(data.with_format("arrow")[:], source)
    except InputError:
        raise
    except Exception as error:  # what the hub's client raises is an open list
        lines = str(error).strip().splitlines() or [type(error).__name__]
        raise InputError(
            f"{source!r} is no file and cannot be loaded from the hub: {lines[0].rstrip('.')}; "
            "check the name, or your connection."
        ) from error
    for column, feature in data.features.items():
        if isinstance(feature, datasets.ClassLabel):
            ids = frame[column].tolist()
            names = [None if pd.isna(i) or i < 0 else feature.names[i] for i in ids]
            frame[column] = pd.Series(names, dtype=object)
    return frame
