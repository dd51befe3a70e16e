"""Once wrong labels have been found, training restarts; where none are, it is plain training."""

import numpy as np
import pytest
import torch
from datasets import Dataset
from safetensors.torch import load_file
from sklearn.metrics import f1_score
from test_trainer import StopAfter, equal
from toy import Constant, model, rows, trained, trainer, weights
from transformers import TrainerCallback

from clear_peft.label_quality import MixtureEstimate
from clear_peft.trainer import Phase
from clear_peft.trainer.weights import EMA

RESTART = {
    "restart": True,
    "ema_epochs": 3.3,
    "reestimate_every_epoch": False,
    "num_train_epochs": 5,
    "warm_up_epochs": 0.4,
    "noise_threshold": 0.0,
}


class NothingFound:
    def estimate(self, losses, labels=None):
        return MixtureEstimate(np.ones(len(losses), np.float32), 1, {})


class Weights(TrainerCallback):
    """Remembers weights, step size, and whether there was momentum, at the start of every epoch."""

    def __init__(self):
        self.seen, self.rates, self.moving = [], [], []

    def on_step_begin(self, args, state, control, model, optimizer, **_):
        if state.global_step % 3 == 0:
            self.seen.append({n: p.detach().clone() for n, p in model.named_parameters() if p.requires_grad})
            self.rates.append(optimizer.param_groups[0]["lr"])
            self.moving.append(bool(optimizer.state))


class Last(TrainerCallback):
    """Remembers the weights that the last step has left."""

    def on_step_end(self, args, state, control, model, **_):
        self.weights = {n: p.detach().clone() for n, p in model.named_parameters() if p.requires_grad}


def test_begins_with_the_initial_weights_and_without_momentum(tmp_path):
    callback = Weights()
    made = trained(tmp_path, by=Constant(0.6), callbacks=[callback], warmup_steps=2, **RESTART)
    assert made.state.global_step == 3 * 5
    for epoch, seen in enumerate(callback.seen):
        assert equal(seen, callback.seen[0]) == (epoch in (0, 2))
    assert callback.moving == [False, True, False, True, True]
    assert callback.rates[1:] == sorted(callback.rates[1:], reverse=True), "the schedule goes on"
    assert not equal(weights(made), callback.seen[0])


def test_nothing_found_is_plain_training_bitwise(tmp_path):
    plain = trained(
        tmp_path, clean_routing=False, num_train_epochs=RESTART["num_train_epochs"], warmup_steps=2
    )
    robust = trained(tmp_path, by=NothingFound(), warmup_steps=2, **RESTART)
    assert equal(weights(plain), weights(robust))


def test_what_follows_does_not_depend_on_the_average_of_the_warm_up(tmp_path):
    last = [Last(), Last()]
    trained(tmp_path, by=Constant(1.0), callbacks=last[:1], **RESTART)
    trained(tmp_path, by=Constant(1.0), callbacks=last[1:], **{**RESTART, "ema_epochs": 0.0})
    assert equal(last[0].weights, last[1].weights)


@pytest.mark.parametrize("stop_at", [1, 2, 3])
def test_resumed_training_ends_where_undisturbed_training_does(tmp_path, stop_at):
    common = {"by": Constant(0.6), "save_strategy": "epoch", **RESTART}
    whole = trained(tmp_path / "whole", **common)
    trained(tmp_path / "cut", callbacks=[StopAfter(stop_at)], **common)
    resumed = trainer(tmp_path / "cut", **common)
    resumed.train(resume_from_checkpoint=True)
    assert equal(weights(whole), weights(resumed))
    assert np.array_equal(whole.estimate.losses, resumed.estimate.losses)


@pytest.mark.parametrize("stop_at", [1, 1.3, 2, 2.6, 3])
def test_resume_in_the_middle_of_an_epoch(tmp_path, stop_at):
    common = {"by": Constant(0.6), "save_strategy": "steps", "save_steps": 1, **RESTART}
    whole = trained(tmp_path / "whole", **common)
    trained(tmp_path / "cut", callbacks=[StopAfter(stop_at)], **common)
    resumed = trainer(tmp_path / "cut", **common)
    resumed.train(resume_from_checkpoint=True)
    assert equal(weights(whole), weights(resumed))


