"""load_examples: what it takes, and one sentence for each thing that it does not."""

import json

import numpy as np
import pandas as pd
import pytest

from clear_peft.data import Examples, LabelNames, load_examples
from clear_peft.errors import InputError


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
        (FOUR, {"label_column": "text"}, "cannot be both the text and the label column"),
        (FOUR, {"label_column": None, "clean_label_column": "label"}, "needs a label column"),
        (
            {**FOUR, "text": ["a", "", " \n", None]},
            {},
            r"'text': the text is empty in 3 rows \(1, 2, 3; counted from 0",
        ),
        ({**FOUR, "text": ["a", 2, "c", "d"]}, {}, r"not a string but int in 1 row \(1;"),
        ({**FOUR, "label": ["a", "", "a", None]}, {}, r"'label': the label is missing in 2 rows \(1, 3;"),
        ({**FOUR, "label": [0, 1.5, 0, 1]}, {}, r"the label is 1.5, of type float, in 1 row \(1;"),
        ({**FOUR, "label": [0, [1], 0, 1]}, {}, r"of type list, in 1 row"),
        ({**FOUR, "label": [1, 1, 1, 1]}, {}, "every row has the label '1'"),
        ({**FOUR, "label": [0, 1, 0, 2]}, {}, r"the labels '1', '2' have one row each, in 2 rows \(1, 3;"),
        ({**FOUR, "label": ["a", "b", "a ", "b"]}, {}, "'a' and 'a ' differ only in white space"),
        ({**FOUR, "label": ["\xe9", "b", "e\u0301", "b"]}, {}, r"'e\\u0301' and '\\xe9' differ only in how"),
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
