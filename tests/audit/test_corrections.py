"""Corrections: carried out to the letter, or refused with a sentence."""

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from audit.written_run import NAMES, NASTY
from clear_peft.audit import Corrections, corrected, read_corrections
from clear_peft.data import Examples, LabelNames, escape_formulas, write_table
from clear_peft.errors import InputError

TEXTS = [*NASTY, "plain"]
LABELS = np.arange(len(TEXTS)) % 3
EXAMPLES = Examples(TEXTS, LABELS, np.arange(len(TEXTS)))


def _file(path, rows, **columns):
    """Decisions (row, action, label) as the report writes them; ``columns`` replace what it would write."""
    frame = pd.DataFrame(rows, columns=["row", "action", "label"])
    frame["given_label"] = [NAMES[LABELS[row % len(TEXTS)]] for row, *_ in rows]
    frame["text"] = [TEXTS[row % len(TEXTS)][:200] for row, *_ in rows]
    write_table(escape_formulas(frame.assign(**columns)), path)
    return path


def _read(path):
    return read_corrections(path, EXAMPLES, LabelNames(tuple(NAMES)))


def test_every_kind_of_text_comes_through(tmp_path):
    actions = ("keep", "relabel", "drop", "skip")
    rows = [(i, actions[i % 4], NAMES[(LABELS[i] + 1) % 3] if i % 4 == 1 else "") for i in range(len(TEXTS))]
    rules = ["how many" if i % 8 == 1 else "" for i in range(len(TEXTS))]
    for more in ({}, {"rule": rules[::-1]}):
        found = _read(_file(tmp_path / "c.csv", rows[::-1], **more))
        assert sorted(found.keep) == list(range(0, len(TEXTS), 4))
        assert found.relabel == {i: (LABELS[i] + 1) % 3 for i in range(1, len(TEXTS), 4)}
        assert sorted(found.drop) == list(range(2, len(TEXTS), 4))
        assert sorted(found.skip) == list(range(3, len(TEXTS), 4))
        assert found.by_rule == (dict.fromkeys(range(1, len(TEXTS), 8), "how many") if more else {})


def test_the_given_label_is_no_correction(tmp_path):
    found = _read(_file(tmp_path / "c.csv", [(1, "relabel", NAMES[LABELS[1]])]))
    assert (found.relabel, found.keep) == ({}, [1])


def test_a_text_cut_by_a_browser(tmp_path):
    # 200 units of UTF-16 are a hundred faces; an odd one before them cuts the last in halves
    faces = TEXTS.index("😀" * 150)
    assert _read(_file(tmp_path / "c.csv", [(faces, "keep", "")], text="😀" * 100)).keep == [faces]
    odd = Examples(["x" + "😀" * 150], np.array([0]), np.arange(1))
    path = _file(tmp_path / "d.csv", [(0, "keep", "")], text="x" + "😀" * 99 + "\ufffd")
    assert read_corrections(path, odd, LabelNames(tuple(NAMES))).keep == [0]


def test_a_text_that_begins_with_a_screenful_of_white_space(tmp_path):
    blank = Examples(["\n" * 210 + "x"], np.array([0]), np.arange(1))
    path = _file(tmp_path / "c.csv", [(0, "keep", "")], text="\n" * 200)
    assert read_corrections(path, blank, LabelNames(tuple(NAMES))).keep == [0]


def test_line_ends_that_a_spreadsheet_has_changed(tmp_path):
    row = TEXTS.index("carriage\r\nreturn")
    assert _read(_file(tmp_path / "c.csv", [(row, "keep", "")], text="carriage\nreturn")).keep == [row]


