"""What a table says of the labels of its rows: one label a row, or several."""

import warnings
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from clear_peft.data.checks import listing
from clear_peft.data.columns import (
    check_column,
    check_strange,
    if_one_hot,
    names_in,
    refuse_missing,
    training_names,
    verified_in,
)
from clear_peft.data.label_sets import label_sets
from clear_peft.data.labels import LabelNames
from clear_peft.data.votes import votes_of, with_consensus
from clear_peft.errors import ClearWarning


@dataclass(frozen=True, eq=False)
class Source:
    """A table, and how its labels are read.

    Attributes:
        frame: The table, of N rows.
        name: Where it comes from, for sentences.
        names: Classes known from the training data; None where the labels define them.
        normalize: As ``normalize_labels`` of ``clear_peft.data.examples.examples_of``, and so are the others.
        unlabelled: What stands in place of a label where there is none.
        set_apart: Whether rows without a label, or of a class that ``names`` lacks, are allowed.
    """

    frame: pd.DataFrame
    name: str
    names: LabelNames | None
    normalize: bool
    unlabelled: Sequence[str]
    set_apart: bool

    def column(self, wanted: str) -> tuple[pd.Series, str]:
        """A column and, for sentences, where it is.

        Raises:
            InputError: If there is none of that name.
        """
        check_column(self.frame, wanted, self.name)
        return self.frame[wanted], f"{self.name!r}, column {wanted!r}"

    def labels_in(self, wanted: str, rows: np.ndarray) -> list[str | None]:
        """Labels of some rows, (N,) bool, in a column; None of the others, and where there are none."""
        return names_in(*self.column(wanted), "label", rows, self.unlabelled)


@dataclass(frozen=True, eq=False)
class GivenLabels:
    """What was read; ``labels`` and the last three are as in ``clear_peft.data.Examples``.

    Attributes:
        frame: The table, with a column of the consensus where there are annotators.
        has_label: Rows that have a text and a label, (N,) bool.
        kept: These, and rows that have a text and no label, (N,) bool.
        names: Names of the label ids.
    """

    frame: pd.DataFrame
    has_label: np.ndarray
    kept: np.ndarray
    labels: np.ndarray | None = None
    names: LabelNames | None = None
    clean_labels: np.ndarray | None = None
    verified: np.ndarray | None = None
    votes: np.ndarray | None = None


def several_labels(
    source: Source,
    rows: np.ndarray,
    *,
    label_column: str,
    label_separator: str | None,
    label_columns: Sequence[str],
) -> GivenLabels:
    """Read several labels a row.

    Args:
        source: The table.
        rows: Rows with a text, (N,) bool.
        label_column: As for ``clear_peft.data.examples.examples_of``, and so are the others.
        label_separator: What stands between labels.
        label_columns: Columns of 0 and 1.

    Raises:
        InputError: As ``examples_of``.
    """
    labels, names, unknown = label_sets(
        source.frame,
        source.name,
        label_column=label_column,
        label_separator=label_separator,
        label_columns=label_columns,
        normalize=source.normalize,
        names=source.names,
    )
    strange = np.array([label is not None for label in unknown], bool)
    kept = rows & ~strange
    place = f"{source.name!r}, column {label_column!r}"
    check_strange(strange, unknown, names, place, few=source.set_apart and bool(kept.any()))
    return GivenLabels(source.frame, kept, kept, labels, names)


def one_label(
    source: Source,
    rows: np.ndarray,
    *,
    label_column: str,
    clean_label_column: str | None,
    verified_column: str | None,
    opinion_columns: Sequence[str],
    annotator_columns: Sequence[str],
) -> GivenLabels:
    """Read one label a row, and what else is known of it.

    Args:
        source: The table.
        rows: Rows with a text, (N,) bool.
        label_column: As for ``clear_peft.data.examples.examples_of``, and so are the others.
        clean_label_column: Column of the true labels.
        verified_column: Column that says which rows a person has looked at.
        opinion_columns: Columns of other labels.
        annotator_columns: Columns of several annotators, whose consensus is the given label.

    Raises:
        InputError: As ``examples_of``.
    """
    name, frame = source.name, source.frame
    annotators = {wanted: source.labels_in(wanted, rows) for wanted in annotator_columns}
    if annotators:
        frame = with_consensus(frame, name, annotators, label_column, source.normalize)
    elif label_column not in frame.columns:
        check_column(frame, label_column, name, if_one_hot(frame))
    place = f"consensus of {listing(list(annotators))}" if annotators else f"column {label_column!r}"
    place = f"{name!r}, {place}"
    given = names_in(frame[label_column], place, "label", rows, source.unlabelled)
    blank = rows & np.array([label is None for label in given])
    if blank.any() and not (source.set_apart and (rows & ~blank).any()):
        refuse_missing(blank, place, "label")
    names = source.names
    if names is None:
        with warnings.catch_warnings():
            if annotators:  # what is odd about their labels has been said
                warnings.simplefilter("ignore", ClearWarning)
            named = [label for label in given if label is not None]
            names = training_names(named, place, source.normalize)
    labels = names.find([label or "" for label in given], normalize=source.normalize)
    has_label = rows & (labels >= 0)
    few = source.set_apart and bool(has_label.any())
    check_strange(rows & ~blank & ~has_label, given, names, place, few=few)
    clean_labels = verified = votes = None
    if clean_label_column is not None:
        clean_labels = _true_labels(source, clean_label_column, has_label, names)
    if verified_column is not None:
        verified = verified_in(*source.column(verified_column), labels, names, normalize=source.normalize)
    opinions = {wanted: source.labels_in(wanted, rows) for wanted in opinion_columns}
    if opinions or annotators:
        votes = votes_of((annotators or {label_column: given}) | opinions, names, name, source.normalize)
    return GivenLabels(frame, has_label, has_label | blank, labels, names, clean_labels, verified, votes)


def _true_labels(source: Source, wanted: str, rows: np.ndarray, names: LabelNames) -> np.ndarray:
    """Ids of the true labels of rows that have a given one, (N,) int64."""
    series, place = source.column(wanted)
    true = names_in(series, place, "label", rows)
    refuse_missing(rows & np.array([label is None for label in true]), place, "label")
    labels = names.find([label or "" for label in true], normalize=source.normalize)
    check_strange(rows & (labels < 0), true, names, place, few=False)
    return labels
