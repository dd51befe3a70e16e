"""What training by clean routing must keep."""

import math
import re

import numpy as np
import peft
import pytest
import torch
from torch.utils.data import Dataset as TorchDataset
from toy import (
    Constant,
    is_lora,
    model,
    model_without_dropout,
    rows,
    sampled,
    trained,
    trainer,
    weights,
)
from transformers import TrainerCallback, TrainingArguments

from clear_peft.errors import InputError, RunFailedError
from clear_peft.label_quality import MixtureEstimate
from clear_peft.routing import Router
from clear_peft.trainer import CleaRConfig, CleaRTrainer, Estimate, Phase, preset
from clear_peft.trainer.sampler import sampling_weights
from tiny_models import tiny

# transformers before 5.23 has another name for it
_NAME = "activation" if hasattr(TrainingArguments, "activation_checkpointing") else "gradient"
CHECKPOINTING = f"{_NAME}_checkpointing"
MODES = [
    {},
    {CHECKPOINTING: True},
    {CHECKPOINTING: True, f"{CHECKPOINTING}_kwargs": {"use_reentrant": True}},
    pytest.param(
        # traced and differentiated as with the default backend, whose C++ takes minutes to build
        {"torch_compile": True, "torch_compile_backend": "aot_eager"},
        marks=[pytest.mark.slow, pytest.mark.compiled],
    ),
]


def equal(first, second):
    return first.keys() == second.keys() and all(torch.equal(first[n], second[n]) for n in first)


@pytest.mark.parametrize("mode", MODES)
def test_believing_every_label_is_plain_training_bitwise(tmp_path, mode):
    plain = trained(tmp_path, clean_routing=False, **mode)
    # compiling takes most of a test's time
    for weighting in [True] if mode.get("torch_compile") else [False, True]:
        settings = {"max_gate_prob": 1.0, "soft_labels": weighting, "class_balance": 0.0, **mode}
        believing = trained(tmp_path, by=Constant(1.0), **settings)
        assert equal(weights(plain), weights(believing))
    assert not equal(weights(plain), weights(trainer(tmp_path))), "training must have done something"


@pytest.mark.parametrize("mode", MODES)
def test_believing_no_label_leaves_the_adapter_untouched(tmp_path, mode):
    made = trainer(tmp_path, by=Constant(0.0), warm_up_epochs=0, soft_labels=False, **mode)
    before = weights(made)
    made.train()
    for name, after in weights(made).items():
        assert torch.equal(after, before[name]) == is_lora(name), name


@pytest.mark.parametrize("settings", [{}, {"soft_labels": False, "consistency_weight": 1.0}])
def test_accumulated_gradients_are_those_of_one_batch(tmp_path, settings):
    """22 rows: the last step has fewer examples, and its micro-batches differ in size."""
    common = {
        "optim": "sgd",
        "train_sampling_strategy": "sequential",
        "lr_scheduler_type": "constant",
        "max_grad_norm": 0.0,
        **settings,
    }
    start = model_without_dropout()
    results = []
    for size, accumulation in ((8, 1), (4, 2), (2, 4), (3, 3)):
        made = trained(
            tmp_path,
            start=start,
            by=Constant(0.7),
            per_device_train_batch_size=size,
            gradient_accumulation_steps=accumulation,
            **common,
        )
        results.append((size * accumulation, weights(made)))
    by_eight = [w for total, w in results if total == 8]
    for other in by_eight[1:]:
        for name, value in by_eight[0].items():
            torch.testing.assert_close(value, other[name], atol=2e-6, rtol=1e-4, msg=name)


def test_same_gates_however_the_steps_are_cut(tmp_path, monkeypatch):
    seen = []
    draw = Router.draw

    def spy(self, p, *, example_ids, step):
        gates = draw(self, p, example_ids=example_ids, step=step)
        seen.append({(step, int(i)): tuple(g.tolist()) for i, g in zip(example_ids, gates, strict=True)})
        return gates

    monkeypatch.setattr(Router, "draw", spy)
    merged = []
    for size, accumulation in ((8, 1), (2, 4)):
        seen.clear()
        trained(
            tmp_path,
            by=Constant(0.5),
            soft_labels=False,  # what is predicted depends on rounding, and so on how steps are cut
            per_device_train_batch_size=size,
            gradient_accumulation_steps=accumulation,
            train_sampling_strategy="sequential",
        )
        merged.append({k: v for part in seen for k, v in part.items()})
    assert merged[0] == merged[1]


