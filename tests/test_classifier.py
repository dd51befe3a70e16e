"""``CleaRClassifier`` keeps scikit-learn's contract, as far as one of texts can, and its own promises."""

import copy
import json
import os
import pickle
import random
import shutil
import tempfile
import warnings
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import sklearn
import torch
from huggingface_hub import ModelCard
from peft import AutoPeftModelForSequenceClassification
from sklearn.base import clone
from sklearn.exceptions import NotFittedError
from sklearn.model_selection import GridSearchCV, GroupKFold, cross_val_predict, cross_validate
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer
from sklearn.utils import estimator_checks

from clear_peft import CleaRClassifier, InputError
from clear_peft.pipeline import in_memory, training
from clear_peft.pipeline.temperature import expected_calibration_error, fit_temperature, probabilities
from clear_peft.pipeline.texts_and_labels import counting, labelled, verified_of, votes_of
from tiny_text import KEYWORDS, keyword_table, tiny_checkpoint

ROWS = 60
NAMES = sorted(KEYWORDS)
QUICK = {"epochs": 1, "max_length": 16, "batch_size": 16, "learning_rate": 0.01}


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return str(tiny_checkpoint(tmp_path_factory.mktemp("model")))


@pytest.fixture(scope="module")
def table():
    return keyword_table(ROWS, seed=0, noise=0.2)


@pytest.fixture(scope="module")
def new():
    return keyword_table(30, seed=1)


@pytest.fixture(scope="module")
def fitted(model, table):
    return CleaRClassifier(model, **{**QUICK, "epochs": 4, "batch_size": 8}).fit(
        table["text"], table["label"]
    )


@pytest.fixture
def quick(model):
    return CleaRClassifier(model, **QUICK)


@pytest.fixture(scope="module")
def saved(fitted, tmp_path_factory):
    folder = tmp_path_factory.mktemp("saved") / "tickets"
    fitted.save(folder)
    return folder


@pytest.fixture
def tables_of_fit(monkeypatch, model, table):
    """What ``fit`` would train on."""

    class Enough(Exception):  # noqa: N818
        pass

    def tables(**options):
        seen = []

        def trained(config, tables, row_weights=None, **_):
            seen.append((tables, row_weights))
            raise Enough

        monkeypatch.setattr("clear_peft.classifier.trained", trained)
        with pytest.raises(Enough):
            CleaRClassifier(model, **QUICK).fit(table["text"], table["label"], **options)
        return seen[0]

    return tables


# What it learns and finds


def test_it_learns_and_predicts(fitted, new):
    pred_probs = fitted.predict_proba(new["text"])
    assert pred_probs.shape == (30, 3)
    assert pred_probs.dtype == np.float64
    np.testing.assert_allclose(pred_probs.sum(axis=1), 1, rtol=1e-12)
    assert fitted.classes_.tolist() == NAMES
    predicted = fitted.predict(new["text"].tolist())
    assert predicted.dtype == fitted.classes_.dtype
    assert (predicted == fitted.classes_[pred_probs.argmax(axis=1)]).all()
    assert fitted.score(new["text"], new["clean_label"]) > 0.9


def test_every_row_is_judged_in_the_order_of_x(fitted, table):
    quality, issues = fitted.label_quality_, fitted.label_issues_
    assert quality.rows.tolist() == list(range(ROWS))
    assert fitted.classes_[quality.given].tolist() == table["label"].tolist()
    assert issues.columns[:2].tolist() == ["row", "text"]
    assert issues["text"].tolist() == table["text"].to_numpy()[issues["row"]].tolist()
    assert issues["given_label"].tolist() == table["label"].to_numpy()[issues["row"]].tolist()
    assert issues["clean_probability"].is_monotonic_increasing
    wrong = (table["label"] != table["clean_label"]).to_numpy()
    found = quality.is_label_issue
    assert (found & wrong).sum() > 0.7 * wrong.sum()
    assert (found & wrong).sum() > 0.7 * found.sum()


