"""The ranked rows, column by column, as many as the page has room for."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd

from clear_peft.audit import to_check
from clear_peft.report.page.embedding import embedded_json

TEXT_CHARACTERS = 2_000
# of a row, without its text and id: nine numbers with their commas
_BYTES_PER_ROW = 64


def row_columns(
    issues: pd.DataFrame, labels: Sequence[str], budget: int, proposed: Sequence[int] = ()
) -> dict[str, Any]:
    """The most suspicious rows that fit, for the page's table; none that a person has looked at already.

    Args:
        issues: ``Audit.issues``, most suspicious first.
        labels: Names of the classes; a name in the table that is not among them is added.
        budget: Bytes that the rows may take up in the page.
        proposed: Rows that somebody should look at first. Default: none.

    Returns:
        ``labels`` and ``splits`` (names), ``total`` (rows of the table), ``shown`` (rows that follow),
        ``cut`` (number of texts that were cut), ``lengths`` (characters of each cut text, by position),
        ``proposed`` (positions among the rows that follow), and
        a list per column: ``row``, ``text``, ``given``, ``predicted`` (positions in the names), ``clean``,
        ``quality``, ``issue``, ``group``, ``conflict`` (0 or 1), and where there are such ``split``
        (positions) and ``id``.
    """
    total, issues = len(issues), to_check(issues)
    texts = [str(text) for text in issues["text"]]
    kept = [text[:TEXT_CHARACTERS] for text in texts]
    ids = [str(value) for value in issues["id"]] if "id" in issues else None
    shown = _fitting(kept, ids, budget - len(embedded_json(list(labels)).encode()))
    issues = issues.head(shown)
    names = list(dict.fromkeys([*labels, *issues["given_label"], *issues["predicted_label"]]))
    splits = list(dict.fromkeys(issues["split"])) if "split" in issues else []
    lengths = {i: len(texts[i]) for i in range(shown) if len(texts[i]) > TEXT_CHARACTERS}
    columns: dict[str, Any] = {
        "row": issues["row"].tolist(),
        "text": kept[:shown],
        "given": _positions(issues["given_label"], names),
        "predicted": _positions(issues["predicted_label"], names),
        "clean": _shares(issues["clean_probability"]),
        "quality": _shares(issues["label_quality"]),
        "issue": issues["is_label_issue"].astype(int).tolist(),
        "group": issues["duplicate_group"].tolist(),
        "conflict": issues["duplicate_conflict"].astype(int).tolist(),
    }
    if splits:
        columns["split"] = _positions(issues["split"], splits)
    if ids is not None:
        columns["id"] = ids[:shown]
    facts: Mapping[str, Any] = {"labels": names, "splits": splits, "total": total, "shown": shown}
    first = np.flatnonzero(issues["row"].isin(list(proposed))).tolist()
    return {**facts, "cut": len(lengths), "lengths": lengths, "proposed": first, **columns}


def _fitting(texts: Sequence[str], ids: Sequence[str] | None, budget: int) -> int:
    """How many rows, from the first, take up no more than the budget."""
    sizes = np.full(len(texts), _BYTES_PER_ROW)
    for column in (texts, ids):
        if column is not None:
            sizes += np.array([len(embedded_json(text).encode()) for text in column], np.int64)
    return int(np.searchsorted(np.cumsum(sizes), budget, side="right"))


def _shares(values: pd.Series) -> list[float | None]:
    return [None if math.isnan(value) else round(value, 4) for value in values.astype(float).tolist()]


def _positions(values: pd.Series, names: Sequence[str]) -> list[int]:
    position = {name: i for i, name in enumerate(names)}
    return [position[value] for value in values]
