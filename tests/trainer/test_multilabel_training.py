"""Several labels a row: what the trainer makes of them, beside plain torch and scikit-learn."""

import copy
import shutil

import numpy as np
import peft
import pytest
import torch
from datasets import Dataset
from sklearn.metrics import average_precision_score, f1_score
from torch.nn import BCEWithLogitsLoss
from toy import rows as rows_of_one_label
from toy import trainer, weights

from clear_peft.baselines.co_teaching import CoTeachingTrainer
from clear_peft.errors import InputError
from clear_peft.label_quality import MultilabelQuality
from clear_peft.trainer import CleaRConfig, Estimate, Phase
from clear_peft.trainer.multilabel import LabelSetRows, label_set_metrics, rarest
from clear_peft.tuners import build
from processes import check_two_train_as_one
from tiny_models import tiny

LABELS = 3
SETTINGS = {
    "label_estimator": "probe",
    "reestimate_every_epoch": False,
    "restart": True,
    "probe_init": True,
    "ema_epochs": 1.0,
    "noise_threshold": 0.0,
}


def rows(size=48, seed=0, wrong=0.0):
    """A token for each of three labels, and random ones."""
    rng = np.random.default_rng(seed)
    true = rng.random((size, LABELS)) < 0.4
    ids = rng.integers(20, 90, (size, 8))
    ids[:, 1 : 1 + LABELS] = np.where(true, 3 + np.arange(LABELS), 10)
    given = true ^ (rng.random(true.shape) < wrong)
    columns = {"input_ids": ids.tolist(), "attention_mask": np.ones_like(ids).tolist()}
    return Dataset.from_dict({**columns, "labels": given.astype(float).tolist()})


def model():
    base, _ = tiny("bert")
    base.config.problem_type = "multi_label_classification"
    torch.manual_seed(0)
    config = peft.LoraConfig(task_type="SEQ_CLS", target_modules="all-linear", r=4, lora_dropout=0.1)
    return peft.get_peft_model(base, config)


def without_dropout(made):
    for module in made.modules():
        if isinstance(module, torch.nn.Dropout):
            module.p = 0.0
    return made


def made(tmp_path, start=None, **settings):
    return trainer(tmp_path, start=start or model(), **{"train_dataset": rows(), **SETTINGS, **settings})


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    folder = tmp_path_factory.mktemp("run")
    found = made(
        folder,
        train_dataset=rows(wrong=0.15),
        save_strategy="epoch",
        eval_strategy="epoch",
        metric_for_best_model="weighted_micro_f1",
    )
    found.train()
    return found, folder


def test_labels_are_judged_after_the_warm_up_and_training_restarts(trained):
    found, _ = trained
    assert found.phase is Phase.ROBUST
    assert found.restarts
    assert isinstance(found.label_quality, MultilabelQuality)
    assert len(found.label_quality) == 48, "the held-out rows are judged too"
    assert sorted(found.label_quality.rows) == list(range(48))
    evaluations = [entry for entry in found.state.log_history if "eval_weighted_micro_f1" in entry]
    assert len(evaluations) == 3
    names = {"micro_f1", "macro_f1", "mean_average_precision"}
    assert {f"eval_{name}" for name in names} | {f"eval_weighted_{name}" for name in names} <= set(
        evaluations[-1]
    )
    issues = found.label_issues()
    assert list(issues.columns[:3]) == ["row", "label", "given"]
    assert set(issues["label"].cat.categories) == set(found.task.names)


def test_targets_are_posteriors_and_gates_follow_their_certainty(trained):
    found, _ = trained
    quality, store = found.estimate.train, found.store
    given, p = quality.given, quality.clean_probability
    applies = np.where(given, p, 1 - p)
    ids = torch.arange(len(given))
    assert np.allclose(store.soft_labels(torch.zeros(len(given), LABELS), ids).numpy(), applies)
    matters = np.maximum(given, applies)
    expected = [np.average(np.maximum(a, 1 - a), weights=w) for a, w in zip(applies, matters, strict=True)]
    assert np.allclose(store.confidence.numpy(), expected, atol=1e-6)


