"""What a person has decided about rows: read, checked against the table, and carried out."""

import os
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import pandas as pd

from clear_peft.data import Examples, LabelNames, read_table, unescape_formulas
from clear_peft.data.checks import brief, listing
from clear_peft.data.labels import label_text
from clear_peft.errors import InputError

_COLUMNS = ("row", "action", "label", "given_label", "text")
_ACTIONS = ("keep", "relabel", "drop", "skip")
# a column that reports do not write
_RULE = "rule"
_SHOWN = 200


@dataclass(frozen=True, eq=False)
class Corrections:
    """Decisions about rows of a table, all different.

    Attributes:
        relabel: New class id of each row that gets another one, by row.
        drop: Rows to leave out.
        keep: Rows that were looked at and found right.
        skip: Rows that were looked at, and nobody could tell.
        by_rule: Rows among those to relabel at which nobody has looked, with the words of the pattern that
            they were relabelled by.
    """

    relabel: dict[int, int] = field(default_factory=dict)
    drop: list[int] = field(default_factory=list)
    keep: list[int] = field(default_factory=list)
    skip: list[int] = field(default_factory=list)
    by_rule: dict[int, str] = field(default_factory=dict)


def read_corrections(path: str | os.PathLike[str], examples: Examples, names: LabelNames) -> Corrections:
    """Read ``corrections.csv`` and check it against the table that it is about.

    Args:
        path: A table with the columns ``row`` (counted from 0), ``action`` (keep, relabel, drop or skip),
            ``label`` (the new one, empty unless relabelling), ``given_label`` and ``text`` (its first 200
            characters), with formulas escaped, and perhaps ``rule``; further columns are ignored.
        examples: The rows of the table, labelled.
        names: Names of their labels.

    Returns:
        The decisions.

    Raises:
        InputError: If a column is missing, a row does not exist, is named twice or is not the one that was
            looked at, an action or label is unknown, a label is missing or out of place, or no row is left.
    """
    frame = unescape_formulas(read_table(path))
    source = os.fspath(path)
    lacking = [column for column in _COLUMNS if column not in frame.columns]
    if lacking:
        raise InputError(
            f"{source!r} lacks the column {listing(lacking)}: give {', '.join(_COLUMNS)}, as the report does."
        )
    cells = [[_text(value, source) for value in frame[column]] for column in _COLUMNS[:-1]]
    # a text that begins with a screenful of white space is there all the same
    texts = [value if isinstance(value, str) else _text(value, source) for value in frame["text"]]
    place = {row: i for i, row in enumerate(examples.rows.tolist())}
    rows = _rows(cells[0], place, source)
    new = names.find(cells[2])
    rules = frame[_RULE].fillna("").tolist() if _RULE in frame.columns else [""] * len(frame)
    found = Corrections()
    for row, new_label, action, label, given, text, rule in zip(
        rows, new, *cells[1:], texts, rules, strict=True
    ):
        where = f"{source!r}, row {row}"
        assert examples.labels is not None  # the examples are labelled
        labelled = int(examples.labels[place[row]])
        _check_same(where, labelled, given, names, examples.texts[place[row]], text)
        if action not in _ACTIONS:
            raise InputError(
                f"{where}: there is no action {brief(action)}; write keep, relabel, drop or skip."
            )
        if action != "relabel" and label:
            raise InputError(
                f"{where}: the action is {action}, but there is a label {brief(label)}; write relabel, or "
                "leave the label empty."
            )
        if action == "relabel":
            if new_label < 0:
                what = f"{brief(label)} is none of the labels" if label else "the new label is missing"
                raise InputError(f"{where}: {what}; give one of {listing(names.names, shown=20)}.")
            if new_label == labelled:
                found.keep.append(row)
            else:
                found.relabel[row] = int(new_label)
                if rule:
                    found.by_rule[row] = str(rule)
        else:
            {"keep": found.keep, "drop": found.drop, "skip": found.skip}[action].append(row)
    if len(found.drop) == len(examples):
        raise InputError(f"{source!r} drops every row: keep at least one.")
    return found


def corrected(
    frame: pd.DataFrame, labels: np.ndarray, label_column: str, corrections: Corrections
) -> pd.DataFrame:
    """Carry corrections out.

    Args:
        frame: The table, N rows.
        labels: Class id of each row, (N,); each new label is that of a row.
        label_column: Column of the labels.
        corrections: The decisions.

    Returns:
        A new table: the rows that are not dropped in their order, with all columns; values keep their types.
    """
    ids, row_of = np.unique(labels, return_index=True)
    # each new label is copied from a row that has it, so that values keep their type
    source = np.arange(len(labels))
    for row, label in corrections.relabel.items():
        source[row] = row_of[np.searchsorted(ids, label)]
    given, changed = frame[label_column], frame.copy()
    changed[label_column] = given.iloc[source].set_axis(given.index)
    return changed.drop(index=changed.index[corrections.drop]).reset_index(drop=True)


def _text(value: object, source: str) -> str:
    try:
        return label_text(value) or ""
    except TypeError as error:
        raise InputError(f"{source!r} holds {error}: write text.") from error


def _rows(cells: Sequence[str], known: Mapping[int, int], source: str) -> list[int]:
    strange = [cell for cell in cells if not (cell.isascii() and cell.isdigit() and len(cell) < 19)]
    if strange:
        raise InputError(
            f"{source!r} has a row that is no whole number ({listing(strange)}): rows count from 0."
        )
    rows = [int(cell) for cell in cells]
    beyond = [row for row in rows if row not in known]
    if beyond:
        raise InputError(
            f"{source!r} names the row {listing(beyond)}, which is none of the {len(known)} rows with a "
            "label, counted from 0: give the corrections of this run."
        )
    repeated = [row for row, times in Counter(rows).items() if times > 1]
    if repeated:
        raise InputError(f"{source!r} names the row {listing(repeated)} more than once: decide for one.")
    return rows


def _check_same(
    where: str, label: int, seen_label: str, names: LabelNames, text: str, seen_text: str
) -> None:
    """Refuse a decision about another row than the one that was looked at."""
    mend = "give the corrections of this run and the table that it was trained on"
    name = names.names[label]
    if names.find([seen_label])[0] != label:
        if name.lstrip("0") == seen_label.lstrip("0"):
            mend = "a spreadsheet may have dropped zeros: have it read the column as text"
        raise InputError(
            f"{where}: the given label is {brief(name)} there, but {brief(seen_label)} here; {mend}."
        )
    # a browser counts in UTF-16, in which a rare character counts twice and may be cut in halves
    pairs = text.encode("utf-16-le", "surrogatepass")[: 2 * _SHOWN].decode("utf-16-le", "replace")
    if _lines(seen_text) not in (_lines(text[:_SHOWN]), _lines(pairs)):
        raise InputError(
            f"{where}: the text begins with {brief(text[:_SHOWN])} there, but with {brief(seen_text)} here; "
            f"{mend}."
        )


def _lines(text: str) -> str:
    """The text as it is after a spreadsheet has saved it."""
    return text.replace("\r\n", "\n").replace("\r", "\n")