def test_losses_reach_the_estimator_in_the_order_of_the_rows(tmp_path):
    estimator = Constant(1.0)
    data = rows().add_column("length", [6 - i % 3 for i in range(22)])  # scoring sorts by it
    made = trained(tmp_path, train_dataset=data, by=estimator, num_train_epochs=1, loss_ema=0.0)
    made.model.eval()
    with torch.no_grad():
        logits = made.model(
            input_ids=torch.tensor(data["input_ids"]), attention_mask=torch.tensor(data["attention_mask"])
        ).logits
    expected = torch.nn.functional.cross_entropy(logits, torch.tensor(data["labels"]), reduction="none")
    np.testing.assert_allclose(estimator.seen[-1], expected, atol=1e-5)
    probs = made.estimate.train.pred_probs.dense()
    np.testing.assert_allclose(probs, torch.softmax(logits, dim=1), atol=1e-5)


@pytest.mark.parametrize(
    ("warm_up", "epochs", "expected"), [(2, 4, 2), (0.5, 4, 2), (0.5, 3, 2), (0, 2, 0), (0.5, 1, 1)]
)
def test_estimates_once_when_the_warm_up_ends(tmp_path, warm_up, epochs, expected):
    estimator = Constant(0.5)
    settings = {"warm_up_epochs": warm_up, "num_train_epochs": epochs, "reestimate_every_epoch": False}
    made = trained(tmp_path, by=estimator, train_dataset=rows(200), **settings)
    assert len(estimator.seen) == 1
    assert made.estimate.epoch == expected
    rates = [entry["gate_rate"] for entry in made.state.log_history if "gate_rate" in entry]
    assert [rate == 1.0 for rate in rates] == [True] * expected + [False] * (epochs - expected)


@pytest.mark.parametrize(("epochs", "expected"), [(1, 0), (2, 1), (5, 1), (6, 2), (10, 2), (60, 2)])
def test_a_fifth_of_the_epochs_and_two_at_the_most_are_warm_up(tmp_path, epochs, expected):
    made = trainer(tmp_path, num_train_epochs=epochs, warm_up_epochs=None, label_estimator="probe")
    assert made.args.warm_up(epochs) == made.schedule.warm_up_epochs == expected


def test_targets_are_labels_and_predictions_mixed_by_the_clean_probability(tmp_path):
    class Doubts:
        def estimate(self, losses, labels=None):
            p = np.linspace(0.1, 0.9, len(losses), dtype=np.float32)
            return MixtureEstimate(p, 2, {})

    made = trained(tmp_path, by=Doubts(), num_train_epochs=2, restart=False)
    assert made.phase is Phase.ROBUST
    logits, ids = torch.randn(3, 3), torch.tensor([0, 10, 21])
    labels = torch.from_numpy(made.store.rows.labels[ids])
    p = torch.from_numpy(made.estimate.train.clean_probability[ids])[:, None]
    teacher = torch.from_numpy(made.estimate.train.pred_probs.dense()[ids])
    targets = p * torch.nn.functional.one_hot(labels, 3) + (1 - p) * teacher
    expected = torch.nn.functional.cross_entropy(logits, targets, reduction="none")
    # what is predicted is kept as logits in float16: within 1e-3 of each probability
    torch.testing.assert_close(made.per_example_loss(logits, labels, ids), expected, atol=2e-3, rtol=1e-3)


class Validation:
    """Accuracies that are given instead of measured."""

    def __init__(self, accuracies):
        self.accuracies = iter(accuracies)

    def __call__(self, _):
        return {"accuracy": next(self.accuracies)}


@pytest.mark.parametrize(
    ("accuracies", "selected"),
    [
        ([0.9, 0.5, 0.6, 0.55], 3),  # an epoch without an estimate is never selected
        ([0.9, 0.6, 0.6, 0.5], 3),  # of equals the latest
        ([0.9, 0.7, 0.6, 0.5], 2),
    ],
)
def test_selected_epoch(tmp_path, accuracies, selected):
    made = trainer(
        tmp_path,
        num_train_epochs=4,
        warm_up_epochs=2,
        eval_dataset=rows(12),
        eval_strategy="epoch",
        save_strategy="epoch",
        load_best_model_at_end=True,
        metric_for_best_model="accuracy",
        greater_is_better=True,
        compute_metrics=Validation(accuracies),
    )
    made.train()
    assert made.state.best_global_step == 3 * selected
    assert made.estimate.epoch == selected


def test_a_checkpoint_that_says_it_is_whole_has_our_state(tmp_path, monkeypatch):
    def full_disk(self, folder):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Estimate, "save", full_disk)
    with pytest.raises(OSError, match="No space"):
        trained(tmp_path, save_strategy="epoch")
    assert not list(tmp_path.rglob("trainer_state.json"))