def test_a_resumed_run_ends_with_the_same_weights(trained, tmp_path):
    found, folder = trained
    steps = found.state.max_steps // 3
    for epoch in (1, 2):
        place = tmp_path / str(epoch)
        shutil.copytree(folder / f"checkpoint-{steps * epoch}", place / f"checkpoint-{steps * epoch}")
        again = made(
            place,
            train_dataset=rows(wrong=0.15),
            save_strategy="epoch",
            eval_strategy="epoch",
            metric_for_best_model="weighted_micro_f1",
        )
        again.train(resume_from_checkpoint=str(place / f"checkpoint-{steps * epoch}"))
        for name, weight in weights(found).items():
            assert torch.equal(weight, weights(again)[name]), name


def test_the_estimate_of_a_checkpoint_is_read_back_and_a_foreign_one_refused(trained, tmp_path):
    quality = trained[0].estimate.train
    trained[0].estimate.save(tmp_path)
    back = Estimate.load(tmp_path, len(quality), LABELS, MultilabelQuality)
    for name in ("given", "pred_probs", "clean_probability", "confusion", "groups", "row"):
        assert np.array_equal(getattr(back.train, name), getattr(quality, name))
    for size, labels in ((len(quality) + 1, LABELS), (len(quality), LABELS + 1)):
        with pytest.raises(InputError, match="is damaged"):
            Estimate.load(tmp_path, size, labels, MultilabelQuality)
    with pytest.raises(InputError, match="is damaged"):
        Estimate.load(tmp_path, len(quality), LABELS)


def test_the_warm_up_minimises_what_transformers_does(tmp_path):
    found = made(tmp_path)
    logits, ids = torch.randn(5, LABELS, generator=torch.Generator().manual_seed(1)), torch.arange(5)
    labels = torch.tensor(rows()["labels"][:5])
    loss = found.per_example_loss(logits, labels, ids)
    assert loss.shape == (5,)
    assert torch.allclose(loss.mean(), BCEWithLogitsLoss()(logits, labels))


def test_the_loss_of_a_step_is_the_mean_over_its_rows(tmp_path):
    settings = {"gradient_accumulation_steps": 2, "learning_rate": 0.0, "logging_steps": 1}
    found = made(tmp_path, clean_routing=False, num_train_epochs=1, lr_scheduler_type="constant", **settings)
    before = found.evaluate(rows())["eval_loss"]
    found.train()
    losses = [entry["loss"] for entry in found.state.log_history if "loss" in entry]
    assert np.mean(losses) == pytest.approx(before, rel=0.02), "but for dropout"


def test_plain_training_judges_labels_when_it_is_asked(tmp_path):
    found = made(tmp_path, clean_routing=False, num_train_epochs=1)
    found.train()
    assert found.phase is Phase.PLAIN
    assert len(found.label_issues()) >= int(np.sum(rows()["labels"]))


def on_any_number(out, batch):
    """A training whose rows come in their order; the last batch is filled up."""
    found = made(
        out,
        start=without_dropout(model()),
        train_dataset=rows(59, wrong=0.15),
        eval_dataset=rows(21, seed=5, wrong=0.15),
        per_device_train_batch_size=batch,
        gradient_accumulation_steps=1,
        train_sampling_strategy="sequential",
        max_grad_norm=0.0,
        optim="sgd",
        num_train_epochs=2,
        eval_strategy="epoch",
        metric_for_best_model="weighted_micro_f1",
    )
    found.train()
    return found


def left_by(found):
    estimate = found.estimate
    last = [entry for entry in found.state.log_history if "eval_weighted_micro_f1" in entry][-1]
    return {
        "p": estimate.train.clean_probability,
        "held_out": estimate.validation_weights,
        "figures": np.array([last["eval_weighted_micro_f1"], last["eval_mean_average_precision"]]),
        "weights": torch.cat([w.flatten() for w in weights(found).values()]).numpy(),
    }


@pytest.mark.slow
def test_two_processes_train_as_one_does(tmp_path):
    one = check_two_train_as_one(__file__, tmp_path, tolerance=1e-4)
    assert one["p"].min() < 0.2
    assert one["p"].max() > 0.9


