"""Labelled examples from a table, checked so that training cannot fail late on them."""

from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from typing import Any

import numpy as np
import pandas as pd

from clear_peft.data.columns import (
    check_column,
    check_roles,
    groups_in,
    ids_in,
    joined,
    pairs_of,
    said_rows,
    texts_in,
    warn,
)
from clear_peft.data.given_labels import GivenLabels, Source, one_label, several_labels
from clear_peft.data.label_sets import has_label_sets
from clear_peft.data.labels import LabelNames
from clear_peft.data.tables import name_of, read_table, without_empty_end
from clear_peft.data.token_rows import sentences_of, token_columns
from clear_peft.errors import InputError


@dataclass(frozen=True, eq=False)
class Examples:
    """Texts with what is known about each; all fields have the same length N.

    Attributes:
        texts: N texts.
        labels: Given label ids, int64 of shape (N,); where rows have several labels, which they have, bool of
            shape (N, C); where words have labels, an array of their ids for each row, (N,) of objects; None
            where there are none.
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
        words: The words of each row, where these have labels: the texts are these with spaces between.
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
    words: list[list[str]] | None = None

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
    label_separator: str | None = None,
    label_columns: Sequence[str] = (),
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
    lists: bool = False,
) -> LoadedTable:
    """Check the examples of a table that is read already.

    Without ``names`` the table is training data: its labels define the classes, of which there must be two.
    With ``names``, as for validation and test data, its labels must be among them. Of several labels a row,
    what is for one alone is not looked at: true labels, verified rows, opinions and annotators.

    Args:
        frame: The table.
        name: Where it comes from, for sentences.
        text_column: Column of the texts; several are read as one text, a line each; None where there are
            none: they are then empty.
        label_column: Column of the given labels; None to read no labels, as for prediction.
        label_separator: What stands between several labels of a cell; rows then have several labels, or none
            where the cell is empty. Default: a cell is one label, unless ``names`` or ``lists`` say more.
        label_columns: Columns of 0 and 1, one for each of several labels, in place of ``label_column``.
            Default: there are none.
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
        normalize_labels: Whether labels that differ only in case, white space, hyphens and underscores
            between words, characters that cannot be seen or how Unicode composes letters are one.
            Default False.
        unlabelled: What stands in place of a label where there is none, besides an empty cell.
        set_apart: Whether rows without a label are kept apart, and rows without a text or of classes that
            ``names`` lacks left out, as long as others are left. A warning says so, of texts where labels are
            read. Default False: they are refused.
        lists: Whether a column of lists gives each row several labels, or each word one where the texts are
            lists of words. Default False: it is refused, unless ``names`` are such labels.

    Returns:
        The table, its examples and the names of their labels.

    Raises:
        InputError: If a column is missing or named twice, a text or label is missing, an id occurs twice, or
            the classes are not as above; the sentence gives the first rows concerned.
    """
    of_words = lists if names is None else names.words
    if of_words and label_column is not None and text_column is not None:
        found = token_columns(frame, text_column, label_column)
        if found is not None or names is not None:
            places = found or (_list(text_column)[0], label_column)
            return _of_words(frame, name, places, id_column, group_column, names)
    several = _list(text_column)
    roles: list[tuple[str, str | None]] = [("text", wanted) for wanted in several]
    labelled = [label_column] if label_column is None or not label_columns else label_columns
    roles += [("label", wanted) for wanted in labelled]
    roles += [("clean label", clean_label_column), ("id", id_column)]
    roles += [("group", group_column), ("verified", verified_column)]
    roles += [("opinion", wanted) for wanted in _list(opinion_column)]
    check_roles([*roles, *(("annotator", wanted) for wanted in _list(annotator_column))])

    source = Source(frame, name, names, normalize_labels, unlabelled, set_apart)
    parts = [texts_in(*source.column(wanted)) for wanted in several]
    texts = joined(parts) if parts else [""] * len(frame)
    has_text = np.array([bool(text) for text in texts]) if parts else np.ones(len(frame), bool)
    if not has_text.all():
        place = f"{name!r}, column {' and '.join(map(repr, several))}"
        if not (set_apart and has_text.any()):
            raise InputError(
                f"{place}: the text is empty in {said_rows(~has_text)}; fill it in or remove the rows."
            )
        if label_column is not None:  # who predicts says it in other words
            warn(f"{place}: left out, as their text is empty: {said_rows(~has_text)}.")
    ids = None if id_column is None else ids_in(*source.column(id_column))
    groups = None if group_column is None else groups_in(*source.column(group_column))
    if label_column is None:
        given = GivenLabels(frame, has_text, has_text)
    elif (
        names.several
        if names is not None
        else (lists or label_separator is not None or label_columns)
        and has_label_sets(frame, label_column, label_separator, label_columns)
    ):
        given = several_labels(
            source,
            has_text,
            label_column=label_column,
            label_separator=label_separator,
            label_columns=label_columns,
        )
    else:
        given = one_label(
            source,
            has_text,
            label_column=label_column,
            clean_label_column=clean_label_column,
            verified_column=verified_column,
            opinion_columns=_list(opinion_column),
            annotator_columns=_list(annotator_column),
        )
    every = Examples(
        texts,
        given.labels,
        np.arange(len(frame), dtype=np.int64),
        given.clean_labels,
        ids,
        groups,
        given.verified,
        given.votes,
        pairs_of(parts),
    )
    return _parted(every, given, name)


def _parted(every: Examples, given: GivenLabels, name: str) -> LoadedTable:
    """Examples that have a label, and those that are set apart, since they have none."""
    if given.has_label.all():
        return LoadedTable(given.frame, every, given.names)
    apart, others = given.kept & ~given.has_label, None
    if apart.any():
        warn(f"{name!r}: set apart, as they have no label: {said_rows(apart)}.")
        others = replace(
            every.select(np.flatnonzero(apart)), labels=None, clean_labels=None, verified=None, votes=None
        )
    return LoadedTable(given.frame, every.select(np.flatnonzero(given.has_label)), given.names, others)


def _of_words(
    frame: pd.DataFrame,
    name: str,
    places: tuple[str, str],
    id_column: str | None,
    group_column: str | None,
    names: LabelNames | None,
) -> LoadedTable:
    """Examples whose words have labels, of columns of words and of their labels."""
    for column in (id_column, group_column):
        if column is not None:
            check_column(frame, column, name)
    sentences = sentences_of(frame, name, *places, names=names)
    labels = np.empty(len(sentences), dtype=object)
    for row, tags in enumerate(np.split(sentences.tags, np.cumsum(sentences.sizes)[:-1])):
        labels[row] = tags
    examples = Examples(
        [" ".join(words) for words in sentences.words],
        labels,
        np.arange(len(sentences), dtype=np.int64),
        ids=None if id_column is None else ids_in(frame[id_column], f"{name!r}, column {id_column!r}"),
        groups=None
        if group_column is None
        else groups_in(frame[group_column], f"{name!r}, column {group_column!r}"),
        words=sentences.words,
    )
    return LoadedTable(frame, examples, sentences.names)


def _list(columns: str | Sequence[str] | None) -> list[str]:
    return [columns] if isinstance(columns, str) else list(columns or ())