REFUSED = {
    "no such row": ([(99, "drop", "")], {}, "names the row 99, which is none of the 12 rows"),
    "a negative row": ([(0, "drop", "")], {"row": "-1"}, r"no whole number \('-1'\)"),
    "half a row": ([(0, "drop", "")], {"row": "1.5"}, "no whole number"),
    "a row of another script": ([(0, "drop", "")], {"row": "٣"}, "no whole number"),
    "no row": ([(0, "drop", "")], {"row": ""}, "no whole number"),
    "a row twice": ([(4, "drop", ""), (4, "keep", "")], {}, "the row 4 more than once"),
    "an unknown action": ([(0, "delete", "")], {}, "row 0: there is no action 'delete'"),
    "no action": ([(0, "", "")], {}, "no action ''"),
    "an unknown label": ([(0, "relabel", "mining")], {}, "'mining' is none of the labels; give one of"),
    "no new label": ([(0, "relabel", "")], {}, "row 0: the new label is missing; give one of 'farming'"),
    "a label to keep": ([(0, "keep", "farming")], {}, "the action is keep, but there is a label 'farming'"),
    "another label": ([(3, "keep", "")], {"given_label": "sailing"}, "'farming' there, but 'sailing' here"),
    "another text": ([(3, "keep", "")], {"text": "else"}, "but with 'else' here"),
    "less of the text": ([(11, "keep", "")], {"text": "plai"}, "but with 'plai' here"),
    "a text that goes on": ([(11, "keep", "")], {"text": "plain too"}, "but with 'plain too' here"),
    "all dropped": ([(i, "drop", "") for i in range(len(TEXTS))], {}, "drops every row"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_refused(tmp_path, case):
    rows, columns, sentence = REFUSED[case]
    with pytest.raises(InputError, match=sentence) as refusal:
        _read(_file(tmp_path / "c.csv", rows, **columns))
    assert "c.csv" in str(refusal.value)


@pytest.mark.parametrize("column", ["row", "action", "label", "given_label", "text"])
def test_a_column_that_is_missing(tmp_path, column):
    path = _file(tmp_path / "c.csv", [(0, "drop", "")])
    pd.read_csv(path).drop(columns=column).to_csv(path, index=False)
    with pytest.raises(InputError, match=f"lacks the column '{column}': give row, action"):
        _read(path)


def test_a_cell_that_is_no_text(tmp_path):
    path = tmp_path / "c.jsonl"
    path.write_text('{"row": [1], "action": "keep", "label": "", "given_label": "a", "text": "b"}\n')
    with pytest.raises(InputError, match=r"c\.jsonl' holds"):
        _read(path)


VALUES = st.sampled_from([("a", "b", "c"), (7, -1, 30), (True, False, 2)])


@settings(max_examples=60, deadline=None)
@given(VALUES, st.lists(st.integers(0, 2), max_size=12), st.data())
def test_nothing_else_changes(values, labels, data):
    labels = np.array([0, 1, 2, *labels])  # each class occurs, as in every table that was trained on
    rows = range(len(labels))
    drop = data.draw(st.sets(st.sampled_from(rows), max_size=len(rows) - 1))
    relabel = data.draw(
        st.dictionaries(st.sampled_from(rows).filter(lambda row: row not in drop), st.integers(0, 2))
    )
    relabel = {row: label for row, label in relabel.items() if label != labels[row]}
    column = pd.Series([values[label] for label in labels], dtype=object)
    extra = [[row] if row % 2 else {"row": row} for row in rows]
    frame = pd.DataFrame({"x": extra, "label": column, "y": [f"0{row}" for row in rows]})
    before = frame.copy(deep=True)
    after = corrected(frame, labels, "label", Corrections(relabel, sorted(drop)))
    pd.testing.assert_frame_equal(frame, before)
    kept = [row for row in rows if row not in drop]
    assert list(after.columns) == ["x", "label", "y"]
    assert after.index.tolist() == list(range(len(kept)))
    assert after["x"].tolist() == [extra[row] for row in kept]
    assert after["y"].tolist() == [f"0{row}" for row in kept]
    expected = [values[relabel.get(row, labels[row])] for row in kept]
    assert [(type(value), value) for value in after["label"]] == [(type(value), value) for value in expected]