def test_a_checkpoint_is_of_the_size_of_what_is_trained(tmp_path):
    made = trained(tmp_path, by=Constant(0.6), save_strategy="epoch", **RESTART)
    folder = tmp_path / f"checkpoint-{made.state.global_step}"

    def numbers(name):
        return sum(tensor.numel() for tensor in load_file(folder / name).values())

    tuned = sum(weight.numel() for weight in weights(made).values())
    assert numbers("adapter_model.safetensors") == tuned
    # the weights at the start, their average, the last ones; of each row a few numbers
    assert 3 * tuned <= numbers("clear_state.safetensors") < 3 * tuned + 20 * len(rows())
    assert numbers("clear_estimate.safetensors") < 40 * len(rows())
    moments = torch.load(folder / "optimizer.pt")["state"].values()
    assert sum(tensor.numel() for each in moments for tensor in each.values() if tensor.ndim) == 2 * tuned
    # the rest is settings, logs and the states of generators: less than the frozen weights, which are 86 kB
    rest = {path.name: path.stat().st_size for path in folder.iterdir()}
    for name in ("adapter_model.safetensors", "clear_state.safetensors", "clear_estimate.safetensors"):
        del rest[name]
    assert sum(rest.values()) - rest["optimizer.pt"] < 100_000, rest


def test_the_average_scores(tmp_path):
    last, average = Constant(1.0), Constant(1.0)
    settings = {"restart": False, "num_train_epochs": 1, "label_estimator": "losses"}
    trained(tmp_path, by=last, ema_epochs=0.0, **settings)
    made = trained(tmp_path, by=average, ema_epochs=3.3, **settings)
    assert not np.allclose(last.seen[0], average.seen[0])
    data = rows()
    made.model.eval()
    made.weights.keep_average()
    with torch.no_grad():
        logits = made.model(
            input_ids=torch.tensor(data["input_ids"]), attention_mask=torch.tensor(data["attention_mask"])
        ).logits
    losses = torch.nn.functional.cross_entropy(logits, torch.tensor(data["labels"]), reduction="none")
    np.testing.assert_allclose(average.seen[0], losses, atol=1e-5)


def test_average_by_hand():
    layer = torch.nn.Linear(2, 1, bias=False)
    frozen = torch.nn.Linear(1, 1).requires_grad_(False)
    model = torch.nn.Sequential(layer, frozen)
    average = EMA(model, decay=0.5)
    expected = layer.weight.detach().clone()
    for step in range(12):
        with torch.no_grad():
            layer.weight.add_(1.0)
        average.update()
        decay = min(0.5, (1 + step) / (10 + step))
        expected = decay * expected + (1 - decay) * layer.weight.detach()
    own = layer.weight.detach().clone()
    with average.applied():
        torch.testing.assert_close(layer.weight.detach(), expected)
    assert torch.equal(layer.weight, own)
    other = EMA(model, decay=0.5)
    other.load_state_dict(average.state_dict())
    assert other.steps == 12
    assert torch.equal(other.state_dict()["average/0.weight"], average.state_dict()["average/0.weight"])
    assert "average/1.weight" not in average.state_dict()
    with average.applied(), average.applied():
        torch.testing.assert_close(layer.weight.detach(), expected)
        inside = average.state_dict()
    assert torch.equal(layer.weight, own)
    other.copy_to_model()
    torch.testing.assert_close(layer.weight.detach(), expected)
    # of a checkpoint that was written while the model had the average
    other.load_state_dict(inside)
    assert torch.equal(layer.weight, own)


