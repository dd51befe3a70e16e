"""What is wrong with a table beside its labels."""

import numpy as np
import pytest

from clear_peft.audit import rare_classes, said_issues, table_issues

NAMES = ("Billing", "sign-in help")


def _found(texts, features=None):
    rows = np.arange(len(texts)) * 2
    return table_issues(texts, np.arange(len(texts)) % 2, NAMES, features, rows)


@pytest.mark.parametrize("text", ["billing", " Billing. ", "SIGN IN HELP", "sign-in  help"])
def test_a_text_that_is_only_a_name(text):
    found = _found(["My invoice is wrong", text, "billing is wrong", "???"])
    assert found[["issue", "row", "text"]].values.tolist() == [["only_label_name", 2, text]]


@pytest.mark.parametrize(
    "text",
    [
        "42",
        "3.14",
        "2024-01-31",
        "INV-2024-00123",
        "550e8400-e29b-41d4-a716-446655440000",
        "da39a3ee5e6b4b0d3255bfef95601890afd80709",
    ],
)
def test_a_text_that_is_only_a_code(text):
    assert _found(["It arrived late", text])["issue"].tolist() == ["only_code"]
    assert _found([text, text])["issue"].tolist() == [], "of a code that occurs twice, none is an id"


@pytest.mark.parametrize(
    "text", ["covid19", "great", "feedback", "order 14002", "注文はまだ2024届きません", "", "!!!", "#3d"]
)
def test_a_text_that_is_none(text):
    assert _found(["It arrived late", text]).empty


def test_what_is_known_by_features():
    features = np.random.default_rng(0).normal(size=(60, 8))
    features[40] = features[7]
    found = _found([f"text number {i}" for i in range(60)], features)
    twins = found[found["issue"] == "near_duplicate"]
    assert twins[["row", "near_duplicate_of", "score", "given_label", "its_label"]].values.tolist() == [
        [14, 80, 0.0, "sign-in help", "Billing"],
        [80, 14, 0.0, "Billing", "sign-in help"],
    ]
    others = found[found["issue"] != "near_duplicate"]
    assert others["near_duplicate_of"].isna().all()
    assert others["its_label"].isna().all()


def test_without_texts_and_features_nothing_is_found():
    assert table_issues(None, np.array([0, 1]), NAMES, None, np.arange(2)).empty


def test_rare_classes_are_those_of_datalab():
    cleanlab = pytest.importorskip("cleanlab")
    for few in (9, 10, 11):
        given = np.repeat([0, 1, 2], [190 - few, 110, few])
        lab = cleanlab.Datalab({"y": given}, label_name="y", verbosity=0)
        lab.find_issues(issue_types={"class_imbalance": {}})
        flagged = lab.get_issues("class_imbalance")["is_class_imbalance_issue"].to_numpy()
        assert rare_classes(given, ("a", "b", "c")) == (["c"] if flagged.any() else [])


def test_counts_are_said_in_words():
    counts = {"outlier": 1, "near_duplicate": 1200, "only_code": 0}
    assert said_issues(counts) == "1,200 near duplicates, 1 outlier"
    assert said_issues({}) == ""