def test_groups_are_held_out_whole(tables_of_fit):
    groups = np.repeat(np.arange(ROWS // 3), 3)
    tables, weights = tables_of_fit(groups=[f"customer {g}" for g in groups])
    assert weights is None
    assert set(groups[tables.train.rows]).isdisjoint(groups[tables.validation.rows])
    assert len(tables.train) + len(tables.validation) == ROWS


def test_groups_are_judged_together(quick, table):
    groups = np.repeat(np.arange(ROWS // 3), 3)
    quick.fit(table["text"], table["label"], groups=groups)
    assert (quick.label_quality_.groups == quick.label_quality_.groups.reshape(-1, 3)[:, :1].repeat(3)).all()
    assert len(set(quick.label_quality_.groups)) <= ROWS // 3  # near copies join them


def test_a_class_of_one_row_and_few_rows(quick):
    texts = keyword_table(10, seed=0)["text"]
    quick.fit(texts, ["a", "b"] * 4 + ["a", "lonely"])
    assert quick.classes_.tolist() == ["a", "b", "lonely"]
    assert quick.predict_proba(texts).shape == (10, 3)
    assert np.isfinite(quick.label_quality_.clean_probability).all()


# Rows and labels of any kind


@pytest.mark.parametrize(
    "kind", ["list", "array", "numbers as text", "object", "int", "int8", "bool", "categorical", "column"]
)
def test_labels_come_back_as_they_were_given(quick, table, new, tmp_path, kind):
    names, codes = table["label"].tolist(), np.searchsorted(NAMES, table["label"])
    labels, expected = {
        "list": (names, np.array(NAMES)),
        "array": (np.array(names), np.array(NAMES)),
        "numbers as text": ([("9", "10", "2")[c] for c in codes], np.array(["10", "2", "9"])),
        "object": (np.array(names, dtype=object), np.array(NAMES)),
        "int": ((codes * 5 - 5).tolist(), np.array([-5, 0, 5])),
        "int8": (codes.astype(np.int8), np.arange(3, dtype=np.int8)),
        "bool": (codes == 1, np.array([False, True])),
        "categorical": (pd.Series(names, dtype="category"), np.array(NAMES)),
        "column": (codes[:, None], np.arange(3)),
    }[kind]
    quick.fit(table["text"], labels)
    assert quick.classes_.dtype == expected.dtype
    assert quick.classes_.tolist() == expected.tolist()
    quick.save(tmp_path / "saved")
    loaded = CleaRClassifier.load(tmp_path / "saved")
    assert loaded.classes_.dtype == expected.dtype
    assert loaded.classes_.tolist() == expected.tolist()
    assert loaded.predict(new["text"]).dtype == expected.dtype
    assert (loaded.predict_proba(new["text"]) == quick.predict_proba(new["text"])).all()


@pytest.mark.parametrize("kind", ["list", "tuple", "array", "object", "column", "frame", "named index"])
def test_texts_of_any_kind_are_the_same_texts(fitted, new, kind):
    texts = new["text"].tolist()
    given = {
        "list": texts,
        "tuple": tuple(texts),
        "array": np.array(texts),
        "object": np.array(texts, dtype=object),
        "column": np.array(texts)[:, None],
        "frame": new[["text"]],
        "named index": pd.Series(texts, index=[f"row {i}" for i in range(len(texts))]),
    }[kind]
    before = copy.deepcopy(given)
    assert (fitted.predict_proba(given) == fitted.predict_proba(new["text"])).all()
    assert (np.asarray(before) == np.asarray(given)).all()


def test_tables_of_polars(quick, table, new):
    polars = pytest.importorskip("polars")
    frame = polars.DataFrame({"text": table["text"].tolist(), "label": table["label"].tolist()})
    quick.fit(frame["text"], frame["label"])
    again = clone(quick).fit(frame[["text"]], frame[["label"]])
    expected = clone(quick).fit(table["text"], table["label"]).predict_proba(new["text"])
    assert (quick.predict_proba(polars.Series(new["text"].tolist())) == expected).all()
    assert (again.predict_proba(new["text"]) == expected).all()


@pytest.mark.parametrize(
    ("texts", "labels", "words"),
    [
        (["a b", "c d"], ["x"], "2 texts and 1 labels: give one label for each text"),
        ([], [], "no rows"),
        ("abc", ["x", "y", "x"], "X is a str: give a list, or one column of a table"),
        (None, ["x", "y"], "X is a NoneType"),
        (pd.DataFrame({"a": ["x"], "b": ["y"]}), ["x"], "X is a DataFrame"),
        (np.ones((2, 2)), ["x", "y"], "X is a ndarray"),
        (["a b", "c d"], {"x": 1, "y": 2}, "y is a dict"),
        (["a b", 3], ["x", "y"], "the text is not a string but int in 1 row"),
        ([["a b"], ["c d"]], ["x", "y"], "the text is not a string but list in 2 rows"),
        (["a b", float("nan")], ["x", "y"], "the text is empty in 1 row"),
        (["a b", None], ["x", "y"], "the text is empty in 1 row"),
        (["a b", " "], ["x", "y"], "the text is empty in 1 row"),
        (["a b", "c d"], ["x", None], "the label is missing in 1 row"),
        (["a b", "c d"], [1.0, float("nan")], "the label is missing in 1 row"),
        (["a b", "c d"], [0.5, 1], "the label is 0.5, of type float"),
        (["a b", "c d"], [1.0, 2.0], "not all text, all whole numbers or all booleans"),
        (["a b", "c d"], ["1", 2], "not all text, all whole numbers or all booleans"),
        (["a b", "c d"], [True, 2], "not all text, all whole numbers or all booleans"),
        (["a b", "c d"], [1, 10**30], "not all text, all whole numbers or all booleans"),
        (["a b", "c d"], ["x", "x"], "every row has the label 'x'"),
        (["a b", "c d"], ["x", "x "], "differ only in white space"),
        (["a b", "c d"], ["x", "y"], "Nothing can be held out"),
        (["a b", "a b", "a b"], ["x", "y", "x"], "copies of each other"),
    ],
)
def test_rows_that_cannot_be_learnt_from_are_refused_in_a_sentence(quick, texts, labels, words):
    with pytest.raises(ValueError, match=words) as refused:
        quick.fit(texts, labels)
    assert isinstance(refused.value, InputError)
    assert "\n" not in str(refused.value)
    assert not [name for name in vars(quick) if name.endswith("_")]


@pytest.mark.parametrize(
    ("texts", "words"),
    [([], "no rows"), ([""], "the text is empty"), ([3], "not a string but int"), ("a b", "X is a str")],
)
def test_texts_that_cannot_be_classified_are_refused_in_a_sentence(fitted, texts, words):
    with pytest.raises(ValueError, match=words):
        fitted.predict(texts)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"model": "/nowhere"}, "There is no folder '/nowhere'"),
        ({"model": 3}, "model is 3: give text"),
        ({"peft": "magic"}, "There is no peft 'magic'"),
        ({"preset": "best"}, "There is no preset 'best'"),
        ({"epochs": 0}, "epochs is 0: give a whole number of at least 1"),
        ({"epochs": "3"}, "epochs is '3'"),
        ({"learning_rate": -1.0}, "learning_rate is -1.0"),
        ({"validation_fraction": 0.0}, "validation_fraction is 0.0"),
        ({"max_length": 4000}, "but the model has 64 positions"),
        ({"training": {"magic": 1}}, "CleaRConfig has no magic"),
        ({"training": {"output_dir": "x"}}, "training cannot set output_dir"),
        ({"peft_options": {"r": 0}}, "peft cannot put lora"),
        ({"select_by": "f1"}, "There is no select_by 'f1'"),
        ({"class_weights": "even"}, "There is no class_weights 'even'"),
        ({"device": "gpu"}, "There is no device 'gpu'"),
        ({"random_state": "x"}, "cannot be used to seed"),
        ({"random_state": -1}, "seed is -1: give a whole number from 0"),
    ],
)
def test_parameters_are_refused_by_fit_alone(quick, table, options, words):
    quick.set_params(**options)
    with pytest.raises(ValueError, match=words):
        quick.fit(table["text"], table["label"])


