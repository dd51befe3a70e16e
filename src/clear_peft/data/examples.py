"""Labelled examples from a table, checked so that training cannot fail late on them."""

import difflib
import os
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, fields

import numpy as np
import pandas as pd

from clear_peft.data.checks import brief, listing, row_listing, separated_otherwise
from clear_peft.data.labels import LabelNames, label_text
from clear_peft.data.tables import read_table
from clear_peft.errors import InputError
from clear_peft.label_quality import as_groups

# what a cell may say in place of the true label
_SAYS = {"true": True, "yes": True, "1": True, "false": False, "no": False, "0": False}


@dataclass(frozen=True, eq=False)
class Examples:
    """Texts with what is known about each; all fields have the same length N.

    Attributes:
        texts: N texts.
        labels: Given label ids, int64 of shape (N,), or None where there are none.
        rows: Position of each example in the input counted from 0, its stable id; int64 of shape (N,).
        clean_labels: True label ids, int64 of shape (N,), where they are known.
        ids: The input's own ids, where it has a column of them.
        groups: Group of each row, int64 of shape (N,), where the input has a column of them.
        verified: True label id of each row that a person has looked at and -1 elsewhere, int64 of shape (N,),
            where the input says so.
    """

    texts: list[str]
    labels: np.ndarray | None
    rows: np.ndarray
    clean_labels: np.ndarray | None = None
    ids: list[str] | None = None
    groups: np.ndarray | None = None
    verified: np.ndarray | None = None

    def __post_init__(self) -> None:
        for field in fields(self):
            value = getattr(self, field.name)
            if value is not None and len(value) != len(self.texts):
                raise ValueError(
                    f"{field.name} has length {len(value)}, but there are {len(self.texts)} texts"
                )

    def __len__(self) -> int:
        return len(self.texts)

    def select(self, indices: Sequence[int] | np.ndarray) -> "Examples":
        """Take some of the examples; they keep their ``rows``.

        Args:
            indices: Positions in these examples, in the order wanted; integers of shape (M,).

        Returns:
            M examples.
        """
        positions = np.asarray(indices, dtype=np.int64)
        return Examples(
            texts=[self.texts[i] for i in positions],
            labels=None if self.labels is None else self.labels[positions],
            rows=self.rows[positions],
            clean_labels=None if self.clean_labels is None else self.clean_labels[positions],
            ids=None if self.ids is None else [self.ids[i] for i in positions],
            groups=None if self.groups is None else self.groups[positions],
            verified=None if self.verified is None else self.verified[positions],
        )


@dataclass(frozen=True, eq=False)
class LoadedTable:
    """A table and the examples that it holds.

    Attributes:
        frame: The whole input with all its columns; row i is the example whose ``rows`` is i.
        examples: One example for each row.
        names: Names of the label ids; None where there are no labels.
    """

    frame: pd.DataFrame
    examples: Examples
    names: LabelNames | None


def load_examples(
    source: str | os.PathLike[str],
    *,
    text_column: str = "text",
    label_column: str | None = "label",
    clean_label_column: str | None = None,
    id_column: str | None = None,
    group_column: str | None = None,
    verified_column: str | None = None,
    names: LabelNames | None = None,
    rows_per_class: int = 2,
) -> LoadedTable:
    """Read examples from a file or the hub and check them.

    Without ``names`` the table is training data: its labels define the classes, of which there must be two
    with two rows each, so that one can be held out. With ``names``, as for validation and test data, its
    labels must be among them.

    Args:
        source: What :func:`read_table` takes.
        text_column: Column of the texts.
        label_column: Column of the given labels; None to read no labels, as for prediction.
        clean_label_column: Column of the true labels, if they are known; needs ``label_column``.
        id_column: Column of ids that differ from row to row.
        group_column: Column that says what belongs together, such as a customer or a document; an empty cell
            is a row that is alone.
        verified_column: Column that says which rows a person has looked at: their true label, or true where
            the given one is right. Empty cells, and false, are rows that nobody has looked at. Needs
            ``label_column``.
        names: Classes known from the training data.
        rows_per_class: Fewest rows of each class, without ``names``: 2, the default, or 1.

    Returns:
        The table, its examples and the names of their labels.

    Raises:
        InputError: If a column is missing or named twice, a text or label is missing, an id occurs twice, or
            the classes are not as above; the sentence gives the first rows concerned.
    """
    return examples_of(
        read_table(source),
        os.fspath(source),
        text_column=text_column,
        label_column=label_column,
        clean_label_column=clean_label_column,
        id_column=id_column,
        group_column=group_column,
        verified_column=verified_column,
        names=names,
        rows_per_class=rows_per_class,
    )


