"""Confident learning: what is dropped is what cleanlab names, and every row is in the list."""

import json

import cleanlab
import numpy as np
import pandas as pd
import pytest
import torch
from safetensors.numpy import load_file, save_file
from scipy.stats import spearmanr

from clear_peft import trainer as trainer_room
from clear_peft.audit.run import audit_run
from clear_peft.baselines import confident_learning
from clear_peft.baselines.confident_learning import find_issues, kept_rows, out_of_sample_logits
from clear_peft.data import load_examples
from clear_peft.errors import InputError
from clear_peft.pipeline import inference, load_run, train
from clear_peft.pipeline.progress import Silent
from clear_peft.run_folder import RunConfig
from clear_peft.trainer import config as trainer_config
from tiny_text import keyword_table, tiny_checkpoint

pytestmark = pytest.mark.filterwarnings("ignore::UserWarning:torch", "ignore::FutureWarning:torch")

ROWS = 61


def test_every_row_is_predicted_by_a_model_that_has_not_seen_it(tmp_path):
    labels = np.arange(13) % 3
    seen, said = [], []

    def train_and_predict(rows, held):
        assert sorted([*rows, *held]) == list(range(13))
        seen.append(held)
        return np.stack([held, held, np.full(len(held), len(seen))], axis=1).astype(np.float32)

    file = tmp_path / "logits.safetensors"
    logits = out_of_sample_logits(labels, 3, 5, 0, train_and_predict, file, said.append)
    assert logits[:, 0].tolist() == list(range(13))
    assert len(seen) == 5
    assert said == [f"Fold {i} of 5" for i in range(1, 6)]
    again = out_of_sample_logits(labels, 3, 5, 0, train_and_predict, file, said.append)
    assert np.array_equal(logits, again)
    assert len(seen) == 5
    with pytest.raises(InputError, match="logits of 12 rows and 3 classes"):
        out_of_sample_logits(labels[:12], 3, 5, 0, train_and_predict, file, said.append)
    file.write_bytes(b"half")
    with pytest.raises(InputError, match="is damaged"):
        out_of_sample_logits(labels, 3, 5, 0, train_and_predict, file, said.append)


def confident(labels, classes, seed=0):
    """Logits of a model that is nearly sure of the labels."""
    noise = np.random.default_rng(seed).normal(0, 0.5, (len(labels), classes))
    return (noise + 4 * np.eye(classes)[labels]).astype(np.float32)


def test_wrong_labels_are_found_and_dropped():
    true = np.arange(90) % 3
    labels = true.copy()
    wrong = np.array([3, 20, 55])
    labels[wrong] = (labels[wrong] + 1) % 3
    found = find_issues(labels, confident(true, 3))
    assert found.kept.tolist() == [row for row in range(90) if row not in wrong]
    assert np.array_equal(found.logits.argmax(axis=1), true)


def test_a_class_keeps_its_best_row():
    labels = np.array([0, 1, 1, 1, 2])
    is_issue = np.array([False, True, True, True, False])
    assert kept_rows(labels, is_issue, np.array([1.0, 0.1, 0.3, 0.2, 0.9])).tolist() == [0, 2, 4]


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    folder = tmp_path_factory.mktemp("place")
    keyword_table(ROWS, seed=0, noise=0.2).to_csv(folder / "train.csv", index=False)
    tiny_checkpoint(folder / "model")
    return folder


@pytest.fixture(autouse=True, scope="module")
def _float32():
    with pytest.MonkeyPatch.context() as patch:
        for module in (inference, trainer_config):
            patch.setattr(module, "bf16_pays", lambda device: False)
        yield


def config_of(place, output, **more):
    options = {
        "epochs": 2,
        "max_length": 32,
        "batch_size": 8,
        "learning_rate": 0.01,
        "method": "cleanlab",
        "seed": 3,
    }
    return RunConfig(
        model=str(place / "model"),
        data=str(place / "train.csv"),
        clean_label_column="clean_label",
        output=str(output),
        **{**options, **more},
    )


@pytest.fixture(scope="module")
def whole(place, tmp_path_factory, _float32):
    folder = tmp_path_factory.mktemp("whole") / "run"
    train(config_of(place, folder))
    return folder


class Stages(Silent):
    def __init__(self, stop_at=None):
        self.stages, self.stop_at = [], stop_at

    def stage(self, text):
        if self.stop_at is not None and text.startswith(self.stop_at):
            raise KeyboardInterrupt
        self.stages.append(text)