def test_one_of_several_processes_is_refused_before_it_trains(quick, table, monkeypatch):
    monkeypatch.setenv("WORLD_SIZE", "2")  # as torchrun does
    monkeypatch.setenv("LOCAL_RANK", "1")
    with pytest.raises(InputError, match="CleaRClassifier runs in one process, and here are 2: start one"):
        quick.fit(table["text"], table["label"])


def test_selection_weights_and_device_are_those_of_a_run(quick, table, monkeypatch, tmp_path):
    seen = []
    trained = in_memory.trained

    def watched(*given, **more):
        seen.append(trained(*given, **more))
        return seen[-1]

    monkeypatch.setattr("clear_peft.classifier.trained", watched)
    quick.set_params(select_by="macro_f1", class_weights="balanced", device="cpu")
    quick.fit(table["text"], table["label"]).save(tmp_path / "saved")
    args = seen[0][0].args
    assert (args.metric_for_best_model, args.class_weights, args.device.type) == (
        "macro_f1",
        "balanced",
        "cpu",
    )
    again = CleaRClassifier.load(tmp_path / "saved")
    assert (again.select_by, again.class_weights, again.device) == ("macro_f1", "balanced", "auto")


# Weights


def test_rows_of_weight_zero_are_left_out(quick, table, new):
    weights = np.ones(ROWS)
    weights[[0, 7, 30]] = 0
    labels = table["label"].to_numpy(copy=True)
    labels[[0, 7, 30]] = "a class of these alone"
    quick.fit(table["text"], labels, sample_weight=weights)
    rest = weights > 0
    without = clone(quick).fit(table["text"][rest], table["label"][rest])
    assert quick.classes_.tolist() == NAMES
    assert (quick.predict_proba(new["text"]) == without.predict_proba(new["text"])).all()
    assert quick.label_quality_.rows.tolist() == np.flatnonzero(rest).tolist()
    assert (quick.label_quality_.clean_probability == without.label_quality_.clean_probability).all()
    issues = quick.label_issues_
    assert issues["text"].tolist() == table["text"].to_numpy()[issues["row"]].tolist()
    assert quick.temperature_ == without.temperature_


