"""The scan in Python: which labels are found, by what, and what is refused."""

import subprocess
import sys

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest

import clear_peft
from clear_peft import find_label_issues
from clear_peft.errors import InputError
from clear_peft.pipeline import judge
from clear_peft.pipeline.arrays import read_array
from tiny_text import KEYWORDS, keyword_table, tiny_checkpoint

COLUMNS = [
    "row",
    "text",
    "given_label",
    "predicted_label",
    "clean_probability",
    "label_quality",
    "is_label_issue",
    "group",
]


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return str(tiny_checkpoint(tmp_path_factory.mktemp("model")))


@pytest.fixture(autouse=True)
def cache(monkeypatch, tmp_path):
    monkeypatch.setenv("CLEAR_PEFT_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


def _noisy(rows=300, noise=0.2):
    table = keyword_table(rows, seed=0, noise=noise)
    return table, (table["label"] != table["clean_label"]).to_numpy()


def _embeddings(table, spread=0.4, seed=0):
    """Points around one centre for each true class."""
    names = sorted(KEYWORDS)
    centres = np.eye(len(names), 8)[[names.index(name) for name in table["clean_label"]]]
    return centres + np.random.default_rng(seed).normal(0, spread, centres.shape)


def _found(issues, wrong):
    listed = np.zeros(len(wrong), bool)
    listed[issues.loc[issues["is_label_issue"], "row"]] = True
    return (listed & wrong).sum() / wrong.sum(), (listed & wrong).sum() / max(listed.sum(), 1)


def test_wrong_labels_are_found_by_a_frozen_model(model):
    table, wrong = _noisy(600)
    issues = find_label_issues(table["text"].tolist(), table["label"], model=model)
    assert list(issues.columns) == COLUMNS
    assert sorted(issues["row"]) == list(range(600))
    assert issues["clean_probability"].is_monotonic_increasing
    assert (issues["text"] == table["text"].to_numpy()[issues["row"]]).all()
    assert (issues["given_label"].astype(str) == table["label"].to_numpy()[issues["row"]]).all()
    recall, precision = _found(issues, wrong)
    assert recall > 0.9
    assert precision > 0.9


def test_names_of_classes_are_a_prior(model, monkeypatch):
    table, _ = _noisy(60)
    seen = []
    real = judge.fit_probe

    def fit(*args, **more):
        seen.append(more["prior_scores"])
        return real(*args, **more)

    monkeypatch.setattr(judge, "fit_probe", fit)
    find_label_issues(table["text"].tolist(), table["label"].tolist(), model=model)
    find_label_issues(table["text"].tolist(), pd.factorize(table["label"])[0], model=model)
    assert seen[0].shape == (60, 3)
    assert seen[0].min() >= -1
    assert seen[0].max() <= 1
    assert seen[1] is None


def test_wrong_labels_are_found_by_embeddings_and_by_predictions():
    table, wrong = _noisy()
    embeddings = _embeddings(table)
    by_rows = find_label_issues(None, table["label"].tolist(), embeddings=embeddings)
    logits = 6 * embeddings[:, :3]
    pred_probs = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    by_predictions = find_label_issues(table["text"].tolist(), table["label"].tolist(), pred_probs=pred_probs)
    for issues in (by_rows, by_predictions):
        recall, precision = _found(issues, wrong)
        assert recall > 0.8
        assert precision > 0.8
    assert set(by_rows["text"]) == {""}


def test_columns_of_arrow_are_lists():
    table, _ = _noisy(60)
    given, labels = table["text"].tolist(), table["label"].tolist()
    expected = find_label_issues(given, labels, embeddings=_embeddings(table))
    found = find_label_issues(pa.chunked_array([given]), pa.array(labels), embeddings=_embeddings(table))
    pd.testing.assert_frame_equal(found, expected)


def test_integer_labels_are_in_the_order_of_their_numbers():
    labels = np.repeat([2, 10], 30)
    labels[0] = 10
    pred_probs = np.where((np.arange(60) < 30)[:, None], [[0.9, 0.1]], [[0.1, 0.9]])
    issues = find_label_issues([f"text {i:b}" * 3 for i in range(60)], labels, pred_probs=pred_probs)
    assert issues["row"].iloc[0] == 0
    assert issues["given_label"].iloc[0] == 10
    assert issues["predicted_label"].iloc[0] == 2


def test_copies_and_groups_do_not_vouch_for_each_other(model):
    table, _ = _noisy(120, noise=0)
    texts, labels = table["text"].tolist(), table["label"].tolist()
    texts[1], labels[1] = texts[0], labels[0]
    groups = [-1] * 120
    groups[1] = groups[5] = 7
    found = find_label_issues(texts, labels, model=model, groups=groups).set_index("row")["group"]
    assert found[0] == found[1] == found[5]
    assert found.value_counts().tolist() == [3] + [1] * 117
    without = find_label_issues(texts, labels, model=model).set_index("row")["group"]
    assert without[0] == without[1] != without[5]


def test_equal_embeddings_are_copies_where_there_are_no_texts():
    table, _ = _noisy(90)
    embeddings = _embeddings(table)
    embeddings[3] = embeddings[0]
    alone = find_label_issues(None, table["label"].tolist(), embeddings=embeddings).set_index("row")["group"]
    assert alone[0] == alone[3]
    assert alone.nunique() == 89
    texts = table["text"].tolist()
    by_text = find_label_issues(texts, table["label"].tolist(), embeddings=embeddings)["group"]
    assert by_text.nunique() == 90


def test_a_class_of_one_row_and_two_rows_alone(model):
    table, _ = _noisy(60, noise=0)
    labels = table["label"].tolist()
    labels[0] = "lonely"
    issues = find_label_issues(table["text"].tolist(), labels, model=model)
    assert len(issues) == 60
    assert np.isfinite(issues["clean_probability"]).all()
    two = find_label_issues(["wheat barley", "anchor mast"], ["a", "b"], model=model)
    assert not two["is_label_issue"].any()  # nothing is known


def test_what_judges_must_be_one_and_whole(model):
    table, _ = _noisy(12)
    texts, labels = table["text"].tolist(), table["label"].tolist()
    embeddings = _embeddings(table)
    with_nan = embeddings.copy()
    with_nan[4, 1] = np.nan
    even = np.full((12, 3), 1 / 3)
    cases = [
        ({"model": model, "embeddings": embeddings}, "a model and embeddings: give one of them"),
        ({"embeddings": with_nan}, "not finite"),
        ({"embeddings": embeddings[:5]}, r"shape \(5, 8\), but there are 12 rows"),
        ({"embeddings": embeddings[:, 0]}, r"give \(N, D\)"),
        ({"embeddings": embeddings.astype(str)}, "give numbers"),
        ({"pred_probs": even[:, :2]}, "12 rows and 3 classes.*'farming', 'sailing', 'weaving'"),
        ({"pred_probs": even * 2}, "sum to 1"),
        ({"pred_probs": even * np.nan}, "sum to 1"),
        ({"model": model, "groups": [1] * 12}, "in one group"),
        ({"model": model, "groups": [1] * 3}, "groups have shape"),
    ]
    for options, words in cases:
        with pytest.raises(InputError, match=words):
            find_label_issues(texts, labels, **options)


def test_rows_must_be_whole(model):
    cases = [
        ((["a", "b"], ["x"]), "2 texts and 1 labels"),
        (([], []), "no rows"),
        ((None, ["x", "y"]), "no texts: give texts, pred_probs or embeddings"),
        ((["a b", "c d"], ["x", "x"]), "every row has the label"),
        ((["a b", " "], ["x", "y"]), "the text is empty"),
        ((["wheat barley"] * 9, ["x", "y", "z"] * 3), "copies of each other"),
    ]
    for (texts, labels), words in cases:
        with pytest.raises(InputError, match=words):
            find_label_issues(texts, labels, model=model)


def test_without_the_package_the_model_is_that_of_the_hub(monkeypatch):
    def missing():
        raise InputError("not installed")

    monkeypatch.setattr(judge, "minilm", missing)
    with pytest.raises(InputError, match="'sentence-transformers/all-MiniLM-L6-v2'") as refused:
        find_label_issues(["wheat barley", "anchor mast"], ["a", "b"])
    assert "\n" not in str(refused.value)


def test_the_cache_can_be_left_out(model, cache):
    table, _ = _noisy(30)
    find_label_issues(table["text"].tolist(), table["label"].tolist(), model=model, cache=False)
    assert not cache.exists()
    find_label_issues(table["text"].tolist(), table["label"].tolist(), model=model)
    assert cache.exists()


def test_arrays_come_from_files(tmp_path):
    values = np.arange(12.0).reshape(4, 3)
    np.save(tmp_path / "a.npy", values.astype(np.float16))
    assert np.array_equal(read_array(tmp_path / "a.npy"), values)
    pd.DataFrame(values, columns=["b", "c", "a"]).to_parquet(tmp_path / "a.parquet")
    assert np.array_equal(read_array(tmp_path / "a.parquet"), values)
    assert np.array_equal(read_array(tmp_path / "a.parquet", ["a", "b", "c"]), values[:, [2, 0, 1]])
    with pytest.raises(InputError, match="name a column after each class"):
        read_array(tmp_path / "a.parquet", ["a", "b", "d"])
    pd.DataFrame({"embedding": list(values)}).to_parquet(tmp_path / "lists.parquet")
    assert np.array_equal(read_array(tmp_path / "lists.parquet"), values)


def test_files_that_are_no_arrays_are_refused(tmp_path):
    class Loud:
        def __reduce__(self):
            return print, ("unpickled",)

    np.save(tmp_path / "pickle.npy", np.array([Loud()]), allow_pickle=True)
    np.savez(tmp_path / "two.npz", a=np.zeros(2))
    (tmp_path / "two.npz").rename(tmp_path / "two.npy")
    (tmp_path / "text.npy").write_text("x")
    (tmp_path / "empty.npy").write_bytes(b"")
    np.save(tmp_path / "cut.npy", np.zeros((40, 3)))
    whole = (tmp_path / "cut.npy").read_bytes()
    (tmp_path / "cut.npy").write_bytes(whole[:-9])
    pd.DataFrame({"a": [1, 2], "b": ["x", "y"]}).to_parquet(tmp_path / "text.parquet")
    pd.DataFrame({"a": [[1, 2], [3]]}).to_parquet(tmp_path / "ragged.parquet")
    cases = {
        "pickle.npy": "no array of numbers",
        "two.npy": "holds several arrays",
        "text.npy": "no array of numbers",
        "empty.npy": "no array of numbers",
        "cut.npy": "no array of numbers",
        "none.npy": "no such file",
        "a.csv": "ends in .npy or .parquet",
        "text.parquet": "more than numbers",
        "ragged.parquet": "more than numbers",
    }
    for name, words in cases.items():
        with pytest.raises(InputError, match=words):
            read_array(tmp_path / name)


@pytest.mark.parametrize("missing", [None, float("nan"), pd.NA, pd.NaT, "", " "], ids=repr)
@pytest.mark.parametrize("number", [int, float, np.int64, np.float32])
def test_nothing_is_said_of_a_row_in_many_ways(missing, number):
    labels = [3, 5] * 10
    features = np.column_stack([labels, np.random.default_rng(0).normal(size=20)])
    expected = find_label_issues(None, labels, embeddings=features, verified=[None, 5, 5] + [None] * 17)
    said = [missing, number(5), number(5)] + [missing] * 17
    shown = find_label_issues(None, labels, embeddings=features, verified=said)
    pd.testing.assert_frame_equal(shown, expected)


@pytest.mark.parametrize("labels", [[3, 5] * 10, ["a", "b"] * 10, [True, False] * 10], ids=repr)
def test_true_and_true_labels_may_stand_beside_each_other(labels):
    features = np.column_stack([[0, 5] * 10, np.random.default_rng(0).normal(size=20)])
    right = labels[0] if isinstance(labels[0], bool) else True
    beside = [right, labels[0], None if isinstance(labels[0], bool) else False, *[None] * 17]
    expected = find_label_issues(None, labels, embeddings=features, verified=labels[:1] * 2 + [None] * 18)
    found = find_label_issues(None, labels, embeddings=features, verified=beside)
    pd.testing.assert_frame_equal(found, expected)


def test_columns_of_predictions_are_the_classes_in_any_order():
    labels = ["b", "a", "c"] * 20
    known = np.eye(3)[[1, 0, 2] * 20] * 0.9 + 0.1 / 3
    frame = pd.DataFrame(known, columns=["a", "b", "c"])
    expected = find_label_issues(None, labels, pred_probs=known)
    given = find_label_issues(None, labels, pred_probs=frame[["c", "a", "b"]])
    pd.testing.assert_frame_equal(given, expected)
    with pytest.raises(InputError, match="columns 'A', 'b', 'c', but the classes are 'a', 'b', 'c'"):
        find_label_issues(None, labels, pred_probs=frame.rename(columns={"a": "A"}))


@pytest.mark.parametrize(
    ("texts", "labels"),
    [
        ("abc", ["a", "b", "a"]),
        ({"x", "y"}, ["a", "b"]),
        (pd.DataFrame({"text": ["x", "y"], "more": 1}), ["a", "b"]),
    ],
)
def test_texts_that_are_no_list_are_refused(texts, labels):
    with pytest.raises(InputError, match="give a list, or one column of a table"):
        find_label_issues(texts, labels)


def test_the_public_names_are_lazy():
    assert clear_peft.LabelQuality is not None
    code = (
        "import sys; from clear_peft import find_label_issues, LabelQuality; "
        "import clear_peft.pipeline.scan; import clear_peft.cli.scan; "
        "sys.exit(bool({'torch', 'transformers', 'datasets', 'peft'} & set(sys.modules)))"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


@pytest.mark.parametrize("kind", [int, np.int64, bool])
def test_labels_come_back_as_they_were_given(kind):
    embeddings = np.random.default_rng(0).normal(size=(60, 4))
    labels = [kind(value > 0) for value in embeddings[:, 0]]
    found = find_label_issues(None, labels, embeddings=embeddings, verified=[None] * 58 + labels[-2:])
    as_given = np.array(labels)[found["row"]]
    assert found["given_label"].tolist() == as_given.tolist()
    assert found["predicted_label"].cat.categories.dtype == as_given.dtype
    assert found["verified"].tolist() == [None] * 58 + as_given[-2:].tolist()