def test_losses_are_smoothed_over_epochs(tmp_path):
    raw, smoothed = Constant(1.0), Constant(1.0)
    trained(tmp_path, by=raw, loss_ema=0.0)
    trained(tmp_path, by=smoothed, loss_ema=0.9)
    first, second, _ = raw.seen
    np.testing.assert_allclose(smoothed.seen[1], 0.1 * second + 0.9 * first, atol=1e-6)


class StopAfter(TrainerCallback):
    def __init__(self, epochs):
        self.epochs = epochs

    def on_save(self, args, state, control, **_):
        control.should_training_stop = state.epoch >= self.epochs


@pytest.mark.parametrize("stop_at", [1, 2])
@pytest.mark.parametrize("reestimate", [False, True])
def test_resumed_training_ends_where_undisturbed_training_does(tmp_path, stop_at, reestimate):
    common = {
        "num_train_epochs": 4,
        "save_strategy": "epoch",
        "consistency_weight": 1.0,
        "loss_ema": 0.5,
    }
    whole = trained(tmp_path / "whole", **common)
    trained(tmp_path / "cut", callbacks=[StopAfter(stop_at)], **common)
    resumed = trainer(tmp_path / "cut", **common)
    resumed.train(resume_from_checkpoint=True)
    assert equal(weights(whole), weights(resumed))
    assert np.array_equal(whole.estimate.train.clean_probability, resumed.estimate.train.clean_probability)
    assert np.array_equal(whole.estimate.losses, resumed.estimate.losses)


@pytest.mark.parametrize("mode", MODES)
def test_resume_in_the_middle_of_an_epoch(tmp_path, mode):
    common = {"save_strategy": "steps", "save_steps": 4, "consistency_weight": 1.0, **mode}  # 3 an epoch
    whole = trained(tmp_path / "whole", **common)
    trained(tmp_path / "cut", callbacks=[StopAfter(1.1)], **common)
    resumed = trainer(tmp_path / "cut", **common)
    resumed.train(resume_from_checkpoint=True)
    assert equal(weights(whole), weights(resumed))
    assert np.array_equal(whole.estimate.train.clean_probability, resumed.estimate.train.clean_probability)


def test_a_run_is_not_resumed_with_another_batch_size(tmp_path):
    common = {"num_train_epochs": 4, "save_strategy": "epoch"}
    trained(tmp_path, callbacks=[StopAfter(2)], **common)
    with pytest.raises(InputError, match="has 3 steps an epoch, and this training 2: let the product of"):
        trainer(tmp_path, per_device_train_batch_size=8, **common).train(resume_from_checkpoint=True)
    resumed = trainer(tmp_path, per_device_train_batch_size=8, ignore_data_skip=True, **common)
    resumed.train(resume_from_checkpoint=True)
    assert resumed.state.global_step == 8


def test_true_labels_are_for_the_log_alone(tmp_path):
    clean = np.asarray(rows()["labels"]).copy()
    clean[:5] = (clean[:5] + 1) % 3
    without = trained(tmp_path)
    with_truth = trained(tmp_path, train_dataset=rows().add_column("clean_label", clean))
    assert equal(weights(without), weights(with_truth))
    logged = [entry for entry in with_truth.state.log_history if "noise_rate" in entry]
    assert len(logged) == 3
    assert all(0 <= entry["detection_auc"] <= 1 for entry in logged)
    assert not any("detection_auc" in entry for entry in without.state.log_history)


def test_gate_rates_are_logged(tmp_path):
    made = trained(
        tmp_path,
        by=Constant(0.25),
        soft_labels=False,
        max_gate_prob=0.8,
        train_dataset=rows(300),
        num_train_epochs=2,
    )
    rates = [entry["gate_rate"] for entry in made.state.log_history if "gate_rate" in entry]
    assert abs(rates[0] - 0.8) < 0.07  # warm-up
    assert abs(rates[1] - 0.2) < 0.07
    last = next(e for e in reversed(made.state.log_history) if "gate_rate" in e)
    assert {"gate_rate/block_0", "gate_rate/block_1"} <= last.keys()


def test_gates_follow_how_sure_a_soft_target_is(tmp_path):
    made = trained(tmp_path, by=Constant(0.25), train_dataset=rows(300), num_train_epochs=2)
    quality, labels = made.estimate.train, made.store.rows.labels
    targets = 0.75 * quality.pred_probs.dense()
    targets[np.arange(300), labels] += 0.25
    assert np.allclose(made.store.confidence, targets.max(axis=1), atol=1e-3)
    last = next(e for e in reversed(made.state.log_history) if "gate_rate" in e)
    assert abs(last["gate_rate"] - targets.max(axis=1).mean()) < 0.07