def test_validation_labels_count_by_their_clean_probability(tmp_path):
    class BelievesSmallLosses:
        def estimate(self, losses, labels=None):
            p = (losses <= np.median(losses)).astype(np.float32)
            return MixtureEstimate(p, 2, {})

    seen, labels_seen, predicted = [], [], []

    def measure(prediction):
        predicted.append(prediction.predictions.argmax(axis=1))
        seen.append(predicted[-1] == prediction.label_ids)
        labels_seen.append(prediction.label_ids)
        return {"accuracy": float(seen[-1].mean())}

    data = rows(15, seed=3)
    # of several lengths, so that evaluation takes them in another order
    cut = [ids[: 3 + i % 4] for i, ids in enumerate(data["input_ids"])]
    data = Dataset.from_dict(
        {"input_ids": cut, "attention_mask": [[1] * len(ids) for ids in cut], "labels": data["labels"]}
    )
    settings = {"eval_strategy": "epoch", "eval_dataset": data, "compute_metrics": measure}
    settings["per_device_eval_batch_size"] = 1  # nothing pads here
    kept = {**RESTART, "warm_up_epochs": 1, "restart": False}
    made = trained(tmp_path, by=BelievesSmallLosses(), **settings, **kept)
    belief = made.estimate.validation.clean_probability
    np.testing.assert_array_equal(made.estimate.validation_weights, belief)
    assert belief.shape == (15,)
    assert 0 < belief.mean() < 1
    logged = [e["eval_weighted_accuracy"] for e in made.state.log_history if "eval_weighted_accuracy" in e]
    taken = np.argsort([len(ids) for ids in cut], kind="stable")
    assert taken.tolist() != list(range(15))
    expected = [np.average(hits, weights=belief[taken]) for hits in seen]
    np.testing.assert_allclose(logged, expected, rtol=1e-6)
    given = np.asarray(data["labels"])[taken]
    logged = [e["eval_weighted_macro_f1"] for e in made.state.log_history if "eval_weighted_macro_f1" in e]
    believed = {"average": "macro", "sample_weight": belief[taken], "zero_division": 0}
    expected = [f1_score(given, classes, **believed) for classes in predicted]
    np.testing.assert_allclose(logged, expected, rtol=1e-6)
    assert all((labels == given).all() for labels in labels_seen)
    assert "eval_weighted_accuracy" not in made.evaluate()


@pytest.mark.parametrize(("threshold", "found"), [(0.0, True), (1.0, False)])
def test_labels_that_are_hardly_contradicted_are_not_doubted(tmp_path, threshold, found):
    made = trained(tmp_path, by=Constant(0.6), **{**RESTART, "noise_threshold": threshold})
    assert made.estimate.noise_found == found
    assert made.phase is (Phase.ROBUST if found else Phase.CONTINUE)
    assert (made.estimate.train.clean_probability == 1).all() != found
    assert 0 <= made.estimate.parameters["contradicted"] <= 1
    assert [e["epoch"] for e in made.state.log_history if "restarts" in e] == ([2] if found else [])