def examples_of(
    frame: pd.DataFrame,
    name: str,
    *,
    text_column: str | None = "text",
    label_column: str | None = "label",
    clean_label_column: str | None = None,
    id_column: str | None = None,
    group_column: str | None = None,
    verified_column: str | None = None,
    names: LabelNames | None = None,
    rows_per_class: int = 2,
) -> LoadedTable:
    """Check the examples of a table that is read already.

    Args:
        frame: The table.
        name: Where it comes from, for sentences.
        text_column: Column of the texts; None where there are none: they are then empty.
        label_column: As for :func:`load_examples`, and so all others.
        clean_label_column: Column of the true labels.
        id_column: Column of ids.
        group_column: Column that says what belongs together.
        verified_column: Column that says which rows a person has looked at.
        names: Classes known from the training data.
        rows_per_class: Fewest rows of each class.

    Returns:
        As :func:`load_examples`.

    Raises:
        InputError: As :func:`load_examples`.
    """
    roles = {
        "text": text_column,
        "label": label_column,
        "clean label": clean_label_column,
        "id": id_column,
        "group": group_column,
        "verified": verified_column,
    }
    _check_roles(roles)

    def column(wanted: str) -> tuple[pd.Series, str]:
        """The column and, for sentences, where it is."""
        check_column(frame, wanted, name)
        return frame[wanted], f"{name!r}, column {wanted!r}"

    texts = [""] * len(frame) if text_column is None else _texts(*column(text_column))
    ids = None if id_column is None else _ids(*column(id_column))
    groups = None if group_column is None else _groups(*column(group_column))
    labels = clean_labels = verified = None
    if label_column is None:
        names = None
    else:
        series, place = column(label_column)
        given = _names_in(series, place, "label")
        if names is None:
            names = _training_names(given, place, rows_per_class)
        labels = _encode(names, given, place)
        if clean_label_column is not None:
            series, place = column(clean_label_column)
            clean_labels = _encode(names, _names_in(series, place, "label"), place)
        if verified_column is not None:
            verified = _verified(*column(verified_column), labels, names)
    rows = np.arange(len(texts), dtype=np.int64)
    return LoadedTable(frame, Examples(texts, labels, rows, clean_labels, ids, groups, verified), names)


def _verified(series: pd.Series, place: str, labels: np.ndarray, names: LabelNames) -> np.ndarray:
    """True label ids of the rows that a person has looked at, -1 elsewhere."""
    cells: list[str] = []
    for i, value in enumerate(series.tolist()):
        try:
            cells.append(label_text(value) or "")
        except TypeError:
            raise InputError(
                f"{place}: {brief(value)} in {row_listing([i])} is neither a label nor true or false; write "
                "the true label of the rows that were looked at."
            ) from None
    ids = {name: i for i, name in enumerate(names.names)}
    said = [(i, cell) for i, cell in enumerate(cells) if cell]
    verified = np.full(len(cells), -1, np.int64)
    if all(cell in ids for _, cell in said):
        for i, cell in said:
            verified[i] = ids[cell]
    elif all(cell.lower() in _SAYS for _, cell in said):
        looked = [i for i, cell in said if _SAYS[cell.lower()]]
        verified[looked] = labels[looked]
    else:
        known = ids if any(cell in ids for _, cell in said) else _SAYS
        strange = [i for i, cell in said if cell not in known and cell.lower() not in known]
        raise InputError(
            f"{place}: {brief(cells[strange[0]])} in {row_listing(strange)} is none of the labels, "
            f"{listing(names.names)}; write the true label of each row that was looked at, or true and false "
            "alone."
        )
    return verified


def _groups(column: pd.Series, place: str) -> np.ndarray:
    """Group ids; one group that holds every row leaves nothing to judge a row by."""
    values = column.astype(object).where(column.notna() & (column.astype(str).str.strip() != ""), None)
    groups = as_groups(pd.factorize(values)[0], len(values))
    if len(groups) > 1 and not groups.any():
        raise InputError(f"{place}: all rows are in one group; name a column with more groups, or none.")
    return groups


