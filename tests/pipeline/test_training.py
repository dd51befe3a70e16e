"""What a run measures, and what it says of every row."""

import json

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.numpy import load_file

from clear_peft.audit.run import audit_run
from clear_peft.pipeline import train
from clear_peft.pipeline.metrics import accuracy_and_f1
from clear_peft.pipeline.progress import epoch_figures
from clear_peft.run_folder import RunConfig
from clear_peft.run_folder.quality_file import load_label_quality
from clear_peft.trainer.tasks import macro_f1
from tiny_text import keyword_table, tiny_checkpoint

ROWS = 61


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    folder = tmp_path_factory.mktemp("place")
    keyword_table(ROWS, seed=0, noise=0.3).to_csv(folder / "train.csv", index=False)
    keyword_table(20, seed=1).to_csv(folder / "test.csv", index=False)
    tiny_checkpoint(folder / "model")
    return folder


def config_of(place, output, **more):
    options = {"epochs": 4, "max_length": 32, "batch_size": 8, "learning_rate": 0.01, **more}
    return RunConfig(model=str(place / "model"), data=str(place / "train.csv"), output=str(output), **options)


def size(arrays):
    return float(sum(np.abs(array.astype(np.float64)).sum() for array in arrays))


def test_the_test_curve_is_of_the_weights_that_are_selected_and_saved(place, tmp_path, monkeypatch):
    """After a restart of their average: the last weights of an epoch are never the model of a run."""
    last = []

    def measured(model, *_):
        own = [p.detach().cpu().numpy() for p in model.parameters() if p.requires_grad]
        last.append(size(own))
        return {"accuracy": last[-1], "macro_f1": 0.5}

    monkeypatch.setattr("clear_peft.pipeline.training.measured", measured)
    config = config_of(place, tmp_path / "run", test=str(place / "test.csv"), test_every_epoch=True)
    metrics = train(config)
    epochs = {epoch["epoch"]: epoch for epoch in metrics["epochs"]}
    assert any("restarts" in epoch for epoch in metrics["epochs"])
    assert len(last) == 4
    saved = size(load_file(tmp_path / "run" / "adapter" / "adapter_model.safetensors").values())
    assert epochs[metrics["selected_epoch"]]["test_accuracy"] == pytest.approx(saved, rel=1e-6)


@pytest.mark.parametrize("settings", [{}, {"metric_for_best_model": "loss"}, {"clean_routing": False}])
@pytest.mark.parametrize("method", ["clear", "plain", "early_stopping"])
def test_every_piece_is_about_every_row_of_the_table(place, tmp_path, method, settings):
    metrics = train(config_of(place, tmp_path / "run", method=method, training=settings))
    issues = pd.read_csv(tmp_path / "run" / "label_issues.csv").sort_values("row")
    table = pd.read_csv(place / "train.csv")
    assert issues["row"].tolist() == list(range(ROWS))
    assert issues["text"].tolist() == table["text"].tolist()
    assert issues["given_label"].tolist() == table["label"].tolist()
    names = json.loads((tmp_path / "run" / "adapter" / "labels.json").read_text())
    quality, _ = load_label_quality(tmp_path / "run" / "label_quality.safetensors", names)
    assert [names[y] for y in quality.given] == table["label"].tolist()
    assert [names[y] for y in quality.predicted] == issues["predicted_label"].tolist()
    # of float32 the shortest text that tells it from its neighbours is written
    np.testing.assert_array_equal(issues["clean_probability"].astype(np.float32), quality.clean_probability)
    np.testing.assert_allclose(issues["label_quality"], quality.self_confidence, rtol=1e-5)
    assert quality.noise_rate == metrics["noise_rate_estimate"] == audit_run(tmp_path / "run").noise_rate
    assert (issues["split"] == "validation").sum() == metrics["rows"]["validation"] > 0


@pytest.mark.parametrize(
    ("settings", "noise_found", "said"),
    [
        ({}, True, "linear probes"),
        ({"noise_threshold": 1.0}, False, "linear probes"),
        ({"label_estimator": "losses", "noise_threshold": 0.0}, True, "not trained to repeat"),
        ({"label_estimator": "losses", "noise_threshold": 1.0}, False, "as a ranking"),
        # what is learnt is the given label, gates or not
        ({"label_estimator": "losses", "noise_threshold": 0.0, "soft_labels": False}, False, "as a ranking"),
    ],
)
def test_whose_predictions_the_list_is_made_of(place, tmp_path, settings, noise_found, said):
    train(config_of(place, tmp_path / "run", training=settings))
    names = json.loads((tmp_path / "run" / "adapter" / "labels.json").read_text())
    _, used = load_label_quality(tmp_path / "run" / "label_quality.safetensors", names)
    assert used is noise_found
    assert said in audit_run(tmp_path / "run").predictions


def test_an_epoch_that_is_cut_short_is_one_of_its_own():
    log = [{"epoch": number, "step": 0, "eval_loss": number} for number in (0.5, 1.0, 2.0, 2.5)]
    figures = epoch_figures(log)
    assert [one["epoch"] for one in figures] == [1, 2, 3]
    assert [one["validation_loss"] for one in figures] == [1.0, 2.0, 2.5]


@settings(max_examples=50, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 3), st.integers(0, 3)), min_size=1, max_size=30), st.data())
def test_macro_f1_is_the_mean_over_the_classes_that_occur(pairs, data):
    labels, predicted = (np.array(each) for each in zip(*pairs, strict=True))
    weights = np.array([data.draw(st.sampled_from([0.5, 1.0, 2.0])) for _ in pairs])
    f1 = []
    for one in set(labels.tolist()):
        right = weights[(labels == one) & (predicted == one)].sum()
        f1.append(2 * right / (weights[labels == one].sum() + weights[predicted == one].sum()))
    assert macro_f1(predicted, labels, weights) == pytest.approx(np.mean(f1))
    assert accuracy_and_f1(predicted, labels)["macro_f1"] == macro_f1(predicted, labels)
