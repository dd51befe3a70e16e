"""Tables in which several sources label the same rows."""

import numpy as np
import pandas as pd
import pytest

from clear_peft.data import load_examples
from clear_peft.errors import InputError


def table(**columns):
    size = len(next(iter(columns.values())))
    return pd.DataFrame({"text": [f"text {i}" for i in range(size)], **columns})


def test_second_opinions_stand_beside_the_given_label():
    frame = table(label=["a", "b", "a"], rule=["b", "", "a"], model=[None, "b", "b"])
    loaded = load_examples(frame, opinion_column=["rule", "model"])
    assert loaded.names.names == ("a", "b")
    assert loaded.examples.votes.tolist() == [[0, 1, -1], [1, -1, 1], [0, 0, 1]]
    assert loaded.examples.select([2]).votes.tolist() == [[0, 0, 1]]
    assert load_examples(frame).examples.votes is None


def test_the_consensus_of_annotators_is_the_label():
    frame = table(ann=["a", "b", "", "a"], bob=["a", "b", "b", ""], cy=["b", "b", "", ""])
    loaded = load_examples(frame, annotator_column=["ann", "bob", "cy"])
    assert loaded.frame["label"].tolist() == ["a", "b", "b", "a"]
    assert loaded.examples.labels.tolist() == [0, 1, 1, 0]
    assert loaded.examples.votes.tolist() == [[0, 0, 1], [1, 1, 1], [-1, 1, -1], [0, -1, -1]]
    assert "label" not in frame, "the given table is left as it is"


def test_rows_that_no_annotator_has_labelled_are_set_apart():
    frame = table(ann=["a", "b", ""], bob=["a", "", None])
    with pytest.warns(UserWarning, match="no label"):
        loaded = load_examples(frame, annotator_column=["ann", "bob"], label_column="topic", set_apart=True)
    assert loaded.examples.rows.tolist() == [0, 1]
    assert loaded.unlabelled.rows.tolist() == [2]
    assert loaded.unlabelled.votes is None
    assert loaded.frame["topic"].isna().tolist() == [False, False, True]


def test_opinions_about_other_classes_count_as_nothing_said():
    frame = table(label=["a", "b", "a"], rule=["zebra", "b", "b"])
    with pytest.warns(UserWarning, match="column 'rule': 'zebra' is no class of the table"):
        votes = load_examples(frame, opinion_column="rule").examples.votes
    np.testing.assert_array_equal(votes[:, 1], [-1, 1, 1])


def test_labels_of_several_columns_are_read_as_those_of_one():
    frame = table(label=["1", "2", "1"], rule=[1.0, np.nan, 2.0])
    assert load_examples(frame, opinion_column="rule").examples.votes.tolist() == [[0, 0], [1, -1], [0, 1]]
    frame = table(label=["Yes", "no", "Yes"], rule=["yes ", "NO", "no"])
    votes = load_examples(frame, opinion_column="rule", normalize_labels=True).examples.votes
    np.testing.assert_array_equal(votes[:, 1] == votes[:, 0], [True, True, False])


@pytest.mark.parametrize(
    ("columns", "said"),
    [
        ({"annotator_column": "ann"}, "one annotator alone"),
        ({"annotator_column": ["ann", "gone"]}, "no column 'gone'"),
        ({"annotator_column": ["ann", "bob"], "label_column": "label"}, "has a column 'label'"),
        ({"annotator_column": ["none", "blank"], "label_column": "topic"}, "no annotator has a label"),
        ({"opinion_column": "none"}, "column 'none': no row has a label"),
        ({"opinion_column": "label"}, "cannot be both"),
        ({"opinion_column": "ann", "label_column": None}, "need a label column"),
    ],
)
def test_what_cannot_be_is_refused(columns, said):
    frame = table(label=["a", "b"], ann=["a", "b"], bob=["b", "b"], none=["", ""], blank=[None, None])
    with pytest.raises(InputError, match=said):
        load_examples(frame, **columns)
