"""A model that has learnt nothing when the warm-up ends is not asked; frozen features are."""

import numpy as np
import pytest
import torch
from toy import model, rows, trained, weights

from clear_peft.cleanliness import GaussianMixtureCleanliness, Opinion
from clear_peft.objectives import cross_entropy
from clear_peft.routing import Router
from clear_peft.training import CleaRConfig
from clear_peft.training.judging import better, judged
from clear_peft.training.scoring import frozen_features

ESTIMATOR = GaussianMixtureCleanliness()
SETTINGS = {
    "warm_up_epochs": 1,
    "fresh_start": True,
    "reestimate": False,
    "num_train_epochs": 2,
    "per_device_train_batch_size": 32,
    "gradient_accumulation_steps": 1,
    "compute_metrics": lambda e: {"accuracy": float((e.predictions.argmax(1) == e.label_ids).mean())},
    "by": ESTIMATOR,
}


def noisy(size, seed, share):
    """Rows of which a share carries one of the two other labels."""
    data = rows(size, seed)
    labels, rng = np.array(data["labels"]), np.random.default_rng(seed)
    wrong = rng.permutation(size)[: round(share * size)]
    labels[wrong] = (labels[wrong] + rng.integers(1, 3, len(wrong))) % 3
    return data.remove_columns("labels").add_column("labels", labels)


def verdict(made):
    """What was found when the warm-up ended."""
    return next(e["losses"]["parameters"] for e in made.state.log_history if "losses" in e)


def test_a_probe_teaches_where_the_model_has_learnt_nothing(tmp_path):
    data, held_out = noisy(240, 0, 0.4), noisy(90, 1, 0.4)
    made = trained(tmp_path, train_dataset=data, eval_dataset=held_out, learning_rate=1e-7, **SETTINGS)
    found = verdict(made)
    # drawing 60 % of the labels at random makes 40 % wrong
    assert abs(found["random"] - 0.6) < 0.15
    assert found["held_out_accuracy"] > 0.4
    assert made.state.global_step == 3 * 8, "it started afresh"


def test_right_labels_are_not_doubted_on_a_probes_word(tmp_path):
    data, held_out = rows(240, 0), rows(90, 1)
    made = trained(tmp_path, train_dataset=data, eval_dataset=held_out, learning_rate=1e-7, **SETTINGS)
    plain = trained(
        tmp_path / "plain",
        train_dataset=data,
        eval_dataset=held_out,
        learning_rate=1e-7,
        **{**SETTINGS, "clean_routing": False},
    )
    assert verdict(made)["random"] < 0.1
    assert made.state.global_step == plain.state.global_step == 2 * 8
    assert all(torch.equal(w, weights(plain)[name]) for name, w in weights(made).items())


def test_a_model_that_knows_better_is_asked_itself(tmp_path, monkeypatch):
    data, held_out = noisy(60, 0, 0.2), noisy(30, 1, 0.2)

    def never_right(features, labels, others, *_, **__):
        wrong = (np.array(held_out["labels"]) + 1) % 3
        return Opinion(np.full((len(labels), 3), 1 / 3), np.eye(3)[wrong])

    monkeypatch.setattr("clear_peft.training.trainer.second_opinion", never_right)
    made = trained(tmp_path, train_dataset=data, eval_dataset=held_out, **SETTINGS)
    assert "random" not in verdict(made)


def test_without_validation_rows_nobody_else_is_asked(tmp_path):
    made = trained(tmp_path, train_dataset=noisy(60, 0, 0.4), learning_rate=1e-7, **SETTINGS)
    assert "random" not in verdict(made)
    assert verdict(made)["held_out_accuracy"] is None


def test_features_are_the_pretrained_models_whatever_the_adapter_has_learnt():
    data = rows(10).remove_columns("labels").add_column("clear_example_id", np.arange(10))
    made = model()

    def collate(batch):
        return {name: torch.tensor([row[name] for row in batch]) for name in batch[0]}

    def features():
        options = {"batch_size": 4, "lengths": None, "prepare": dict}
        return frozen_features(router, made, data, collate, **options)

    with torch.no_grad(), made.disable_adapter():
        inputs = {name: torch.tensor(data[name]) for name in ("input_ids", "attention_mask")}
        hidden = made.eval()(**inputs, output_hidden_states=True).hidden_states[-1]
    router = Router(made)
    with torch.no_grad():
        for name, parameter in made.named_parameters():
            if "lora_" in name:
                parameter.add_(torch.randn_like(parameter))
    assert torch.allclose(features().float(), hidden.mean(dim=1), atol=2e-3)


@pytest.mark.parametrize("seen", [True, False])
def test_who_has_seen_the_labels_is_judged_by_contradiction(tmp_path, seen):
    """Predictions that put every label second: a contradiction, but not far down the ranking of five."""
    labels = np.arange(40) % 5
    logits = torch.zeros(40, 5)
    logits[range(40), labels] = 2.0
    logits[range(40), (labels + 1) % 5] = 3.0
    logits += 0.1 * torch.rand(40, 5, generator=torch.Generator().manual_seed(0))
    args = CleaRConfig(output_dir=str(tmp_path), use_cpu=True, report_to="none")
    held_out = logits[:7], labels[:7]
    state = judged(logits, labels, held_out, ESTIMATOR, args, epoch=1, seen=seen)
    assert state.components == (2 if seen else 1)
    assert state.parameters["contradicted"] == 1
    assert state.parameters["held_out_accuracy"] == 0
    assert np.allclose(state.losses, cross_entropy(logits, torch.from_numpy(labels)))
    right = logits.clone()
    right[range(40), labels] = 9.0
    other = judged(right, labels, (right[:7], labels[:7]), ESTIMATOR, args, epoch=1, seen=False)
    assert better(state, other)
    assert not better(other, state)
    assert not better(judged(logits, labels, None, ESTIMATOR, args, epoch=1, seen=True), other)


class _Outputs(dict):
    """What a model without hidden states to give out returns."""


def test_a_model_without_hidden_states_has_no_features():
    data = rows(6).remove_columns("labels").add_column("clear_example_id", np.arange(6))
    made = model()
    router = Router(made)
    made.forward = lambda **inputs: _Outputs(logits=torch.zeros(len(inputs["input_ids"]), 3))

    def collate(batch):
        return {name: torch.tensor([row[name] for row in batch]) for name in batch[0]}

    options = {"batch_size": 4, "lengths": None, "prepare": dict}
    assert frozen_features(router, made, data, collate, **options) is None