@pytest.mark.parametrize("balance", [0.0, 0.5, 1.0])
def test_classes_are_drawn_the_more_alike(tmp_path, balance):
    data = rows(90)
    few = data.select([i for i, y in enumerate(data["labels"]) if y or i < 12])  # 4 of class 0
    made = trained(tmp_path, by=Constant(0.9), train_dataset=few, num_train_epochs=2, class_balance=balance)
    labels = made.store.rows.labels  # of which each is its row's likeliest class
    shares = np.bincount(labels, weights=sampling_weights(made), minlength=3)
    certain = np.bincount(labels, weights=made.store.confidence, minlength=3)
    np.testing.assert_allclose(shares, certain ** (1 - balance), rtol=1e-5)
    drawn = np.bincount(labels[sampled(made)], minlength=3)
    np.testing.assert_allclose(drawn, len(few) * shares / shares.sum(), atol=2)


def test_finding_nothing_is_plain_training_bitwise(tmp_path):
    class NothingFound:
        def estimate(self, losses, labels=None):
            return MixtureEstimate(np.full(len(losses), 0.5, np.float32), 1, {})

    plain = trained(tmp_path, clean_routing=False)
    doubting_none = trained(tmp_path, by=NothingFound(), class_balance=1.0)
    assert equal(weights(plain), weights(doubting_none))


def test_what_an_epoch_leaves_is_kept_for_plots_but_not_logged(tmp_path):
    data = rows(30)
    data = data.add_column("clean_label", [(y + (i < 6)) % 3 for i, y in enumerate(data["labels"])])
    made = trained(tmp_path, by=Constant(0.25), train_dataset=data, num_train_epochs=2)
    left = [entry for entry in made.state.log_history if "step_losses" in entry]
    assert [round(entry["epoch"]) for entry in left] == [1, 2]
    for entry in left:
        assert sum(entry["step_losses"]["wrong"]) == 6
        assert sum(entry["step_losses"]["right"]) == 24
    rates = left[1]["gate_rates"]
    assert len(rates["blocks"]) == 3  # two layers and the head
    assert len(rates["classes"]) == 3
    assert abs(np.mean(rates["blocks"]) - np.mean(rates["classes"])) < 1e-6  # ten examples of each class
    assert left[0]["gate_rates"]["classes"] != rates["classes"]


def test_without_routing_the_gates_stay_open(tmp_path):
    made = trained(tmp_path, by=Constant(0.25), use_routing=False)
    rates = [entry["gate_rate"] for entry in made.state.log_history if "gate_rate" in entry]
    assert rates == [1.0] * 3


def test_evaluation_is_never_gated(tmp_path):
    made = trained(tmp_path, by=Constant(0.0), warm_up_epochs=0, eval_dataset=rows(12, seed=5))
    first, second = made.evaluate(), made.evaluate()
    assert first["eval_loss"] == second["eval_loss"]
    data = rows(12, seed=5)
    made.model.eval()
    with torch.no_grad():
        logits = made.model(
            input_ids=torch.tensor(data["input_ids"]), attention_mask=torch.tensor(data["attention_mask"])
        ).logits
    expected = torch.nn.functional.cross_entropy(logits, torch.tensor(data["labels"])).item()
    assert math.isclose(first["eval_loss"], expected, rel_tol=1e-3)


def test_saved_adapter_is_plain_peft(tmp_path):
    made = trained(tmp_path)
    made.save_model(str(tmp_path / "adapter"))
    loaded = peft.PeftModel.from_pretrained(tiny("bert")[0], tmp_path / "adapter").eval()
    batch = tiny("bert")[1]
    made.model.eval()
    with torch.no_grad():
        assert torch.equal(loaded(**batch).logits, made.model(**batch).logits)


def test_label_issues_rank_every_row(tmp_path):
    data = rows(60, length=3)
    wrong = [4, 17, 33]
    labels = np.asarray(data["labels"]).copy()
    labels[wrong] = (labels[wrong] + 1) % 3
    data = data.remove_columns("labels").add_column("labels", labels)
    issues = trained(tmp_path, train_dataset=data, num_train_epochs=20, warm_up_epochs=20).label_issues()
    assert sorted(issues["row"]) == list(range(60))
    assert set(issues["row"][:3]) == set(wrong)
    assert list(issues.columns) == [
        "row",
        "given_label",
        "predicted_label",
        "clean_probability",
        "label_quality",
        "is_label_issue",
        "group",
    ]
    assert issues["clean_probability"].is_monotonic_increasing


