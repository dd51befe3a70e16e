"""Columns in which several sources label the same rows."""

import warnings

import numpy as np
import pandas as pd
import pytest

from clear_peft.data import load_examples
from clear_peft.errors import ClearWarning, InputError

A = ["x", "x", "y", "y"]
BOTH = {"annotator_column": ["A", "B"]}


def load(columns, **options):
    size = len(next(iter(columns.values())))
    frame = pd.DataFrame({"text": [f"text {i}" for i in range(size)], **columns})
    return load_examples(frame.astype(object), **options)


def test_annotators_vote_and_their_consensus_is_the_label():
    table = load({"A": ["x", "x", "y", None], "B": ["x", "x", "y", "y"], "C": ["y", "x", "y", ""]}, **BOTH)
    assert table.frame["label"].tolist() == ["x", "x", "y", "y"]
    assert table.examples.labels.tolist() == [0, 0, 1, 1]
    assert table.examples.votes.tolist() == [[0, 0], [0, 0], [1, 1], [-1, 1]]


def test_opinions_follow_the_classes_of_the_labels():
    columns = {"label": [1, 2, 1, 2], "rule": ["1.0", "2", " ", "NA"]}
    table = load(columns, opinion_column=["rule"], unlabelled=["NA"])
    assert table.examples.votes.tolist() == [[0, 0], [1, 1], [0, -1], [1, -1]]


@pytest.mark.parametrize(
    ("columns", "options", "expected"),
    [
        (
            {"label": A, "rule": ["", " ", None, ""]},
            {"opinion_column": "rule"},
            "'rule': no row has a label; name another",
        ),
        (
            {"label": A, "rule": ["p", "q", "", "p"]},
            {"opinion_column": "rule"},
            "no label is among 'x', 'y', but 'p', 'q'; name another column",
        ),
        ({"A": A, "B": A, "C": [""] * 4}, {"annotator_column": ["A", "B", "C"]}, "'C': no row has a label"),
        ({"A": [""] * 4, "B": [None] * 4}, BOTH, "no annotator has a label"),
        ({"A": A}, {"annotator_column": ["A"]}, "one annotator alone"),
        ({"A": A}, {"annotator_column": ["A", "A"]}, "'A' is named twice as the annotator column"),
        (
            {"label": A, "A": A},
            {"annotator_column": ["A", "label"]},
            "both the label and the annotator column",
        ),
        ({"label": A, "A": A, "B": A}, BOTH, "which the consensus of the annotators would be called"),
        ({"A": ["x"] * 4, "B": ["x"] * 4}, BOTH, "consensus of 'A', 'B': every row has the label 'x'"),
        ({"A": A, "B": [0.5] * 4}, BOTH, "'B': the label is 0.5, of type float.*a fraction is no class"),
    ],
)
def test_what_is_refused(columns, options, expected):
    with pytest.raises(InputError, match=expected):
        load(columns, **options)


def test_labels_of_no_class_say_nothing():
    columns = {"label": A, "rule": ["x", "\x1b[31mz", "y", "y"]}
    with pytest.warns(ClearWarning, match=r"'\\x1b\[31mz' is no class of the table"):
        table = load(columns, opinion_column=["rule"])
    assert table.examples.votes[:, 1].tolist() == [0, -1, 1, 1]


def test_names_that_differ_in_case_are_said_once():
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        load({"A": A, "B": ["x", "X", "y", "y"], "C": ["x", "X", "y", "y"]}, annotator_column=list("ABC"))
    assert sum("differ only in case" in str(one.message) for one in said) == 1


def test_sources_that_never_disagree_look_like_copies():
    labels = ["x", "y"] * 15
    copied = {"label": labels, "rule": [label if i % 4 else "" for i, label in enumerate(labels)]}
    with pytest.warns(ClearWarning, match="'label' and 'rule' agree in all 22 rows that both label"):
        load(copied, opinion_column=["rule"])
    load({"label": labels, "rule": ["x", "x", *labels[2:]]}, opinion_column=["rule"])  # no warning
    load({"A": A, "B": A}, **BOTH)  # nor of a few rows


def table_of(**columns):
    size = len(next(iter(columns.values())))
    return pd.DataFrame({"text": [f"text {i}" for i in range(size)], **columns})


def test_the_consensus_becomes_a_column_of_a_copy_of_the_table():
    frame = table_of(ann=["a", "b", "", "a"], bob=["a", "b", "b", ""], cy=["b", "b", "", ""])
    loaded = load_examples(frame, annotator_column=["ann", "bob", "cy"])
    assert loaded.frame["label"].tolist() == ["a", "b", "b", "a"]
    assert loaded.examples.labels.tolist() == [0, 1, 1, 0]
    assert loaded.examples.votes.tolist() == [[0, 0, 1], [1, 1, 1], [-1, 1, -1], [0, -1, -1]]
    assert "label" not in frame, "the given table is left as it is"


def test_rows_that_no_annotator_has_labelled_are_set_apart():
    frame = table_of(ann=["a", "b", ""], bob=["a", "", None])
    with pytest.warns(UserWarning, match="no label"):
        loaded = load_examples(frame, annotator_column=["ann", "bob"], label_column="topic", set_apart=True)
    assert loaded.examples.rows.tolist() == [0, 1]
    assert loaded.unlabelled.rows.tolist() == [2]
    assert loaded.unlabelled.votes is None
    assert loaded.frame["topic"].isna().tolist() == [False, False, True]


def test_labels_of_several_columns_are_read_as_those_of_one():
    frame = table_of(label=["1", "2", "1"], rule=[1.0, np.nan, 2.0])
    assert load_examples(frame, opinion_column="rule").examples.votes.tolist() == [[0, 0], [1, -1], [0, 1]]
    frame = table_of(label=["Yes", "no", "Yes"], rule=["yes ", "NO", "no"])
    votes = load_examples(frame, opinion_column="rule", normalize_labels=True).examples.votes
    np.testing.assert_array_equal(votes[:, 1] == votes[:, 0], [True, True, False])
