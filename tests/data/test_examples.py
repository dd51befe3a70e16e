"""load_examples: what it takes, and one sentence for each thing that it does not."""

import json
import math

import numpy as np
import pandas as pd
import pytest

from clear_peft.data import Examples, LabelNames, load_examples
from clear_peft.errors import ClearWarning, InputError


def table(tmp_path, **columns):
    path = tmp_path / "data.jsonl"
    rows = zip(*columns.values(), strict=True)
    path.write_text("".join(json.dumps(dict(zip(columns, row, strict=True))) + "\n" for row in rows))
    return path


def test_training_data(tmp_path):
    path = table(
        tmp_path,
        text=list("abcd"),
        label=[10, 2, 2, 10],
        gold=["2", "2", 10, 10],
        key=[7, 8, 9, 10],
        more=[None] * 4,
    )
    loaded = load_examples(path, clean_label_column="gold", id_column="key")
    assert loaded.names == LabelNames(("2", "10"))
    examples = loaded.examples
    assert examples.texts == list("abcd")
    assert examples.labels.tolist() == [1, 0, 0, 1]
    assert examples.clean_labels.tolist() == [0, 0, 1, 1]
    assert examples.rows.tolist() == [0, 1, 2, 3]
    assert {examples.labels.dtype, examples.clean_labels.dtype, examples.rows.dtype} == {np.dtype(np.int64)}
    assert examples.ids == ["7", "8", "9", "10"]
    assert list(loaded.frame.columns) == ["text", "label", "gold", "key", "more"]


def test_validation_data_follows_the_training_labels(tmp_path):
    loaded = load_examples(table(tmp_path, text=["a"], label=["b"]), names=LabelNames(("a", "b")))
    assert loaded.examples.labels.tolist() == [1]
    assert loaded.names.names == ("a", "b")


def test_prediction_needs_no_labels_and_keeps_every_column(tmp_path):
    loaded = load_examples(table(tmp_path, text=["a"], label=[None], z=[1]), label_column=None)
    assert loaded.examples.labels is None
    assert loaded.names is None
    assert list(loaded.frame.columns) == ["text", "label", "z"]


def test_every_format_gives_the_same_examples(tmp_path):
    frame = pd.DataFrame({"text": ["a", "b", "c", "d"], "label": ["1", "0", "1", "0"]})
    from clear_peft.data import write_table

    for ending in (".csv", ".tsv", ".jsonl", ".parquet"):
        write_table(frame, tmp_path / f"t{ending}")
        loaded = load_examples(tmp_path / f"t{ending}")
        assert loaded.examples.labels.tolist() == [1, 0, 1, 0]


FOUR = {"text": list("abcd"), "label": [0, 1, 0, 1]}


@pytest.mark.parametrize(
    ("columns", "arguments", "expected"),
    [
        (FOUR, {"text_column": "texts"}, r"no column 'texts'; it has 'text', 'label': did you mean 'text'\?"),
        (FOUR, {"label_column": "LABEL"}, r"did you mean 'label'\?"),
        (FOUR, {"label_column": "quux"}, "it has 'text', 'label': name one of them"),
        (
            {"text": list("abc"), "hot": [0, 1, 1], "cold": [True, False, True], "n": [0, 1, 2]},
            {},
            r"columns of 0 and 1 \('hot', 'cold'\) are labels, .* train read them by --label-columns",
        ),
        ({"text": list("ab"), "hot": ["0", "1"], "cold": ["1.0", "0.0"]}, {}, r"idxmax\(axis=1\)"),
        ({**FOUR, "hot": [0, 1, 1, 0], "cold": [1, 0, 0, 1]}, {"label_column": "lable"}, "mean 'label'"),
        (FOUR, {"label_column": "text"}, "cannot be both the text and the label column"),
        (FOUR, {"label_column": None, "clean_label_column": "label"}, "needs a label column"),
        (
            {**FOUR, "text": ["a", "", " \n", None]},
            {},
            r"'text': the text is empty in 3 rows \(1, 2, 3; counted from 0",
        ),
        ({**FOUR, "text": ["a", 2, "c", "d"]}, {}, r"not a string but int in 1 row \(1;"),
        ({**FOUR, "label": ["a", "", "a", None]}, {}, r"'label': the label is missing in 2 rows \(1, 3;"),
        ({**FOUR, "text": [" "] * 4}, {"set_apart": True}, "the text is empty in 4 rows"),
        ({**FOUR, "label": [None] * 4}, {"set_apart": True}, "the label is missing in 4 rows"),
        ({**FOUR, "label": [0, 1.5, 0, 1]}, {}, r"the label is 1.5, of type float, in 1 row \(1;"),
        ({**FOUR, "label": [0, [1], 0, 1]}, {}, r"of type list, in 1 row .*write one label a row"),
        (
            {**FOUR, "label": ["bug", "bug\u200b", "x", "x"]},
            {},
            r"'bug' \(1×\), 'bug\\u200b' \(1×\)",
        ),
        ({**FOUR, "label": [1, 1, 1, 1]}, {}, "every row has the label '1'"),
        (
            {**FOUR, "label": ["a", "b", "a ", "b"]},
            {},
            r"'a' \(1×\), 'a ' \(1×\) differ only in white space",
        ),
        (
            {**FOUR, "label": ["\xe9", "b", "e\u0301", "b"]},
            {},
            r"'e\\u0301' \(1×\), '\\xe9' \(1×\) differ only in how Unicode",
        ),
        (
            {**FOUR, "label": ["a\0", "b", "a\0", "b"]},
            {},
            r"'label': the label holds a NUL .* in 2 rows \(0, 2;",
        ),
        ({**FOUR, "id": ["a\0", "b", "c", "d"]}, {"id_column": "id"}, "'id': the id holds a NUL character"),
        (FOUR, {"names": LabelNames(("0", "2"))}, r"labels, '0', '2', lack '1', found in 2 rows \(1, 3;"),
        ({**FOUR, "gold": [0, 1, 0, 5]}, {"clean_label_column": "gold"}, "'gold': .* lack '5'"),
        (
            {**FOUR, "id": ["x", "y", "x", "z"]},
            {"id_column": "id"},
            r"the ids 'x' occur more than once, in 2 rows \(0, 2;",
        ),
        ({**FOUR, "id": ["x", "y", None, "z"]}, {"id_column": "id"}, "the id is missing in 1 row"),
    ],
)
def test_mistakes(tmp_path, columns, arguments, expected):
    path = table(tmp_path, **columns)
    with pytest.raises(InputError, match=expected) as caught:
        load_examples(path, **arguments)
    assert "\n" not in str(caught.value)