def test_plain_training_scores_only_when_asked(tmp_path):
    estimator = Constant(1.0)
    made = trained(tmp_path, clean_routing=False, by=estimator)
    assert estimator.seen is None
    assert len(made.label_issues()) == 22
    assert len(estimator.seen) == 1


class Items(TorchDataset):
    def __len__(self):
        return 12

    def __getitem__(self, index):
        return rows(12)[index]


def test_torch_datasets_have_ids_too(tmp_path):
    made = trained(tmp_path, train_dataset=Items(), num_train_epochs=1)
    assert made.estimate.train.clean_probability.shape == (12,)


def test_paper_preset(tmp_path):
    recipe = preset("paper", "adapter")
    assert (recipe["max_gate_prob"], recipe["loss_ema"], recipe["num_train_epochs"]) == (0.7, 0.9, 10)
    fewer = {"num_train_epochs": 5, "learning_rate": 1e-2, "bf16": False}
    made = trained(tmp_path, train_dataset=rows(40), **{**recipe, **fewer})
    assert made.args.max_gate_prob == 0.7
    assert made.args.loss_ema == 0.9
    assert made.estimate.noise_found
    assert made.estimate.epoch == 5
    assert made.phase is Phase.ROBUST
    assert not made.restarts


def test_the_recommended_preset_is_a_whole_recipe(tmp_path):
    """Nothing else is given: rows are held out of the training rows, and a metric compares the epochs."""
    fewer = {"num_train_epochs": 3, "bf16": False}
    args = CleaRConfig(str(tmp_path), report_to="none", **{**preset("recommended"), **fewer})
    made = CleaRTrainer(model(), args, train_dataset=rows(90))
    made.train()
    assert len(made.train_dataset) + len(made.eval_dataset) == 90
    assert made.state.best_global_step
    assert sum("eval_weighted_accuracy" in entry for entry in made.state.log_history) == 3


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"train_dataset": rows().to_iterable_dataset()}, "no stable example ids|no labels"),
        ({"train_dataset": rows().remove_columns("labels")}, "no labels"),
        (
            {"train_dataset": rows().remove_columns("labels").add_column("labels", [7] * 22)},
            "must lie in 0…2",
        ),
        (
            {"train_dataset": rows().remove_columns("labels").add_column("labels", [0.5] * 22)},
            "one class index",
        ),
        ({"max_gate_prob": 1.5}, "max_gate_prob is 1.5"),
        ({"label_smoothing_factor": 0.1}, "override per_example_loss"),
        ({"loss_mixture": "gamma"}, "no loss_mixture 'gamma'"),
    ],
)
def test_wrong_input_is_one_sentence(tmp_path, settings, words):
    with pytest.raises(InputError, match=words):
        trainer(tmp_path, **settings)


def test_a_loss_that_is_not_finite_stops_the_training(tmp_path):
    made = trainer(tmp_path)
    with torch.no_grad():
        next(p for n, p in made.model.named_parameters() if "lora_A" in n).fill_(float("nan"))
    with pytest.raises(RunFailedError, match=r"not finite at step 1 \(training rows"):
        made.train()


def test_unknown_preset_is_refused():
    with pytest.raises(InputError, match="no preset 'best'"):
        preset("best")
    with pytest.raises(InputError, match="no PEFT method"):
        preset("paper", "bert")


def test_a_gradient_that_is_not_finite_names_rows_of_its_own_step(tmp_path):
    """An epoch's last step may have fewer micro-batches than the step before, whose rows were fine."""
    data, seen = rows(22), []
    made = trainer(
        tmp_path,
        train_dataset=data,
        per_device_train_batch_size=4,
        gradient_accumulation_steps=4,
        num_train_epochs=1,
    )
    step = made.training_step

    def training_step(model, inputs, *arguments):
        seen.append(inputs["clear_example_id"].tolist())
        loss = step(model, inputs, *arguments)
        if len(seen) == 6:  # 22 rows make batches of 4, 4, 4, 4 | 4, 2
            next(p for p in model.parameters() if p.grad is not None).grad.fill_(torch.nan)
        return loss

    made.training_step = training_step
    with pytest.raises(RunFailedError, match="gradient is not finite at step 2") as stopped:
        made.train()
    listed = re.search(r"\(training rows ([\d, ]+)", str(stopped.value)).group(1)
    assert {int(number) for number in listed.split(",") if number.strip()} <= {*seen[4], *seen[5]}
