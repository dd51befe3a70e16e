"""The list of label issues is read as it was written, or refused."""

import numpy as np
import pandas as pd
import pytest

from audit.written_run import NAMES, NASTY, issues_of, judged
from clear_peft.audit import read_issues
from clear_peft.data import escape_formulas, write_table
from clear_peft.errors import InputError


@pytest.fixture
def issues():
    given, _, probabilities, losses = judged(rows=len(NASTY))
    return issues_of(given, probabilities, losses, NASTY).assign(id=[f"0{i}" for i in range(len(NASTY))])


def test_it_comes_back(tmp_path, issues):
    write_table(escape_formulas(issues), tmp_path / "i.csv")
    back = read_issues(tmp_path / "i.csv", NAMES)
    assert list(back.columns) == list(issues.columns)
    for column in back.columns:
        # of float32 the shortest text that tells it from its neighbours is written
        np.testing.assert_array_equal(back[column].astype(issues[column].dtype), issues[column])
    kinds = {"row": "i", "clean_probability": "f", "label_quality": "f", "is_label_issue": "b"}
    assert {name: back[name].dtype.kind for name in kinds} == kinds


@pytest.mark.parametrize(
    ("column", "value", "sentence"),
    [
        ("row", "x", "a row that is no number"),
        ("row", "1", "does not list each row once"),
        ("row", "-1", "does not list each row once"),
        ("row", "0.5", "does not list each row once"),
        ("clean_probability", "", "clean_probability that is"),
        ("clean_probability", "many", "no number"),
        ("clean_probability", "1.5", "not between 0 and 1"),
        ("label_quality", "nan", "no number"),
        ("label_quality", "-1", "not between 0 and 1"),
        ("is_label_issue", "yes", "neither True nor False"),
        ("given_label", "mining", r"none of the run's labels \('mining'\)"),
        ("predicted_label", "", "none of the run's labels"),
        ("split", None, "lacks the column 'split'"),
        ("text", None, "lacks the column 'text'"),
    ],
)
def test_damaged(tmp_path, issues, column, value, sentence):
    text = issues.astype(str)
    if value is None:
        text = text.drop(columns=column)
    else:
        text.loc[text["row"] != "1", column] = pd.Series(text[column]).where(text["row"] != "0", value)
    write_table(escape_formulas(text), tmp_path / "i.csv")
    with pytest.raises(InputError, match=sentence) as refusal:
        read_issues(tmp_path / "i.csv", NAMES)
    assert "give the run folder as train has written it" in str(refusal.value)