def _check_roles(roles: dict[str, str | None]) -> None:
    taken: dict[str, str] = {}
    for role, column in roles.items():
        if column is None:
            continue
        if column in taken:
            raise InputError(
                f"Column {column!r} cannot be both the {taken[column]} and the {role} column; name two."
            )
        taken[column] = role
    if "verified" in taken.values() and "label" not in taken.values():
        raise InputError("A column of verified rows needs a label column; name it too.")
    if "clean label" in taken.values() and "label" not in taken.values():
        raise InputError("A clean label column needs a label column to compare with; name it too.")


def check_column(frame: pd.DataFrame, wanted: str, source: str) -> None:
    """Refuse a table without a column.

    Raises:
        InputError: With the columns that it has, and the one that may be meant.
    """
    columns = list(frame.columns)
    if wanted in columns:
        return
    by_lower = {name.lower(): name for name in columns}
    nearest = difflib.get_close_matches(wanted.lower(), by_lower, n=1)
    hint = f"did you mean {by_lower[nearest[0]]!r}?" if nearest else "name one of them."
    raise InputError(
        f"{source!r} has no column {wanted!r}; it has {listing(columns, shown=20)}: "
        f"{separated_otherwise(columns) or hint}"
    )


def _texts(series: pd.Series, place: str) -> list[str]:
    values = series.tolist()
    missing = series.isna().tolist()
    empty = [
        i for i, value in enumerate(values) if missing[i] or (isinstance(value, str) and not value.strip())
    ]
    if empty:
        raise InputError(
            f"{place}: the text is empty in {row_listing(empty)}; fill it in or remove the rows."
        )
    other = [i for i, value in enumerate(values) if not isinstance(value, str)]
    if other:
        kind = type(values[other[0]]).__name__
        raise InputError(
            f"{place}: the text is not a string but {kind} in {row_listing(other)}; name a column of text."
        )
    _refuse_nul(values, place, "text")
    return values


def _refuse_nul(values: list[str], place: str, kind: str) -> None:
    """No CSV can hold it, and the list of label issues is one."""
    nul = [i for i, value in enumerate(values) if "\0" in value]
    if nul:
        raise InputError(f"{place}: the {kind} holds a NUL character in {row_listing(nul)}; remove it.")


def _names_in(series: pd.Series, place: str, kind: str) -> list[str]:
    names: list[str] = []
    missing: list[int] = []
    for i, value in enumerate(series.tolist()):
        try:
            name = label_text(value)
        except TypeError:
            raise InputError(
                f"{place}: the {kind} is {brief(value)}, of type {type(value).__name__}, "
                f"in {row_listing([i])}; write text or a whole number."
            ) from None
        if name is None:
            missing.append(i)
        else:
            names.append(name)
    if missing:
        raise InputError(
            f"{place}: the {kind} is missing in {row_listing(missing)}; fill it in or remove the rows."
        )
    _refuse_nul(names, place, kind)
    return names


def _ids(series: pd.Series, place: str) -> list[str]:
    ids = _names_in(series, place, "id")
    counts = Counter(ids)
    repeated = [i for i, name in enumerate(ids) if counts[name] > 1]
    if repeated:
        values = list(dict.fromkeys(ids[i] for i in repeated))
        raise InputError(
            f"{place}: the ids {listing(values)} occur more than once, in {row_listing(repeated)}; "
            "make them unique."
        )
    return ids


def _training_names(given: list[str], place: str, rows_per_class: int) -> LabelNames:
    try:
        names = LabelNames.fit(given)
    except InputError as error:
        raise InputError(f"{place}: {error}") from None
    counts = Counter(given)
    if len(counts) == 1:
        raise InputError(
            f"{place}: every row has the label {brief(given[0])}; give rows of at least two classes."
        )
    single = [i for i, name in enumerate(given) if counts[name] < rows_per_class]
    if single:
        labels = [given[i] for i in single]
        raise InputError(
            f"{place}: the labels {listing(labels)} have one row each, in {row_listing(single)}; "
            "add rows of these classes or remove them."
        )
    return names


def _encode(names: LabelNames, labels: list[str], place: str) -> np.ndarray:
    known = set(names.names)
    unknown = [i for i, label in enumerate(labels) if label not in known]
    if unknown:
        strange = list(dict.fromkeys(labels[i] for i in unknown))
        raise InputError(
            f"{place}: the training labels, {listing(names.names)}, lack {listing(strange)}, "
            f"found in {row_listing(unknown)}; correct or remove these rows."
        )
    return names.encode(labels)
