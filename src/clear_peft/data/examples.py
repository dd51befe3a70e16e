"""Labelled examples from a table, checked so that training cannot fail late on them."""

import difflib
import re
import warnings
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from typing import Any

import numpy as np
import pandas as pd

from clear_peft.data.checks import brief, listing, row_listing
from clear_peft.data.labels import LabelNames, label_text
from clear_peft.data.tables import name_of, read_table, without_empty_end
from clear_peft.data.votes import votes_of, with_consensus
from clear_peft.errors import ClearWarning, InputError
from clear_peft.label_quality import as_groups

_DIGITS = re.compile(r"\d")
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
        votes: Label ids by each of several sources, -1 where one says nothing, int64 of shape (N, A), where
            the input has more than one: annotators, or the given label and second opinions.
        pairs: Where there are several text columns, the first of them and all others of each row: what the
            tokenizer may encode as a pair.
    """

    texts: list[str]
    labels: np.ndarray | None
    rows: np.ndarray
    clean_labels: np.ndarray | None = None
    ids: list[str] | None = None
    groups: np.ndarray | None = None
    verified: np.ndarray | None = None
    votes: np.ndarray | None = None
    pairs: list[tuple[str, str]] | None = None

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

        def part(values: Any) -> Any:
            if values is None or isinstance(values, np.ndarray):
                return None if values is None else values[positions]
            return [values[i] for i in positions]

        return Examples(**{field.name: part(getattr(self, field.name)) for field in fields(self)})


@dataclass(frozen=True, eq=False)
class LoadedTable:
    """A table and the examples that it holds.

    Attributes:
        frame: The whole input with all its columns; row i is the example whose ``rows`` is i.
        examples: One example for each row, but for those that are set apart.
        names: Names of the label ids; None where there are no labels.
        unlabelled: Rows without a label that were set apart; None where there are none.
    """

    frame: pd.DataFrame
    examples: Examples
    names: LabelNames | None
    unlabelled: Examples | None = None


def load_examples(source: Any, *, encoding: str | None = None, **columns: Any) -> LoadedTable:
    """Read examples from a file, a folder, the hub or memory and check them; empty rows at the end are none.

    Args:
        source: What :func:`read_table` takes.
        encoding: As for :func:`read_table`.
        **columns: As for :func:`examples_of`.

    Returns:
        As :func:`examples_of`.

    Raises:
        InputError: As :func:`read_table` and :func:`examples_of`.
    """
    frame = without_empty_end(read_table(source, encoding=encoding))
    return examples_of(frame, name_of(source), **columns)


def examples_of(
    frame: pd.DataFrame,
    name: str,
    *,
    text_column: str | Sequence[str] | None = "text",
    label_column: str | None = "label",
    clean_label_column: str | None = None,
    id_column: str | None = None,
    group_column: str | None = None,
    verified_column: str | None = None,
    opinion_column: str | Sequence[str] = (),
    annotator_column: str | Sequence[str] = (),
    names: LabelNames | None = None,
    normalize_labels: bool = False,
    unlabelled: Sequence[str] = (),
    set_apart: bool = False,
    empty_texts: bool = False,
) -> LoadedTable:
    """Check the examples of a table that is read already.

    Without ``names`` the table is training data: its labels define the classes, of which there must be two.
    With ``names``, as for validation and test data, its labels must be among them.

    Args:
        frame: The table.
        name: Where it comes from, for sentences.
        text_column: Column of the texts; several are read as one text, a line each; None where there are
            none: they are then empty.
        label_column: Column of the given labels; None to read no labels, as for prediction.
        clean_label_column: Column of the true labels, if they are known; needs ``label_column``.
        id_column: Column of ids that differ from row to row.
        group_column: Column that says what belongs together, such as a customer or a document; an empty cell
            is a row that is alone.
        verified_column: Column that says which rows a person has looked at: their true label, or true where
            the given one is right. Empty cells, and false, are rows that nobody has looked at. Needs
            ``label_column``.
        opinion_column: Columns of other labels for the same rows: by a rule, a model, another person.
        annotator_column: Columns of several annotators. Their consensus is the given label, and becomes the
            column ``label_column`` of the table.
        names: Classes known from the training data.
        normalize_labels: Whether labels that differ only in case, white space, characters that cannot be
            seen or how Unicode composes letters are one. Default False.
        unlabelled: What stands in place of a label where there is none, besides an empty cell.
        set_apart: Whether rows without a label are kept apart, and rows of classes that ``names`` lacks left
            out, each with a warning, as long as others are left. Default False: they are refused.
        empty_texts: Whether rows without a text are left out, as long as others are left. Default False: they
            are refused.

    Returns:
        The table, its examples and the names of their labels.

    Raises:
        InputError: If a column is missing or named twice, a text or label is missing, an id occurs twice, or
            the classes are not as above; the sentence gives the first rows concerned.
    """
    several = _list(text_column)
    roles: list[tuple[str, str | None]] = [("text", wanted) for wanted in several]
    roles += [("label", label_column), ("clean label", clean_label_column), ("id", id_column)]
    roles += [("group", group_column), ("verified", verified_column)]
    roles += [("opinion", wanted) for wanted in _list(opinion_column)]
    _check_roles([*roles, *(("annotator", wanted) for wanted in _list(annotator_column))])

    def column(wanted: str) -> tuple[pd.Series, str]:
        """The column and, for sentences, where it is."""
        check_column(frame, wanted, name)
        return frame[wanted], f"{name!r}, column {wanted!r}"

    parts = [_texts(*column(wanted)) for wanted in several]
    lines = [[part for part in row if part.strip()] for row in zip(*parts, strict=True)]
    kept = np.array([bool(row) for row in lines]) if parts else np.ones(len(frame), bool)
    if not kept.all() and not (empty_texts and kept.any()):
        place = f"{name!r}, column {' and '.join(map(repr, several))}"
        raise InputError(f"{place}: the text is empty in {_rows(~kept)}; fill it in or remove the rows.")
    ids = None if id_column is None else _ids(*column(id_column))
    groups = None if group_column is None else _groups(*column(group_column))
    labels = clean_labels = verified = None
    votes, has_label = None, kept
    if label_column is None:
        names = None
    else:

        def labels_in(wanted: str) -> list[str | None]:
            return _names_in(*column(wanted), "label", kept, unlabelled)

        annotators = {wanted: labels_in(wanted) for wanted in _list(annotator_column)}
        if annotators:
            frame = with_consensus(frame, name, annotators, label_column, normalize_labels)
        if label_column not in frame.columns:
            check_column(frame, label_column, name, _if_one_hot(frame))
        series, place = column(label_column)
        if annotators:
            place = f"{name!r}, consensus of {listing(list(annotators))}"
        given = _names_in(series, place, "label", kept, unlabelled)
        blank = kept & np.array([label is None for label in given])
        if blank.any() and not (set_apart and (kept & ~blank).any()):
            _refuse_missing(blank, place, "label")
        if names is None:
            with warnings.catch_warnings():
                if annotators:  # what is odd about their labels has been said
                    warnings.simplefilter("ignore", ClearWarning)
                named = [label for label in given if label is not None]
                names = _training_names(named, place, normalize_labels)
        labels = names.find([label or "" for label in given], normalize=normalize_labels)
        has_label = kept & (labels >= 0)
        _check_strange(
            kept & ~blank & ~has_label, given, names, place, few=set_apart and bool(has_label.any())
        )
        kept = has_label | blank
        if clean_label_column is not None:
            series, place = column(clean_label_column)
            true = _names_in(series, place, "label", has_label)
            _refuse_missing(has_label & np.array([label is None for label in true]), place, "label")
            clean_labels = names.find([label or "" for label in true], normalize=normalize_labels)
            _check_strange(has_label & (clean_labels < 0), true, names, place, few=False)
        if verified_column is not None:
            verified = _verified(*column(verified_column), labels, names)
        opinions = {wanted: labels_in(wanted) for wanted in _list(opinion_column)}
        if opinions or annotators:
            sources = (annotators or {label_column: given}) | opinions
            votes = votes_of(sources, names, name, normalize_labels)
    every = Examples(
        ["\n".join(row) for row in lines] if parts else [""] * len(frame),
        labels,
        np.arange(len(frame), dtype=np.int64),
        clean_labels,
        ids,
        groups,
        verified,
        votes,
        _pairs(parts) if len(parts) > 1 else None,
    )
    if has_label.all():
        return LoadedTable(frame, every, names)
    examples, others = every.select(np.flatnonzero(has_label)), None
    if (kept & ~has_label).any():
        _warn(f"{name!r}: set apart, as they have no label: {_rows(kept & ~has_label)}.")
        others = every.select(np.flatnonzero(kept & ~has_label))
        others = replace(others, labels=None, clean_labels=None, verified=None, votes=None)
    return LoadedTable(frame, examples, names, others)


def _list(columns: str | Sequence[str] | None) -> list[str]:
    return [columns] if isinstance(columns, str) else list(columns or ())


def _pairs(parts: list[list[str]]) -> list[tuple[str, str]]:
    """The first column, and the lines of all others."""
    rows = zip(*parts, strict=True)
    return [(first, "\n".join(part for part in rest if part.strip())) for first, *rest in rows]


def _rows(chosen: np.ndarray) -> str:
    """Rows of a mask, (N,), for a sentence."""
    return row_listing(np.flatnonzero(chosen).tolist())


def _warn(message: str) -> None:
    warnings.warn(message, ClearWarning, stacklevel=2)


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


def _check_roles(roles: list[tuple[str, str | None]]) -> None:
    taken: dict[str, str] = {}
    for role, column in roles:
        if column is None:
            continue
        if taken.get(column) == role:
            raise InputError(f"Column {column!r} is named twice as the {role} column; name it once.")
        if column in taken:
            raise InputError(
                f"Column {column!r} cannot be both the {taken[column]} and the {role} column; name two."
            )
        taken[column] = role
    if {"opinion", "annotator"} & set(taken.values()) and "label" not in taken.values():
        raise InputError("Columns of opinions or annotators need a label column; name it too.")
    if "verified" in taken.values() and "label" not in taken.values():
        raise InputError("A column of verified rows needs a label column; name it too.")
    if "clean label" in taken.values() and "label" not in taken.values():
        raise InputError("A clean label column needs a label column to compare with; name it too.")


def check_column(frame: pd.DataFrame, wanted: str, source: str, hint: str = "") -> None:
    """Refuse a table without a column.

    Args:
        frame: The table.
        wanted: Name of the column.
        source: Name of the table, for sentences.
        hint: What to do if no name is alike. Default: to name another column.

    Raises:
        InputError: With the columns that it has, and the one that may be meant.
    """
    columns = list(frame.columns)
    if wanted in columns:
        return
    by_lower = {name.lower(): name for name in columns}
    nearest = difflib.get_close_matches(wanted.lower(), by_lower, n=1)
    hint = f"did you mean {by_lower[nearest[0]]!r}?" if nearest else hint or "name one of them."
    raise InputError(f"{source!r} has no column {wanted!r}; it has {listing(columns, shown=20)}: {hint}")


def _if_one_hot(frame: pd.DataFrame) -> str:
    """What to do with a table that has a column of 0 and 1 for each class, perhaps; "" where it has none."""
    flags = [name for name in frame.columns if set(map(_flag, frame[name].tolist())) == {"0", "1"}]
    if len(flags) < 2:
        return ""
    ones = np.sum([[_flag(value) == "1" for value in frame[name]] for name in flags], axis=0)
    mend = (
        f"but a text has one label only, and {_rows(ones > 1)} would have several"
        if (ones > 1).any()
        else "as pandas does by table[columns].astype(float).idxmax(axis=1)"
    )
    return (
        f"if the {len(flags)} columns of 0 and 1 ({listing(flags)}) are classes, write one column with the "
        f"names of the labels, {mend}."
    )


def _flag(value: object) -> str:
    """0 or 1, however a table writes them; else anything else."""
    text = str(value).lower().removesuffix(".0")
    return {"false": "0", "true": "1"}.get(text, text)


def _texts(series: pd.Series, place: str) -> list[str]:
    """The texts of a column; missing ones, and those of white space alone, are empty."""
    missing = series.isna().tolist()
    values = ["" if gone else value for value, gone in zip(series.tolist(), missing, strict=True)]
    other = [i for i, value in enumerate(values) if not isinstance(value, str)]
    if other:
        kind = type(values[other[0]]).__name__
        raise InputError(
            f"{place}: the text is not a string but {kind} in {row_listing(other)}; name a column of text."
        )
    _refuse_nul(values, place, "text")
    return values


def _refuse_nul(values: Sequence[str | None], place: str, kind: str) -> None:
    """No CSV can hold it, and the list of label issues is one."""
    nul = [i for i, value in enumerate(values) if value is not None and "\0" in value]
    if nul:
        raise InputError(f"{place}: the {kind} holds a NUL character in {row_listing(nul)}; remove it.")


def _names_in(
    series: pd.Series, place: str, kind: str, kept: np.ndarray, missing: Sequence[str] = ()
) -> list[str | None]:
    """Names of labels or ids; None where there is none, as in rows that are not kept."""
    names: list[str | None] = []
    for i, value in enumerate(series.tolist()):
        try:
            name = label_text(value) if kept[i] else None
        except TypeError:
            if isinstance(value, list | tuple | np.ndarray):
                mend = f"a text has one {kind} only: write one {kind} a row, as text or a whole number"
            else:
                fraction = "a fraction is no class; " if isinstance(value, float) else ""
                mend = f"{fraction}write text or a whole number"
            raise InputError(
                f"{place}: the {kind} is {brief(value)}, of type {type(value).__name__}, "
                f"in {row_listing([i])}; {mend}."
            ) from None
        names.append(None if name in missing else name)
    _refuse_nul(names, place, kind)
    return names


def _refuse_missing(missing: np.ndarray, place: str, kind: str) -> None:
    if missing.any():
        raise InputError(
            f"{place}: the {kind} is missing in {_rows(missing)}; fill it in or remove the rows."
        )


def _ids(series: pd.Series, place: str) -> list[str]:
    ids = _names_in(series, place, "id", np.ones(len(series), bool))
    _refuse_missing(np.array([name is None for name in ids]), place, "id")
    counts = Counter(ids)
    repeated = [i for i, name in enumerate(ids) if counts[name] > 1]
    if repeated:
        values = list(dict.fromkeys(ids[i] for i in repeated))
        raise InputError(
            f"{place}: the ids {listing(values)} occur more than once, in {row_listing(repeated)}; "
            "make them unique."
        )
    return [str(name) for name in ids]


def _training_names(given: list[str], place: str, normalize: bool) -> LabelNames:
    try:
        names = LabelNames.fit(given, normalize=normalize)
    except InputError as error:
        raise InputError(f"{place}: {error}") from None
    if len(names.names) == 1:
        raise InputError(
            f"{place}: every row has the label {brief(given[0])}; give rows of at least two classes."
        )
    return names


def _check_strange(
    strange: np.ndarray, given: Sequence[str | None], names: LabelNames, place: str, *, few: bool
) -> None:
    """Say which rows are of no known class; they are refused unless they are few and look like no slip."""
    if not strange.any():
        return
    labels = list(dict.fromkeys(given[i] for i in np.flatnonzero(strange).tolist()))
    meant = next((near for label in labels if (near := _meant(label or "", names))), None)
    if few and meant is None:
        _warn(
            f"{place}: no model can predict classes that the training table lacks "
            f"({listing(labels, shown=20)}); left out: {_rows(strange)}."
        )
        return
    hint = f" (did you mean {meant!r}?)" if meant else ""
    raise InputError(
        f"{place}: the training labels, {listing(names.names)}, lack {listing(labels)}{hint}, "
        f"found in {_rows(strange)}; correct or remove these rows."
    )


def _meant(label: str, names: LabelNames) -> str | None:
    """The known name that a label looks like a slip of; names with other digits are other names."""
    for near in difflib.get_close_matches(label.lower(), [name.lower() for name in names.names], cutoff=0.8):
        found = next(name for name in names.names if name.lower() == near)
        if _DIGITS.findall(found) == _DIGITS.findall(label):
            return found
    return None
