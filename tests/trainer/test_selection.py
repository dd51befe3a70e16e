"""Which epoch is the best one, and how much each validation row counts in that."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from test_drop_in import accuracy
from test_estimate import noisy
from test_trainer import StopAfter
from toy import trained, trainer
from transformers import TrainerCallback

from clear_peft.trainer import Phase
from clear_peft.trainer.selection import within_standard_error

WEIGHTS = st.lists(st.floats(0, 1, width=32), min_size=1, max_size=50).filter(lambda w: sum(w) > 0.01)
AGAIN = {
    "num_train_epochs": 4,
    "warm_up_epochs": 1,
    "reestimate_every_epoch": True,
    "label_estimator": "probe",
    "restart": True,
    "noise_threshold": 0.0,
    "eval_strategy": "epoch",
    "compute_metrics": accuracy,
    "per_device_train_batch_size": 16,
    "gradient_accumulation_steps": 1,
}


@pytest.mark.parametrize(
    ("weights", "rows"),
    [
        ([1.0] * 20, 20),
        ([0.1] * 20, 20),  # rows that are believed alike count alike, however little
        ([1.0] * 5 + [0.0] * 15, 5),
        ([1.0] * 10 + [0.5] * 10, 15**2 / 12.5),
        ([1.0] + [1e-6] * 19, 1),
        ([0.7], 1),
        ([0.0] * 9, 1),  # nothing is known: all count alike, and the error is at its largest
        ([], 1),
    ],
)
def test_rows_count_as_so_many_that_count_alike(weights, rows):
    weights, error = np.array(weights, np.float32), math.sqrt(0.8 * 0.2 / rows)
    assert within_standard_error(0.8 - 0.999 * error, 0.8, weights)
    assert not within_standard_error(0.8 - 1.001 * error, 0.8, weights)


@given(WEIGHTS, st.floats(0.05, 0.95), st.floats(0.01, 1))
def test_kish_s_size_is_between_one_row_and_all_of_them_on_any_scale(weights, best, scale):
    weights = np.array(weights, np.float32)
    error = math.sqrt(best * (1 - best))
    assert within_standard_error(best, best, weights)
    assert within_standard_error(best - 0.99 * error / math.sqrt(len(weights)), best, weights)
    assert not within_standard_error(best - 1.01 * error, best, weights)
    size = weights.sum(dtype=np.float64) ** 2 / (weights.astype(np.float64) ** 2).sum()
    for share, expected in ((0.99, True), (1.01, False)):
        accuracy_ = best - share * error / math.sqrt(size)
        assert within_standard_error(accuracy_, best, weights) == expected
        assert within_standard_error(accuracy_, best, (scale * weights).astype(np.float64)) == expected


@pytest.mark.parametrize("best", [0.0, 1.0])
def test_what_is_certain_has_no_error(best):
    weights = np.ones(10, np.float32)
    assert within_standard_error(best, best, weights)
    assert not within_standard_error(best - 1e-3, best, weights)


class Weighed(TrainerCallback):
    """What each evaluation was weighed by, what a new estimate would weigh by, and what came of it."""

    def __init__(self):
        self.seen = []

    def on_evaluate(self, args, state, control, metrics, **_):
        found = self.trainer.store.estimate
        now = None if found.validation is None else found.validation.clean_probability
        self.seen.append((found.validation_weights, now, metrics["eval_weighted_accuracy"]))


def weighed(tmp_path, callbacks=(), **settings):
    spy, hits = Weighed(), []

    def measure(prediction):
        hits.append(prediction.predictions.argmax(axis=1) == prediction.label_ids)
        return {"accuracy": float(hits[-1].mean())}

    made = trainer(
        tmp_path,
        train_dataset=noisy(120, 0, 0.4),
        eval_dataset=noisy(45, 1, 0.4),
        callbacks=[spy, *callbacks],
        **{**AGAIN, **settings, "compute_metrics": measure},
    )
    spy.trainer = made
    return made, spy.seen, hits


def test_epochs_are_compared_by_the_weights_of_the_first_estimate(tmp_path):
    """Else each would be measured by what it has made of the labels itself."""
    made, seen, hits = weighed(tmp_path)
    made.train()
    assert made.phase is Phase.ROBUST
    assert made.estimate.epoch == 4
    first = seen[0][0]
    assert len(seen) == 4
    assert 0 < first.mean() < 1
    for weights, now, value in seen:
        np.testing.assert_array_equal(weights, first)
        assert now.shape == first.shape
        assert value == pytest.approx(np.average(hits.pop(0), weights=first))
    np.testing.assert_array_equal(seen[0][1], first)
    assert not np.allclose(seen[-1][1], first), "the estimates themselves have gone on"


def test_they_stay_where_training_is_resumed(tmp_path):
    whole, seen, _ = weighed(tmp_path / "whole", save_strategy="epoch")
    whole.train()
    cut, _, _ = weighed(tmp_path / "cut", save_strategy="epoch", callbacks=[StopAfter(2)])
    cut.train()
    resumed, again, _ = weighed(tmp_path / "cut", save_strategy="epoch")
    resumed.train(resume_from_checkpoint=True)
    assert len(again) == 2
    for before, after in zip(seen[2:], again, strict=True):
        for one, other in zip(before, after, strict=True):
            np.testing.assert_array_equal(one, other)


@pytest.mark.parametrize("metric", ["macro_f1", "weighted_macro_f1", "loss"])
def test_the_best_epoch_is_that_of_the_figure_that_selects(tmp_path, metric):
    made, _, _ = weighed(tmp_path, save_strategy="epoch", metric_for_best_model=metric)
    made.compute_metrics = made.selection.measuring(made.task.metrics)
    made.train()
    logged = [e for e in made.state.log_history if f"eval_{metric}" in e and e["epoch"] > 1]
    best = (min if metric == "loss" else max)(entry[f"eval_{metric}"] for entry in logged)
    last = [entry["step"] for entry in logged if entry[f"eval_{metric}"] == best][-1]
    assert (made.state.best_metric, made.state.best_global_step) == (best, last)


@pytest.mark.parametrize(
    ("accuracies", "patience", "epochs"),
    [
        ([0.9, 0.5, 0.6, 0.55, 0.5, 0.7], 2, 5),  # the warm-up's does not count
        ([0.9, 0.5, 0.6, 0.55, 0.6, 0.7], 2, 5),  # an equal one is no gain
        ([0.1, 0.2, 0.3, 0.4, 0.5, 0.6], 1, 6),
        ([0.9, 0.5, 0.4, 0.3, 0.2, 0.1], 0, 6),
    ],
)
def test_patience_counts_from_the_best_epoch_that_may_be_selected(tmp_path, accuracies, patience, epochs):
    left = iter(accuracies)
    made = trained(
        tmp_path,
        num_train_epochs=6,
        eval_dataset=noisy(12, 1, 0.0),
        eval_strategy="epoch",
        metric_for_best_model="accuracy",
        patience=patience,
        clean_routing=True,
        warm_up_epochs=2,
        noise_threshold=0.0,
        compute_metrics=lambda _: {"accuracy": next(left)},
    )
    assert made.state.epoch == epochs