def test_classes_of_one_row_are_classes(tmp_path):
    assert load_examples(table(tmp_path, **{**FOUR, "label": [0, 1, 0, 2]})).names.names == ("0", "1", "2")


def test_spellings_of_a_number_or_truth_value_are_one_class_across_files(tmp_path):
    train = load_examples(table(tmp_path, text=list("abcd"), label=["1.0", "0.0", "1.0", "0.0"]))
    assert train.names.names == ("0.0", "1.0")  # as written
    other = load_examples(table(tmp_path, text=list("abc"), label=[1, "0", 1.0]), names=train.names)
    assert other.examples.labels.tolist() == [1, 0, 1]
    mixed = load_examples(table(tmp_path, text=list("abcd"), label=[1, "1.0", 0, 0.0]))
    assert mixed.names.names == ("0", "1")
    truth = load_examples(table(tmp_path, text=list("abcd"), label=["TRUE", "true", True, "FALSE"]))
    assert truth.names.names == ("FALSE", "True")
    assert truth.examples.labels.tolist() == [1, 1, 1, 0]
    with pytest.warns(ClearWarning, match="zeros before a number"):
        zeros = load_examples(table(tmp_path, text=list("abcd"), label=["007", "07", "7", "7"]))
    assert zeros.names.names == ("007", "07", "7")


def test_labels_that_differ_in_case_are_said_and_joined_when_asked(tmp_path):
    label = ["Bug", "bug", "bug", "BUG ", "b\u00adug", " idea"]
    path = table(tmp_path, text=list("abcdef"), label=label)
    joined = load_examples(path, normalize_labels=True)
    assert joined.names.names == ("bug", "idea")  # the spelling of most rows
    assert joined.examples.labels.tolist() == [0, 0, 0, 0, 0, 1]
    other = load_examples(path, names=LabelNames(("BUG", "IDEA")), normalize_labels=True)
    assert other.examples.labels.tolist() == [0, 0, 0, 0, 0, 1]
    path = table(tmp_path, text=list("abcd"), label=["Bug", "bug", "bug", "idea"])
    with pytest.warns(ClearWarning, match=r"'Bug' \(1×\), 'bug' \(2×\) differ only in case"):
        assert load_examples(path).names.names == ("Bug", "bug", "idea")


def test_rows_without_a_label_are_set_apart(tmp_path):
    path = table(
        tmp_path, text=list("abcde"), label=["x", None, "y", " ", "?"], key=list("vwxyz"), gold=list("xxyyx")
    )
    with pytest.warns(ClearWarning, match=r"set apart, as they have no label: 3 rows \(1, 3, 4;"):
        loaded = load_examples(
            path, clean_label_column="gold", id_column="key", unlabelled=["?"], set_apart=True
        )
    assert loaded.examples.rows.tolist() == [0, 2]
    assert loaded.examples.labels.tolist() == loaded.examples.clean_labels.tolist() == [0, 1]
    assert loaded.unlabelled.rows.tolist() == [1, 3, 4]
    assert (loaded.unlabelled.texts, loaded.unlabelled.ids) == (["b", "d", "e"], ["w", "y", "z"])
    assert loaded.unlabelled.labels is None
    assert len(loaded.frame) == 5


