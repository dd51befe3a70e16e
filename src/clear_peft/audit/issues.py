"""The list of label issues as a run folder holds it."""

import os

import numpy as np
import pandas as pd

from clear_peft.data import read_table, unescape_formulas
from clear_peft.data.checks import listing
from clear_peft.errors import InputError

_COLUMNS = (
    "row",
    "text",
    "given_label",
    "predicted_label",
    "clean_probability",
    "label_quality",
    "is_label_issue",
    "split",
)


def read_issues(path: str | os.PathLike[str], labels: list[str]) -> pd.DataFrame:
    """Read ``label_issues.csv`` back into the types that it was written from.

    Args:
        path: The file.
        labels: Names of the classes.

    Returns:
        Its columns; ``row`` int64, ``clean_probability`` and ``label_quality`` float64 in [0, 1],
        ``is_label_issue`` bool, the others text.

    Raises:
        InputError: If it is missing, lacks a column, holds what no run writes, or lists a row twice or
            none that a table has.
    """
    frame = unescape_formulas(read_table(path))
    name = os.fspath(path)

    def damaged(what: str) -> InputError:
        return InputError(f"{name!r} {what}: give the run folder as train has written it.")

    lacking = [column for column in _COLUMNS if column not in frame.columns]
    if lacking:
        raise damaged(f"lacks the column {listing(lacking)}")
    for column in ("row", "clean_probability", "label_quality"):
        try:
            frame[column] = pd.to_numeric(frame[column])
        except (ValueError, TypeError) as error:
            raise damaged(f"has a {column} that is no number") from error
    if frame["row"].duplicated().any() or (frame["row"] < 0).any() or (frame["row"] % 1 != 0).any():
        raise damaged("does not list each row once")
    for column in ("clean_probability", "label_quality"):
        if not frame[column].between(0, 1).all():
            raise damaged(f"has a {column} that is not between 0 and 1")
    if not frame["is_label_issue"].isin(["True", "False"]).all():
        raise damaged("has an is_label_issue that is neither True nor False")
    for column in ("given_label", "predicted_label"):
        unknown = frame.loc[~frame[column].isin(labels), column].unique().tolist()
        if unknown:
            raise damaged(f"has a {column} that is none of the run's labels ({listing(unknown)})")
    types = {"row": np.int64, "clean_probability": np.float64, "label_quality": np.float64}
    return frame.assign(is_label_issue=frame["is_label_issue"] == "True").astype(types)
