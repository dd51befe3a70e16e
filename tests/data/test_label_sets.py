"""Rows with several labels or none: cells, lists, and columns of 0 and 1."""

import numpy as np
import pandas as pd
import pytest

from clear_peft.data import read_table
from clear_peft.data.label_sets import flags_in, holds_lists, label_sets_in
from clear_peft.errors import ClearWarning, InputError


def _sets(cells, separator=None, **options):
    given, names = label_sets_in(pd.Series(cells, dtype=object), "'t', column 'label'", separator, **options)
    return given.astype(int).tolist(), names.names


@pytest.mark.parametrize(
    ("cells", "separator"),
    [
        (["a;b", "", "b", None, " c ; a;"], ";"),
        (["a|b", " ", "b", float("nan"), "c|a|a"], "|"),
        ([["a", "b"], [], ["b"], None, ("c", "a")], None),
        ([np.array(["a", "b"]), np.array([]), ["b"], pd.NA, ["c", "a"]], ";"),
    ],
)
def test_cells_and_lists(cells, separator):
    expected = [[1, 1, 0], [0, 0, 0], [0, 1, 0], [0, 0, 0], [1, 0, 1]]
    assert _sets(cells, separator) == (expected, ("a", "b", "c"))


def test_whole_numbers_are_sorted_as_such():
    assert _sets([[10, 2], [2.0], [True, "x"]])[1] == ("10", "2", "True", "x")
    assert _sets([[10, 2], [2]])[1] == ("2", "10")
    assert _sets(["2;10", "2", "2.0"], ";") == ([[1, 1], [1, 0], [1, 0]], ("2", "10"))


def test_spellings_are_joined_if_asked():
    assert _sets(["Bug;ui", "bug", "bug;UI", "ui"], ";", normalize=True)[1] == ("bug", "ui")
    with pytest.warns(ClearWarning, match="differ only in case"):
        assert len(_sets(["Bug;ui", "bug"], ";")[1]) == 3


def test_lists_survive_json_and_parquet(tmp_path):
    (tmp_path / "t.jsonl").write_text('{"text": "x", "label": ["a", "b"]}\n{"text": "y", "label": []}\n')
    frame = read_table(tmp_path / "t.jsonl")
    assert holds_lists(frame["label"])
    frame.to_parquet(tmp_path / "t.parquet")
    for name in ("t.jsonl", "t.parquet"):
        assert _sets(read_table(tmp_path / name)["label"]) == ([[1, 1], [0, 0]], ("a", "b"))
    assert not holds_lists(frame["text"])


@pytest.mark.parametrize(
    ("cells", "separator", "expected"),
    [
        (["", None], ";", "no row has a label"),
        ([[], None], None, "no row has a label"),
        ([["a"], "b"], None, r"'b' in 1 row \(1; .* is no list"),
        ([["a", None]], None, r"a label is None in 1 row \(0;"),
        ([["a", 1.5]], None, r"a label is 1.5 in 1 row \(0;"),
        ([["a"], [["b"]]], None, r"a label is \['b'\] in 1 row \(1;"),
        ([["a\0"]], None, r"a label is 'a\\x00' in 1 row"),
        (["a", 1.5], ";", r"the label is 1.5 in 1 row \(1;"),
        (["a;b", "b;a"], ";", "every row has all labels"),
        (["bug;bug\u200b", "x"], ";", "cannot be told by looking"),
    ],
)
def test_cells_that_hold_something_else(cells, separator, expected):
    with pytest.raises(InputError, match=expected):
        _sets(cells, separator)


def test_columns_of_0_and_1():
    frame = pd.DataFrame({"text": list("xyz"), "b": ["1", "0", "1.0"], "a": [True, False, False]})
    given, names = flags_in(frame, "t.csv", ["b", "a"])
    assert given.tolist() == [[True, True], [False, False], [True, False]]
    assert names.names == ("b", "a")


@pytest.mark.parametrize(
    ("columns", "expected"),
    [
        (["a", "text"], r"'t.csv', column 'text': 'x' in 3 rows .* is neither 0 nor 1; write 1 where"),
        (["a", "part"], r"column 'part': nan in 1 row \(1;"),
        (["a", "bb"], r"no column 'bb'"),
        (["a", "a"], "must differ"),
        (["none"], "no row has a label"),
        (["all"], "every row has all labels"),
    ],
)
def test_columns_of_something_else(columns, expected):
    frame = pd.DataFrame({"text": list("xyz"), "a": [1, 0, 1], "part": ["1", None, "0"]}).assign(
        all=1, none=0
    )
    with pytest.raises(InputError, match=expected):
        flags_in(frame, "t.csv", columns)
