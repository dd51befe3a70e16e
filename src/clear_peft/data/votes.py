"""Columns in which several sources label the same rows: annotators, rules, models."""

from collections.abc import Mapping, Sequence
from itertools import combinations

import numpy as np
import pandas as pd

from clear_peft.data.checks import listing, row_listing
from clear_peft.data.columns import warn
from clear_peft.data.labels import LabelNames
from clear_peft.errors import InputError
from clear_peft.label_quality import consensus

Cells = Sequence[str | None]

# rows that two sources label alike, without an exception, before they look like copies
_LIKE_COPIES = 20


def with_consensus(
    frame: pd.DataFrame,
    name: str,
    columns: Mapping[str, Cells],
    label_column: str,
    normalize: bool,
) -> pd.DataFrame:
    """A table with the consensus of its annotators as its column of labels, missing where nobody has one.

    Args:
        frame: The table, N rows.
        name: Where it comes from, for sentences.
        columns: Labels of each annotator by the name of the column, None where there is none, N each.
        label_column: Name of the new column.
        normalize: Whether labels that look alike are one.

    Raises:
        InputError: If there is only one annotator, nobody has a label, or the table has such a column.
    """
    if len(columns) < 2:
        raise InputError(f"{name!r}: there is one annotator alone: give two or more, or a label column.")
    if label_column in frame.columns:
        raise InputError(
            f"{name!r} has a column {label_column!r}, which the consensus of the annotators would be called: "
            "give another name by --label-column, or give the annotators as --opinion-column."
        )
    given = [label for cells in columns.values() for label in cells if label is not None]
    if not given:
        raise InputError(f"{name!r}: no annotator has a label: name other columns.")
    names = LabelNames.fit(given, normalize=normalize)
    found = consensus(_ids(list(columns.values()), names, normalize), len(names.names))
    labels = [names.names[i] if i >= 0 else None for i in found.tolist()]
    return frame.assign(**{label_column: pd.Series(labels, index=frame.index, dtype=object)})


def votes_of(columns: Mapping[str, Cells], names: LabelNames, name: str, normalize: bool) -> np.ndarray:
    """What each source says of N rows: class ids, -1 where it says nothing, (N, A) int64.

    Labels that are no class count as nothing said, with a warning. Another one names sources that look like
    copies of each other.

    Args:
        columns: As for ``with_consensus``.
        names: The classes.
        name: Where the table comes from, for sentences.
        normalize: Whether labels that look alike are one.

    Raises:
        InputError: If a source says nothing of any row.
    """
    votes = _ids(list(columns.values()), names, normalize)
    for (column, cells), ids in zip(columns.items(), votes.T, strict=True):
        place = f"{name!r}, column {column!r}"
        strange = [row for row, label in enumerate(cells) if label is not None and ids[row] < 0]
        what = listing(list(dict.fromkeys(cells[row] for row in strange)), shown=20)
        if (ids < 0).all():
            found = (
                f"no label is among {listing(names.names)}, but {what}" if strange else "no row has a label"
            )
            raise InputError(f"{place}: {found}; name another column, or leave it out.")
        if strange:
            rows = row_listing(strange)
            warn(f"{place}: {what} is no class of the table and counts as nothing said, in {rows}.")
    _say_which_agree(list(columns), votes, name)
    return votes


def _say_which_agree(columns: Sequence[str], votes: np.ndarray, name: str) -> None:
    """Warn of sources that never disagree: what one takes from another confirms it without a reason."""
    for a, b in combinations(range(len(columns)), 2):
        both = (votes[:, [a, b]] >= 0).all(axis=1)
        if both.sum() >= _LIKE_COPIES and (votes[both, a] == votes[both, b]).all():
            warn(
                f"{name!r}: {columns[a]!r} and {columns[b]!r} agree in all {both.sum()} rows that both "
                "label: if one was made from the other, leave it out, as sources count as independent."
            )


def _ids(columns: Sequence[Cells], names: LabelNames, normalize: bool) -> np.ndarray:
    """Class ids of labels, -1 where there is none, (N, A)."""
    ids = [names.find([label or "" for label in cells], normalize=normalize) for cells in columns]
    return np.stack(ids, axis=1)