def test_a_run(place, tmp_path, monkeypatch):
    sizes, made = [], trainer_room.CleaRTrainer

    def trainer(**arguments):
        sizes.append(len(arguments["train_dataset"]))
        return made(**arguments)

    monkeypatch.setattr(trainer_room, "CleaRTrainer", trainer)
    told = Stages()
    metrics = train(config_of(place, tmp_path / "run"), reporter=told)

    issues = pd.read_csv(tmp_path / "run" / "label_issues.csv")
    rows = issues[issues["split"] == "train"].sort_values("row")
    assert sorted(issues["row"]) == list(range(ROWS))
    assert [text for text in told.stages if text.startswith("Fold")] == [
        f"Fold {i} of 5" for i in range(1, 6)
    ]

    logits = torch.from_numpy(load_file(tmp_path / "run" / "out_of_sample.safetensors")["logits"])
    probabilities = logits.double().softmax(1).numpy()
    names = sorted(set(rows["given_label"]))
    labels = rows["given_label"].map(names.index).to_numpy()
    expected = cleanlab.filter.find_label_issues(labels, probabilities, n_jobs=1)
    assert expected.any()
    assert sizes[-1] == len(rows) - expected.sum()
    # one noise rate, and one meaning of each column: that of every other method
    assert metrics["noise_rate_estimate"] == pytest.approx(1 - issues["clean_probability"].mean())
    assert audit_run(tmp_path / "run").noise_rate == pytest.approx(metrics["noise_rate_estimate"])
    assert (issues["is_label_issue"] == (issues["clean_probability"] < 0.5)).all()
    assert sum(sizes[:-1]) == 4 * len(rows)
    assert f"on {sizes[-1]} rows" in told.stages[-2]
    assert spearmanr(rows["label_quality"], probabilities[range(len(rows)), labels]).statistic > 0.7
    assert metrics["detection"]["wrong"] == (issues["given_label"] != true_names(place, issues)).sum()
    left = {path.name.partition("-")[0] for path in (tmp_path / "run").iterdir()}
    assert left == {
        "adapter",
        "checkpoint",
        "config.yaml",
        "data.sha256",
        "epochs.json",
        "label_issues.csv",
        "label_quality.safetensors",
        "report.html",
        "metrics.json",
        "out_of_sample.safetensors",
    }


def true_names(place, issues):
    return pd.read_csv(place / "train.csv")["clean_label"].to_numpy()[issues["row"]]


def test_what_is_memorised_is_what_the_final_model_predicts(place, whole):
    run = load_run(whole)
    issues = pd.read_csv(whole / "label_issues.csv")
    rows = issues[(issues["split"] == "train") & (issues["given_label"] != true_names(place, issues))]
    examples = load_examples(str(place / "train.csv"), text_column="text", label_column="label").examples
    predicted = np.array(run.names.names)[run.logits(examples.select(rows["row"])).argmax(1)]
    expected = (predicted == rows["given_label"]).mean()
    assert json.loads((whole / "metrics.json").read_text())["memorised"] == expected
    assert (rows["predicted_label"] != predicted).any(), "the list must be of other models' predictions"


@pytest.mark.parametrize("stop_at", ["Fold 3", "Training", "Writing"])
def test_an_interrupted_run_ends_as_if_it_had_not_been(place, whole, tmp_path, stop_at):
    config = config_of(place, tmp_path / "run")
    with pytest.raises(KeyboardInterrupt):
        train(config, reporter=Stages(stop_at))
    told = Stages()
    train(config, resume=True, reporter=told)
    assert any(text.startswith("Fold") for text in told.stages) == (stop_at == "Fold 3")
    for name in ("label_issues.csv", "adapter/adapter_model.safetensors"):
        assert (whole / name).read_bytes() == (tmp_path / "run" / name).read_bytes()


def test_overwriting_forgets_the_folds(place, tmp_path):
    with pytest.raises(KeyboardInterrupt):
        train(config_of(place, tmp_path / "run", epochs=1), reporter=Stages("Training"))
    file = tmp_path / "run" / "out_of_sample.safetensors"
    save_file({"logits": np.zeros_like(load_file(file)["logits"])}, file)
    train(config_of(place, tmp_path / "run", epochs=1), overwrite=True)
    assert load_file(file)["logits"].any()


def test_without_cleanlab_nothing_is_written(place, tmp_path, monkeypatch):
    monkeypatch.setattr(confident_learning, "find_spec", lambda _: None)
    with pytest.raises(InputError, match=r"pip install 'cleanlab>=2\.7'"):
        train(config_of(place, tmp_path / "run"))
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(("method", "options"), [("co_teaching", {"noise_rate": 0.2}), ("selfmix", {})])
def test_the_other_methods_run_too(place, tmp_path, method, options):
    settings = {"loss_options": options}
    metrics = train(config_of(place, tmp_path / "run", method=method, epochs=3, training=settings))
    assert json.loads((tmp_path / "run" / "metrics.json").read_text())["method"] == method
    assert 0 <= metrics["memorised"] <= 1