def test_surer_targets_are_drawn_more_often(tmp_path):
    class DoubtsTheFirstHalf:
        def estimate(self, losses, labels=None):
            p = np.where(np.arange(len(losses)) < len(losses) // 2, 0.0, 1.0).astype(np.float32)
            return MixtureEstimate(p, 2, {})

    made = trainer(tmp_path, by=DoubtsTheFirstHalf(), train_dataset=rows(40), **RESTART)
    drawn = []
    loss = made.per_example_loss

    def spy(logits, labels, ids):
        drawn.append((made.phase is Phase.ROBUST, ids.tolist()))
        return loss(logits, labels, ids)

    made.per_example_loss = spy
    made.train()
    before = np.concatenate([ids for robust, ids in drawn if not robust])
    after = np.concatenate([ids for robust, ids in drawn if robust])
    assert (np.bincount(before, minlength=40) == 2).all()
    assert len(after) == 3 * 40
    assert (np.bincount(after, minlength=40)[20:] >= 3).all()
    assert (after < 20).mean() < 0.45  # predictions of three classes are less sure than labels


def test_after_a_restart_the_average_is_what_is_evaluated_and_saved(tmp_path):
    settings = {**RESTART, "by": Constant(0.6), "eval_strategy": "epoch", "eval_dataset": rows(12, seed=5)}
    averaged = trained(tmp_path / "a", **settings)
    last = trained(tmp_path / "b", **{**settings, "ema_epochs": 0.0})

    def losses(made):
        return [entry["eval_loss"] for entry in made.state.log_history if "eval_loss" in entry]

    assert losses(averaged)[:2] == losses(last)[:2]  # the warm-up is plain training
    assert all(a != b for a, b in zip(losses(averaged)[2:], losses(last)[2:], strict=True))
    assert not equal(weights(averaged), weights(last))
    assert averaged.evaluate()["eval_loss"] == losses(averaged)[-1]


@pytest.mark.parametrize(
    ("hits", "selected"),
    # the first of these ends the warm-up
    [
        ([15, 5, 12, 11, 12], 5),
        ([9, 5, 12, 11, 12], 5),
        ([9, 5, 12, 11, 11], 5),
        ([9, 5, 12, 12, 6], 4),
        ([9, 5, 12, 5, 5], 3),
    ],
)
def test_the_latest_epoch_within_a_standard_error_of_the_best_is_selected(tmp_path, hits, selected):
    """Of 15 rows that count alike; where 12 are right the standard error is 1.5 rows."""
    data = rows(15, seed=3)
    left = iter([9, *hits])

    def measure(prediction):
        labels = prediction.label_ids
        right = np.arange(15) < next(left)
        prediction.predictions[:] = np.eye(3)[np.where(right, labels, (labels + 1) % 3)]
        return {"accuracy": float(right.mean())}

    settings = {
        "eval_strategy": "epoch",
        "save_strategy": "epoch",
        "eval_dataset": data,
        "compute_metrics": measure,
        "load_best_model_at_end": True,
        "metric_for_best_model": "weighted_accuracy",
        "greater_is_better": True,
    }
    made = trained(
        tmp_path, by=Constant(1.0), **settings, **{**RESTART, "num_train_epochs": 6, "warm_up_epochs": 2}
    )
    assert made.state.best_global_step == 3 * (1 + selected)


@pytest.mark.parametrize(
    ("p", "settings"),
    [(0.0, {}), (0.6, {"warm_up_epochs": 5}), (0.6, {"warm_up_epochs": 9}), (0.6, {"warm_up_epochs": 0})],
)
def test_an_epoch_is_selected_whatever_is_believed(tmp_path, p, settings):
    """No label believed; a warm-up as long as the training, longer, none."""
    made = trained(
        tmp_path,
        by=Constant(p),
        **{**RESTART, **settings},
        eval_strategy="epoch",
        save_strategy="epoch",
        eval_dataset=rows(15, seed=3),
        compute_metrics=lambda e: {"accuracy": float((e.predictions.argmax(1) == e.label_ids).mean())},
        load_best_model_at_end=True,
        metric_for_best_model="weighted_accuracy",
        greater_is_better=True,
    )
    assert made.state.best_global_step
    assert np.isfinite(made.state.best_metric)
    begun = [entry["epoch"] for entry in made.state.log_history if "restarts" in entry]
    assert begun == ([] if settings else [2])
    assert (made.phase is Phase.ROBUST) == (settings.get("warm_up_epochs", 0) < 5)


def test_training_that_is_resumed_from_another_initial_adapter_restarts_from_its_own(tmp_path):
    common = {"by": Constant(0.6), "save_strategy": "epoch", **RESTART}
    whole = trained(tmp_path / "whole", **common)
    trained(tmp_path / "cut", callbacks=[StopAfter(1)], **common)
    other = model()
    with torch.no_grad():
        for name, weight in other.named_parameters():
            if "lora_A" in name:
                weight.add_(1.0)
    resumed = trainer(tmp_path / "cut", start=other, **common)
    resumed.train(resume_from_checkpoint=True)
    assert any("restarts" in entry for entry in resumed.state.log_history)
    assert equal(weights(whole), weights(resumed))