def test_metrics_are_those_of_scikit_learn():
    rng = np.random.default_rng(0)
    scores, labels = rng.normal(size=(30, 4)), (rng.random((30, 4)) < 0.3).astype(float)
    labels[:, 3] = 0  # in no row
    found = label_set_metrics(scores, labels)
    truth, said = labels > 0, scores > 0
    assert found["micro_f1"] == pytest.approx(f1_score(truth, said, average="micro"))
    assert found["macro_f1"] == pytest.approx(f1_score(truth[:, :3], said[:, :3], average="macro"))
    expected = average_precision_score(truth[:, :3], scores[:, :3])
    assert found["mean_average_precision"] == pytest.approx(expected)
    doubled = np.where(np.arange(30)[:, None] < 10, 2.0, 1.0) * np.ones((30, 4))
    order = np.r_[np.arange(10), np.arange(30)]
    weighted, repeated = (
        label_set_metrics(scores, labels, doubled),
        label_set_metrics(scores[order], labels[order]),
    )
    assert weighted == pytest.approx(repeated)


def test_rows_are_held_out_by_their_rarest_label():
    flags = np.array([[1, 1, 0], [1, 0, 0], [0, 0, 0], [1, 0, 1], [1, 0, 1]], bool)
    assert rarest(flags).tolist() == [1, 0, 3, 2, 2]


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"loss": "gce"}, "loss is 'gce', which is for one label a row"),
        ({"class_weights": "balanced"}, "class_weights is 'balanced', which is for one label a row"),
        ({"consistency_weight": 1.0}, "consistency_weight is 1.0"),
        ({"label_estimator": "losses"}, "label_estimator is 'losses'"),
        (
            {"metric_for_best_model": "weighted_accuracy"},
            "metric_for_best_model is 'weighted_accuracy', which is for one label a row: give",
        ),
        ({"by": object()}, "A mixture of losses is for one label a row"),
    ],
)
def test_settings_for_one_label_a_row_are_refused(tmp_path, settings, message):
    with pytest.raises(InputError, match=message):
        made(tmp_path, **settings)


def test_figures_of_several_labels_are_refused_of_one_label(tmp_path):
    with pytest.raises(InputError, match="'weighted_micro_f1', which is for several labels a row"):
        trainer(tmp_path, metric_for_best_model="weighted_micro_f1")


def test_methods_for_one_label_a_row_are_refused(tmp_path):
    args = CleaRConfig(
        str(tmp_path), use_cpu=True, clean_routing=False, loss_options={"noise_rate": 0.2}, report_to="none"
    )
    with pytest.raises(InputError, match="This training method is for one label a row"):
        CoTeachingTrainer(model(), args, train_dataset=rows())
    base, _ = tiny("bert")
    base.config.problem_type = "multi_label_classification"
    with pytest.raises(InputError, match="rosa, metapeft and glora are trained with one label a row"):
        made(tmp_path, start=build(base, "rosa"))


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        ([1] * 48, r"needs 3 numbers, 0 or 1, for each row; the labels of the training set are int64"),
        ([[0.0, 1.0]] * 48, r"of shape \(48, 2\)"),
        ([[0.0, 1.0, 2.0]] * 48, "hold other numbers"),
        ([[0.0, 1.0], *[[0.0, 1.0, 1.0]] * 47], "of several lengths"),
        ([[0.0] * 3] * 48, "No row of the training set has a label"),
    ],
)
def test_labels_that_are_not_0_and_1_are_refused(tmp_path, labels, message):
    table = rows().remove_columns("labels").add_column("labels", labels)
    with pytest.raises(InputError, match=message):
        made(tmp_path, train_dataset=table)


def test_columns_for_one_label_a_row_are_refused():
    table = rows().add_column("verified", [-1] * 48)
    with pytest.raises(InputError, match="The column verified is for one label a row"):
        LabelSetRows(table, LABELS, "length", "training")


def test_a_model_of_one_label_refuses_several(tmp_path):
    base, _ = tiny("bert")
    plain = peft.get_peft_model(base, peft.LoraConfig(task_type="SEQ_CLS", target_modules="all-linear"))
    with pytest.raises(InputError, match="one class index per example"):
        trainer(tmp_path, start=copy.deepcopy(plain), train_dataset=rows())
    assert len(rows_of_one_label()) == 22
