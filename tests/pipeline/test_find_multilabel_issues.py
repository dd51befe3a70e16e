"""Several labels a row in Python: what is found, by what, and what is refused."""

import numpy as np
import pandas as pd
import pytest
from sklearn.metrics import average_precision_score

from clear_peft import find_multilabel_issues
from clear_peft.errors import InputError
from tiny_text import keyword_table, tiny_checkpoint

COLUMNS = [
    "row",
    "text",
    "label",
    "given",
    "suggested",
    "clean_probability",
    "label_quality",
    "is_label_issue",
    "row_clean_probability",
    "group",
]


@pytest.fixture(autouse=True)
def _cache(monkeypatch, tmp_path):
    monkeypatch.setenv("CLEAR_PEFT_CACHE", str(tmp_path / "cache"))


def _joined(rows=240, seed=0):
    """Texts of one or two parts, their true labels (N, C), given ones, and names."""
    table = keyword_table(2 * rows, seed=seed)
    names = sorted(set(table["label"]))
    ids = table["label"].map(names.index).to_numpy()
    rng = np.random.default_rng(seed)
    both = rng.random(rows) < 0.5
    true = np.zeros((rows, len(names)), bool)
    true[np.arange(rows), ids[:rows]] = True
    true[np.flatnonzero(both), ids[rows:][both]] = True
    texts = [
        f"{first} {second}" if two else first
        for first, second, two in zip(table["text"][:rows], table["text"][rows:], both, strict=True)
    ]
    given = true & (rng.random(true.shape) >= 0.15)
    return texts, true, given, names


def test_missing_labels_are_found_by_a_frozen_model(tmp_path):
    texts, true, given, names = _joined()
    lists = [[name for name, has in zip(names, row, strict=True) if has] for row in given]
    issues = find_multilabel_issues(texts, lists, model=str(tiny_checkpoint(tmp_path)))
    assert list(issues.columns) == COLUMNS
    score = np.ones(true.shape)
    score[issues["row"], issues["label"].cat.codes] = issues["clean_probability"]
    assert average_precision_score((given != true).ravel(), -score.ravel()) > 0.6
    assert issues["text"].tolist() == [texts[row] for row in issues["row"]]
    assert issues["given"].sum() == given.sum()


def test_lists_arrays_and_tables_are_one():
    _, true, given, names = _joined()
    embeddings = true + np.random.default_rng(3).normal(0, 0.3, true.shape)
    lists = [[name for name, has in zip(names, row, strict=True) if has] for row in given]
    by_list = find_multilabel_issues(None, lists, embeddings=embeddings)
    frame = pd.DataFrame(given.astype(int), columns=names)
    pd.testing.assert_frame_equal(by_list, find_multilabel_issues(None, frame, embeddings=embeddings))
    by_number = find_multilabel_issues(None, given, embeddings=embeddings)
    assert by_number["label"].cat.categories.tolist() == ["0", "1", "2"]
    assert (by_number["label"].cat.codes == by_list["label"].cat.codes).all()


def test_predictions_and_groups():
    _, true, given, _ = _joined()
    groups = np.arange(len(true)) // 2
    issues = find_multilabel_issues(None, given, pred_probs=0.9 * true + 0.05, groups=groups)
    first = issues.head((given != true).sum() // 2)
    assert (given != true)[first["row"], first["label"].cat.codes].all()
    assert (issues["group"] == issues["row"] // 2).all()


@pytest.mark.parametrize("as_lists", [False, True])
def test_columns_of_predictions_are_the_labels_in_any_order(as_lists):
    _, true, given, names = _joined()
    labels = pd.DataFrame(given, columns=names)
    if as_lists:
        labels = [[name for name, has in zip(names, row, strict=True) if has] for row in given]
    known = pd.DataFrame(0.9 * true + 0.05, columns=names)
    expected = find_multilabel_issues(None, labels, pred_probs=known.to_numpy())
    turned = known[[names[2], names[0], names[1]]]
    pd.testing.assert_frame_equal(find_multilabel_issues(None, labels, pred_probs=turned), expected)
    listed = ", ".join(map(repr, names))
    with pytest.raises(InputError, match=f"columns 'A', .*, but the classes are {listed}"):
        find_multilabel_issues(None, labels, pred_probs=known.rename(columns={names[0]: "A"}))


def test_numbered_labels_take_columns_by_number():
    _, true, given, _ = _joined()
    known = pd.DataFrame(0.9 * true + 0.05)
    expected = find_multilabel_issues(None, given, pred_probs=known)
    pd.testing.assert_frame_equal(find_multilabel_issues(None, given, pred_probs=known[[2, 0, 1]]), expected)


@pytest.mark.parametrize(
    ("labels", "options", "expected"),
    [
        (["a", "b"], {}, "labels holds text: give a list of labels"),
        ("ab", {}, "labels is a str"),
        ([], {}, "There are no rows"),
        ([["a"], []], {"texts": ["x"]}, "There are 1 texts and labels of 2 rows"),
        ([["a"], []], {"texts": None}, "There are no texts"),
        ([["a"], []], {"texts": ["x", "x"]}, "All rows are copies"),
        ([["a"], []], {"pred_probs": [[0.1, 0.2]] * 2}, "2 rows and 1 classes"),
        ([["a"], []], {"pred_probs": [[0.1]] * 2, "model": "m"}, "a model and pred_probs"),
        (np.array([[0, 3], [1, 0]]), {}, "not all 0 or 1"),
        ([["a"], [None]], {}, "a label is None"),
    ],
)
def test_what_cannot_be_judged_is_refused(labels, options, expected):
    with pytest.raises(InputError, match=expected):
        find_multilabel_issues(**{"texts": ["x", "y"], "labels": labels, **options})