def test_rows_of_classes_that_training_lacks_are_left_out_unless_they_look_like_a_slip(tmp_path):
    names = LabelNames(("billing", "item-01"))
    rows = {"text": list("abc"), "label": ["billing", "item-02", "fraud"]}
    with pytest.warns(ClearWarning, match=r"lacks \('item-02', 'fraud'\); left out: 2 rows \(1, 2;"):
        loaded = load_examples(table(tmp_path, **rows), names=names, set_apart=True)
    assert loaded.examples.rows.tolist() == [0]
    assert loaded.unlabelled is None
    rows["label"][2] = "Biling"
    with pytest.raises(InputError, match=r"lack 'item-02', 'Biling' \(did you mean 'billing'\?\)"):
        load_examples(table(tmp_path, **rows), names=names, set_apart=True)
    with pytest.raises(InputError, match="lack 'fraud', found in 3 rows"):
        load_examples(table(tmp_path, text=list("abc"), label=["fraud"] * 3), names=names, set_apart=True)


def test_several_text_columns_are_one_text_and_a_pair(tmp_path):
    path = table(
        tmp_path, title=["t", None, "u"], body=["b\nc", "d", " "], note=["n", "", "o"], label=[0, 1, 0]
    )
    loaded = load_examples(path, text_column=["title", "body", "note"])
    assert loaded.examples.texts == ["t\nb\nc\nn", "d", "u\no"]
    assert loaded.examples.pairs == [("t", "b\nc\nn"), ("", "d"), ("u", "o")]
    assert loaded.examples.select([2]).pairs == [("u", "o")]
    with pytest.warns(ClearWarning, match=r"'body': left out, as their text is empty: 1 row \(2;"):
        assert load_examples(path, text_column=["body"], set_apart=True).examples.rows.tolist() == [0, 1]
    # whoever predicts says it in other words
    unread = load_examples(path, text_column=["body"], label_column=None, set_apart=True)
    assert unread.examples.rows.tolist() == [0, 1]
    with pytest.raises(InputError, match="is named twice as the text column"):
        load_examples(path, text_column=["title", "title"])


def test_empty_rows_at_the_end_are_no_rows(tmp_path):
    path = tmp_path / "table.csv"
    path.write_text("text,label\na,x\nb,y\n,\n,\n")
    assert len(load_examples(path).frame) == 2
    frame = pd.DataFrame(
        {"text": ["a", "b", None], "label": ["x", "y", math.nan], "n": [1.0, math.nan, math.nan]}
    )
    assert load_examples(frame).frame.index.tolist() == [0, 1]


def test_long_lists_of_rows_are_cut(tmp_path):
    path = table(tmp_path, text=[""] * 100, label=[0] * 100)
    with pytest.raises(InputError, match=r"100 rows \(0, 1, 2, 3, 4 and 95 more; counted"):
        load_examples(path)


def test_select_keeps_the_rows():
    examples = Examples(list("abc"), np.array([0, 1, 2]), np.arange(3), None, ["x", "y", "z"])
    part = examples.select(np.array([2, 0]))
    assert (part.texts, part.labels.tolist(), part.rows.tolist(), part.ids) == (
        ["c", "a"],
        [2, 0],
        [2, 0],
        ["z", "x"],
    )
    assert part.clean_labels is None
    assert len(part) == 2
    assert len(examples.select([])) == 0


def test_fields_of_different_length_are_refused():
    with pytest.raises(ValueError, match="labels has length 1"):
        Examples(["a", "b"], np.array([0]), np.arange(2))


def test_verified_labels_are_read_as_labels_are():
    frame = pd.DataFrame({"text": list("abcd"), "label": ["Spam", "ham", "spam", "ham"], "checked": ""})
    frame["checked"] = ["spam", "", "HAM", ""]
    joined = load_examples(frame, verified_column="checked", normalize_labels=True)
    assert joined.names.names == ("ham", "spam")
    assert joined.examples.verified.tolist() == [1, -1, 0, -1]
    numbers = frame.assign(label=["1", "2", "1", "2"], checked=["1.0", "", "", "2"])
    assert load_examples(numbers, verified_column="checked").examples.verified.tolist() == [0, -1, -1, 1]
    flags = frame.assign(label=["1", "2", "1", "2"], checked=["1", "0", "", "1"])
    assert load_examples(flags, verified_column="checked").examples.verified.tolist() == [0, -1, -1, 1]


@pytest.mark.parametrize("cell", ["HAM", "yes", "eggs"])
def test_a_verified_label_of_another_spelling_is_refused_in_a_sentence(cell):
    frame = pd.DataFrame(
        {"text": list("abc"), "label": ["spam", "ham", "ham"], "checked": ["spam", cell, ""]}
    )
    with pytest.raises(InputError, match=f"'{cell}' in 1 row .1; .* is none of the labels, 'ham', 'spam'"):
        load_examples(frame, verified_column="checked")