def test_rows_are_sampled_in_proportion_to_their_weights(quick, table, monkeypatch):
    orders, samplers = [], in_memory.SampledByWeight._get_train_sampler

    def sampler(self, train_dataset=None):
        made = samplers(self, train_dataset)
        orders.append((np.bincount(list(made), minlength=len(made)), self.row_weights, made.weights()))
        return made

    monkeypatch.setattr(in_memory.SampledByWeight, "_get_train_sampler", sampler)
    weights = np.tile([1, 3], ROWS // 2)
    quick.set_params(epochs=5)  # the first is the warm-up
    quick.fit(table["text"], table["label"], sample_weight=weights)
    counts, row_weights, used = orders[0]
    assert set(row_weights) == {0.5, 1.5}
    assert counts.sum() == len(counts) == len(row_weights)
    assert (np.abs(counts - row_weights * len(counts) / row_weights.sum()) < 1).all()
    assert (used == row_weights).all()


def test_weights_are_multiplied_with_the_confidence_of_targets():
    class Trainer(in_memory.SampledByWeight):
        def __init__(self):
            self.row_weights = np.array([1.0, 2.0, 3.0])

    class Sampler(in_memory.WeightedLengthSampler):
        def __init__(self):
            self.weights = lambda: np.array([0.5, 1.0, 0.1], np.float32)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(in_memory.CleaRTrainer, "_get_train_sampler", lambda *_: Sampler())
        weights = Trainer()._get_train_sampler().weights()
    np.testing.assert_allclose(weights, [0.5, 2, 0.3], rtol=1e-6)


def test_equal_weights_change_nothing(quick, table, new):
    quick.fit(table["text"], table["label"])
    equal = clone(quick).fit(table["text"], table["label"], sample_weight=[2.5] * ROWS)
    assert (quick.predict_proba(new["text"]) == equal.predict_proba(new["text"])).all()


@pytest.mark.parametrize(
    ("weights", "words"),
    [
        ([1, 2], r"shape \(2,\): give one for each of the 60 rows"),
        (1.0, r"shape \(\)"),
        (["x"] * ROWS, "more than numbers"),
        ([1.0] * 59 + [np.nan], "negative or no number"),
        ([1.0] * 59 + [-1], "negative or no number"),
        ([0] * ROWS, "one class or none"),
    ],
)
def test_weights_that_are_none_are_refused(quick, table, weights, words):
    with pytest.raises(ValueError, match=words):
        quick.fit(table["text"], table["label"], sample_weight=weights)


def test_weights_need_the_trainers_own_sampler(quick, table):
    quick.set_params(training={"train_sampling_strategy": "sequential"})
    with pytest.raises(InputError, match="leaves to transformers: leave one of them out"):
        quick.fit(table["text"], table["label"], sample_weight=[1, 2] * (ROWS // 2))


# scikit-learn's contract


CHECKS = [
    "check_parameters_default_constructible",
    "check_no_attributes_set_in_init",
    "check_do_not_raise_errors_in_init_or_set_params",
    "check_estimator_cloneable",
    "check_estimator_repr",
    "check_estimator_tags_renamed",
    "check_estimators_unfitted",
    "check_get_params_invariance",
    "check_mixin_order",
    "check_set_params",
    "check_valid_tag_types",
]


@pytest.mark.parametrize("name", CHECKS)
def test_checks_of_scikit_learn_that_need_no_numbers(name):
    check = getattr(estimator_checks, name, None)
    if check is None:
        pytest.skip("this version of scikit-learn has none")
    check("CleaRClassifier", CleaRClassifier())


def test_before_fit_nothing_is_predicted_or_saved(quick, tmp_path):
    for action in (lambda: quick.predict(["a b"]), lambda: quick.predict_proba(["a b"])):
        with pytest.raises(NotFittedError):
            action()
    with pytest.raises(NotFittedError):
        quick.save(tmp_path / "saved")
    assert not (tmp_path / "saved").exists()


def test_fit_again_is_fit_once_and_leaves_the_program_alone(model, table, new, capfd):
    quick = CleaRClassifier(model, **QUICK, random_state=3, training={"warm_up_epochs": 0})
    before, params = table.copy(), copy.deepcopy(quick.get_params())
    random.seed(5), np.random.seed(5), torch.manual_seed(5)
    drawn = random.random(), np.random.random(), torch.rand(1).item()
    random.seed(5), np.random.seed(5), torch.manual_seed(5)
    assert quick.fit(table["text"], table["label"]) is quick
    first = quick.predict_proba(new["text"])
    quick.fit(table["text"][::-1], table["label"][::-1])
    quick.fit(table["text"], table["label"])
    assert (quick.predict_proba(new["text"]) == first).all()
    assert (random.random(), np.random.random(), torch.rand(1).item()) == drawn
    assert table.equals(before)
    assert quick.get_params() == params
    other = clone(quick).set_params(random_state=4).fit(table["text"], table["label"])
    assert (other.predict_proba(new["text"]) != first).any()
    assert capfd.readouterr() == ("", "")


def test_random_states(quick, table, new):
    quick.set_params(random_state=np.random.RandomState(1))
    first = quick.fit(table["text"], table["label"]).predict_proba(new["text"])
    second = quick.fit(table["text"], table["label"]).predict_proba(new["text"])
    assert (first != second).any()
    again = quick.set_params(random_state=np.random.RandomState(1)).fit(table["text"], table["label"])
    assert (again.predict_proba(new["text"]) == first).all()


def test_parameters_set_after_fit_are_for_the_next_one(model, table, new, tmp_path):
    quick = CleaRClassifier(model, **QUICK).fit(table["text"], table["label"])
    before = quick.predict_proba(new["text"])
    quick.set_params(max_length=3, epochs=7)
    assert (quick.predict_proba(new["text"]) == before).all()
    quick.save(tmp_path / "saved")
    loaded = CleaRClassifier.load(tmp_path / "saved")
    assert (loaded.max_length, loaded.epochs) == (16, 1)
    assert (loaded.predict_proba(new["text"]) == before).all()


def test_searches_pipelines_and_cross_validation(quick, table):
    stripped = make_pipeline(FunctionTransformer(lambda texts: [t.strip() for t in texts]), quick)
    grid = {"clearclassifier__learning_rate": np.array([0.01, 0.02])}
    search = GridSearchCV(stripped, grid, cv=2).fit(table["text"].tolist(), table["label"])
    assert search.best_score_ > 0.3
    assert search.predict(["wheat barley"]).shape == (1,)
    assert not [name for name in vars(quick) if name.endswith("_")]
    pred_probs = cross_val_predict(quick, table["text"], table["label"], cv=2, method="predict_proba")
    np.testing.assert_allclose(pred_probs.sum(axis=1), 1)


def test_groups_and_weights_are_routed(quick, table):
    seen = []

    class Watched(CleaRClassifier):
        def fit(self, X, y, *, groups=None, sample_weight=None):
            seen.append((groups, sample_weight))
            return super().fit(X, y, groups=groups, sample_weight=sample_weight)

    groups, weights = np.arange(ROWS) // 2, np.tile([1.0, 2.0], ROWS // 2)
    with sklearn.config_context(enable_metadata_routing=True):
        watched = Watched(**quick.get_params()).set_fit_request(groups=True, sample_weight=True)
        watched.set_score_request(sample_weight=False)
        params = {"groups": groups, "sample_weight": weights}
        cross_validate(watched, table["text"], table["label"], cv=GroupKFold(2), params=params)
    assert len(seen) == 2
    assert sorted(np.concatenate([given for given, _ in seen])) == groups.tolist()
    assert all(len(given) == len(of_rows) for given, of_rows in seen)


def test_cleanlab_learns_with_it(quick, table, new):
    cleanlab = pytest.importorskip("cleanlab.classification")
    labels = np.searchsorted(NAMES, table["label"])
    learning = cleanlab.CleanLearning(quick, cv_n_folds=2, find_label_issues_kwargs={"n_jobs": 1})
    learning.fit(table["text"].to_numpy(), labels)
    assert "sample_weight" in learning.label_issues_df  # unequal ones, of its own making
    assert learning.label_issues_df["sample_weight"].nunique() > 2
    assert learning.score(new["text"].to_numpy(), np.searchsorted(NAMES, new["clean_label"])) > 0.5
    assert clone(learning).clf is not quick


def test_a_fitted_one_is_saved_and_not_pickled(quick, fitted):
    for copying in (pickle.dumps, copy.copy, copy.deepcopy):
        with pytest.raises(TypeError, match=r"save\(folder\) and load\(folder\)"):
            copying(fitted)
    for copied in (pickle.loads(pickle.dumps(quick)), copy.deepcopy(quick), clone(fitted)):
        assert not [name for name in vars(copied) if name.endswith("_")]
    assert copy.deepcopy(quick).get_params() == quick.get_params()


def test_text_is_said_to_be_its_input():
    tags = CleaRClassifier().__sklearn_tags__().input_tags
    assert tags.string
    assert tags.one_d_array
    assert not tags.two_d_array


def test_progress_is_written_where_it_is_wanted(quick, table, capfd):
    quick.set_params(verbose=True).fit(table["text"], table["label"])
    written = capfd.readouterr()
    assert written.out == ""
    assert "Training on 54 rows" in written.err
    assert "epoch 1, train_loss" in written.err


@pytest.mark.parametrize("broken", [False, True])
def test_checkpoints_are_deleted(quick, table, tmp_path, monkeypatch, broken):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    seen, arguments_of = [], training.arguments_of

    def arguments(config):
        seen.append(config.output)
        return arguments_of(config)

    monkeypatch.setattr(in_memory, "arguments_of", arguments)
    if broken:
        with pytest.raises(InputError, match="64 positions"):
            quick.set_params(max_length=1000).fit(table["text"], table["label"])
    else:
        quick.fit(table["text"], table["label"])
    assert seen[0].startswith(str(tmp_path))
    assert list(tmp_path.iterdir()) == []


# Calibration


def test_the_temperature_is_that_which_logits_were_multiplied_by():
    rng = np.random.default_rng(0)
    logits = rng.normal(0, 2, (4000, 4))
    drawn = (probabilities(logits, 1).cumsum(axis=1) > rng.random((4000, 1))).argmax(axis=1)
    even = np.ones(4000)
    assert fit_temperature(3 * logits, drawn, even) == pytest.approx(3, rel=0.05)
    wrong = np.where(np.arange(4000) < 2000, (drawn + 1) % 4, drawn)
    counted = np.where(np.arange(4000) < 2000, 0.0, 1.0)
    assert fit_temperature(3 * logits, wrong, counted) == pytest.approx(3, rel=0.1)
    assert expected_calibration_error(probabilities(3 * logits, 1), drawn, even) > 0.1
    assert expected_calibration_error(probabilities(3 * logits, 3), drawn, even) < 0.03


def test_few_rows_that_are_all_right_do_not_make_it_sure():
    logits, labels = np.eye(3) * 4, np.arange(3)
    temperature = fit_temperature(logits, labels, np.ones(3))
    assert 0.3 < temperature < 1
    assert fit_temperature(logits, labels, np.zeros(3)) == 1
    assert np.isnan(expected_calibration_error(probabilities(logits, 1), labels, np.zeros(3)))


def test_the_calibration_error_is_weighted():
    pred_probs = np.array([[0.9, 0.1], [0.1, 0.9], [0.6, 0.4]])
    labels = np.array([0, 0, 1])
    expected = (abs(2 * (0.9 - 1) + 1 * 0.9) + 1 * 0.6) / 4
    assert expected_calibration_error(pred_probs, labels, np.array([2.0, 1, 1])) == pytest.approx(expected)


def test_it_says_how_well_it_is_calibrated(fitted):
    assert fitted.temperature_ > 0
    assert fitted.calibration_error_.keys() == {"before", "after"}
    assert all(0 <= error <= 1 for error in fitted.calibration_error_.values())


# Saved


def test_what_is_loaded_predicts_the_same(fitted, saved, new):
    loaded = CleaRClassifier.load(saved)
    assert (loaded.predict_proba(new["text"]) == fitted.predict_proba(new["text"])).all()
    assert loaded.get_params() == fitted.get_params()
    assert loaded.temperature_ == fitted.temperature_
    assert loaded.calibration_error_ == fitted.calibration_error_
    assert not hasattr(loaded, "label_quality_")
    assert sorted(path.name for path in saved.iterdir()) == ["adapter", "classifier.json"]
    assert clone(loaded).get_params() == fitted.get_params()


def test_plain_peft_reads_the_adapter(saved, fitted, new):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model = AutoPeftModelForSequenceClassification.from_pretrained(
            saved / "adapter", num_labels=3, ignore_mismatched_sizes=True
        )
    with torch.no_grad():
        logits = model.eval()(
            **fitted.tokenizer_(new["text"].tolist(), padding=True, return_tensors="pt")
        ).logits
    assert (fitted.classes_[logits.argmax(dim=1)] == fitted.predict(new["text"])).all()
    assert json.loads((saved / "adapter" / "labels.json").read_text()) == NAMES


def test_a_loaded_one_is_saved_again_in_its_place(saved, tmp_path, new):
    folder = tmp_path / "deep" / "copy"
    first = CleaRClassifier.load(saved)
    first.save(folder)
    first.save(folder)
    (tmp_path / "empty").mkdir()
    first.save(tmp_path / "empty")
    (tmp_path / "link").symlink_to(folder)
    first.save(tmp_path / "link")
    assert (tmp_path / "link").is_symlink()
    for place in ("empty", "link"):
        loaded = CleaRClassifier.load(tmp_path / place)
        assert (loaded.predict_proba(new["text"]) == first.predict_proba(new["text"])).all()
    assert sorted(path.name for path in (tmp_path / "deep").iterdir()) == ["copy"]


def test_anything_else_is_not_replaced(fitted, saved, tmp_path, monkeypatch):
    (tmp_path / "thesis").mkdir()
    (tmp_path / "thesis" / "chapter.txt").write_text("x")
    shutil.copytree(saved, tmp_path / "more")
    (tmp_path / "more" / "notes.txt").write_text("x")
    (tmp_path / "file").write_text("x")
    for name in ("thesis", "more"):
        with pytest.raises(InputError, match="holds what is no saved classifier"):
            fitted.save(tmp_path / name)
    for name in ("file", "file/below"):
        with pytest.raises(InputError, match=r"Cannot write .*: not a directory"):
            fitted.save(tmp_path / name)
    assert (tmp_path / "thesis" / "chapter.txt").read_text() == "x"


def test_what_cannot_be_written_whole_leaves_what_was_there(fitted, saved, tmp_path, monkeypatch, new):
    folder = tmp_path / "saved"
    shutil.copytree(saved, folder)

    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("clear_peft.classifier.write_json", full)
    with pytest.raises(InputError, match="no space left on device"):
        fitted.save(folder)
    assert [path.name for path in tmp_path.iterdir()] == ["saved"]
    loaded = CleaRClassifier.load(folder)
    assert (loaded.predict(new["text"]) == fitted.predict(new["text"])).all()


def test_a_model_that_has_moved_is_named(saved, model, tmp_path, new, fitted):
    folder = tmp_path / "saved"
    shutil.copytree(saved, folder)
    about = json.loads((folder / "classifier.json").read_text())
    about["parameters"]["model"] = "/moved/away"
    (folder / "classifier.json").write_text(json.dumps(about))
    with pytest.raises(InputError, match="There is no folder '/moved/away'"):
        CleaRClassifier.load(folder)
    loaded = CleaRClassifier.load(folder, model=model)
    assert (loaded.predict_proba(new["text"]) == fitted.predict_proba(new["text"])).all()


def _set(*path, to):
    def change(folder):
        about = json.loads((folder / "classifier.json").read_text())
        place = about
        for name in path[:-1]:
            place = place[name]
        place[path[-1]] = to
        (folder / "classifier.json").write_text(json.dumps(about))

    return change


def _truncated(name, size=-40):
    def change(folder):
        (folder / name).write_bytes((folder / name).read_bytes()[:size])

    return change


def _written(name, text):
    def change(folder):
        (folder / name).write_text(text)

    return change


def _removed(name):
    def change(folder):
        shutil.rmtree(folder / name) if (folder / name).is_dir() else (folder / name).unlink()

    return change


@pytest.mark.parametrize(
    "change",
    [
        _removed("classifier.json"),
        _removed("adapter"),
        _removed("adapter/adapter_model.safetensors"),
        _removed("adapter/adapter_config.json"),
        _removed("adapter/tokenizer.json"),
        _truncated("classifier.json"),
        _truncated("classifier.json", 0),
        _truncated("adapter/adapter_model.safetensors"),
        _truncated("adapter/adapter_config.json"),
        _truncated("adapter/tokenizer.json"),
        _written("classifier.json", "[" * 100_000),
        _written("classifier.json", "[]"),
        _written("classifier.json", "{}"),
        _written("adapter/adapter_config.json", "[]"),
        lambda folder: (folder / "classifier.json").write_bytes(b"\xff\xfe\x00"),
        lambda folder: (folder / "adapter" / "more.json").symlink_to("/etc/passwd"),
        _set("temperature", to=0.0),
        _set("temperature", to=True),
        _set("temperature", to=float("nan")),
        _set("temperature", to="1"),
        _set("calibration_error", to=None),
        _set("calibration_error", "after", to="small"),
        _set("classes", to=NAMES),
        _set("classes", "type", to="object"),
        _set("classes", "type", to=["str"]),
        _set("classes", "type", to="int64"),
        _set("classes", "values", to=NAMES[::-1]),
        _set("classes", "values", to=NAMES[:2]),
        _set("classes", "values", to=[*NAMES, "x"]),
        _set("classes", "values", to=["a", "a", "b"]),
        _set("classes", "values", to=["a", 1, 2]),
        _set("classes", "values", to={"a": 1}),
        _set("classes", "values", to=["", "a", "b"]),
        _set("classes", to={"type": "int8", "values": [0, 1, 300]}),
        _set("classes", to={"type": "int64", "values": [0, 1, True]}),
        _set("parameters", to=[]),
        _set("parameters", to=None),
        _set("parameters", "magic", to=1),
        _set("parameters", "epochs", to="many"),
        _set("parameters", "model", to=["x"]),
        _set("parameters", "model", to="/nowhere"),
        _set("parameters", "peft_options", to=[1]),
        _set("parameters", "random_state", to="x"),
        _set("parameters", "max_length", to=5000),
        _set("parameters", "verbose", to="loudly"),
    ],
)
def test_a_strangers_folder_is_refused_in_a_sentence(saved, tmp_path, change):
    folder = tmp_path / "saved"
    shutil.copytree(saved, folder)
    change(folder)
    with pytest.raises(InputError) as refused:
        CleaRClassifier.load(folder)
    assert "\n" not in str(refused.value)
    assert str(refused.value).endswith(".")


def test_a_strangers_folder_runs_no_code(saved, tmp_path, monkeypatch):
    folder = tmp_path / "saved"
    shutil.copytree(saved, folder)

    class Loud:
        def __reduce__(self):
            return os.mkdir, (str(tmp_path / "ran"),)

    (folder / "adapter" / "adapter_model.safetensors").unlink()
    torch.save(Loud(), folder / "adapter" / "adapter_model.bin")
    _set("parameters", "trust_remote_code", to=True)(folder)
    with pytest.raises(InputError, match="pickled weights"):
        CleaRClassifier.load(folder)
    assert not (tmp_path / "ran").exists()
    assert CleaRClassifier.load(saved).trust_remote_code is False


def test_verified_rows_are_believed_and_never_held_out(quick, table):
    looked_at = np.sort(np.random.default_rng(0).choice(ROWS, 20, replace=False))
    right = (table["label"] == table["clean_label"]).to_numpy()
    answers = [None] * ROWS
    for row in looked_at:
        answers[row] = True if right[row] else table["clean_label"][row]
    quick.fit(table["text"], table["label"], verified=answers)
    quality = quick.label_quality_
    of_rows = quality.rows.searchsorted(looked_at)
    names = quick.classes_[quality.verified[of_rows]]
    assert (quality.verified >= 0).sum() == len(looked_at)
    assert names.tolist() == table["clean_label"][looked_at].tolist()
    np.testing.assert_array_equal(quality.clean_probability[of_rows], right[looked_at])
    assert set(quick.label_issues_["row"].tail(20)) == set(looked_at)  # last in the list


def test_verified_rows_stay_in_training(tables_of_fit, table):
    looked_at = list(range(0, ROWS, 2))
    answers = [label if row in looked_at else "" for row, label in enumerate(table["clean_label"])]
    tables, _ = tables_of_fit(verified=answers)
    assert not set(looked_at) & set(tables.validation.rows.tolist())
    assert set(looked_at) <= set(tables.train.rows.tolist())


@pytest.mark.parametrize(
    ("labels", "answers", "found"),
    [
        ([1, 0, 1], [None, 1, np.int64(0)], [-1, 1, 0]),
        ([1, 0, 1], [True, False, float("nan")], [1, -1, -1]),
        ([True, False, True], [None, True, False], [-1, 1, 0]),
        (["a", "b", "a"], pd.Series(["", "a", None]), [-1, 0, -1]),
        (["a", "b", "a"], [pd.NA, " ", pd.NaT], [-1, -1, -1]),
        (["a", "b", "a"], [np.datetime64("NaT"), np.str_("a"), np.float32("nan")], [-1, 0, -1]),
        (["a", "b", "a"], pd.Series([None, "a", ""], dtype="string"), [-1, 0, -1]),
        (["a", "b", "a"], pd.Series([None, "a", None], dtype="category"), [-1, 0, -1]),
        ([1, 0, 1], pd.Series([None, 1, 0]), [-1, 1, 0]),
        ([1, 0, 1], pd.Series([None, 1, 0], dtype="Int64"), [-1, 1, 0]),
        ([1, 0, 1], np.array([np.nan, 1, 0], np.float32), [-1, 1, 0]),
        ([1, 0, 1], pd.Series([None, True, False], dtype="boolean"), [-1, 0, -1]),
        ([True, False, True], pd.Series([None, True, False], dtype="boolean"), [-1, 1, 0]),
    ],
)
def test_what_verified_may_be(labels, answers, found):
    examples, classes = labelled(["x", "y", "z"], labels)
    assert verified_of(answers, examples.labels, classes).tolist() == found


def test_a_float_is_no_label_where_labels_are_no_whole_numbers():
    examples, classes = labelled(["x", "y", "z"], [True, False, True])
    with pytest.raises(InputError, match=r"verified has 1.0 in row 1"):
        verified_of([None, 1.0, None], examples.labels, classes)


@pytest.mark.parametrize(
    ("answers", "said"),
    [
        ([None] * 2, "verified has 2 entries"),
        ([None, 2, None], "verified has 2 in row 1"),
        ([None, "1", None], "verified has '1' in row 1"),
        ([None, 0.5, None], "verified has 0.5 in row 1"),
        ([None, 2.0, None], "verified has 2 in row 1"),
        ([None, np.inf, None], "verified has inf in row 1"),
        ([None, [1], None], r"verified has \[1\] in row 1"),
        ("true", "verified is a str"),
    ],
)
def test_what_verified_may_not_be(answers, said):
    examples, classes = labelled(["x", "y", "z"], [1, 0, 1])
    with pytest.raises(InputError, match=said):
        verified_of(answers, examples.labels, classes)


def test_its_adapter_has_the_card_of_a_run(fitted, saved, table, tmp_path):
    text = (saved / "adapter" / "README.md").read_text(encoding="utf-8").replace("\N{NO-BREAK SPACE}", " ")
    card = ModelCard(text)
    assert (card.data.library_name, card.data.pipeline_tag) == ("peft", "text-classification")
    assert card.data.datasets is None
    assert card.data.eval_results is None
    rate = f"{100 * fitted.label_quality_.noise_rate:.1f} %"
    for said in (
        "Table: rows in memory; rows: 54 train, 6 validation",
        "Method: `clear` (clean routing, preset `recommended`)",
        "Tokens per text: at most 16",
        "`farming`, `sailing`, `weaving`",
        f"Estimated share of wrong labels: {rate}",
        f"{int(fitted.label_issues_['is_label_issue'].sum())} are listed as label issues",
        "not measured on checked labels",
    ):
        assert said in text, said
    assert not [row for row in table["text"] if row in text]
    CleaRClassifier.load(saved).save(tmp_path / "again")
    again = tmp_path / "again" / "adapter" / "README.md"
    assert again.read_bytes() == (saved / "adapter" / "README.md").read_bytes()


def test_opinions_are_weighed_with_the_labels(quick, table):
    rng = np.random.default_rng(1)
    rule = np.where(rng.random(ROWS) < 0.6, table["clean_label"], "")
    quick.fit(table["text"], table["label"], opinions={"rule": rule})
    quality = quick.label_quality_
    assert quality.source == "votes"
    contradicted = ((rule != "") & (rule != table["label"])).to_numpy()[quality.rows]
    p = quality.clean_probability
    assert p[contradicted].mean() < p[~contradicted].mean()


@pytest.mark.parametrize("kind", [object, "float64", "Int64", "category"])
def test_opinions_of_whole_numbers_may_have_gaps(kind):
    given, classes = labelled(["x"] * 4, [1, 2, 3, 1])
    votes = votes_of({"rule": pd.Series([2, None, 3, 7], dtype=kind)}, given.labels, classes)
    assert votes[:, 1].tolist() == [1, -1, 2, -1]


def test_opinions_follow_the_classes_that_count():
    given, classes = labelled(["x"] * 6, ["a", "b", "c", "a", "b", "c"])
    votes = votes_of({"rule": ["b", None, "a", "zebra", 3, "c"]}, given.labels, classes)
    assert votes[:, 1].tolist() == [1, -1, 0, -1, -1, 2]
    rows, left = counting(replace(given, votes=votes), classes, np.array([1, 1, 0, 1, 1, 0], bool))
    assert left.tolist() == ["a", "b"]
    assert rows.votes.tolist() == [[0, 1], [1, -1], [0, -1], [1, -1]]
    gaps = pd.Series(["b", None, "a", None, " ", "c"], dtype="string")
    assert votes_of({"rule": gaps}, given.labels, classes).tolist() == votes.tolist()
    with pytest.raises(InputError, match="No opinion of rule"):
        votes_of({"rule": [None] * 6}, given.labels, classes)
    with pytest.raises(InputError, match="rule has 2 entries"):
        votes_of({"rule": ["a", "b"]}, given.labels, classes)
