"""A probe on hidden features says what to doubt, without having been fitted to the label in question."""

import numpy as np
import pytest
import torch
from sklearn.metrics import roc_auc_score
from toy import model, rows, trained, weights

from clear_peft.cleanliness import GaussianMixtureCleanliness
from clear_peft.objectives import cross_entropy
from clear_peft.training import CleaRConfig
from clear_peft.training.judging import judged
from clear_peft.training.scoring import hidden_features

ESTIMATOR = GaussianMixtureCleanliness()
SETTINGS = {
    "warm_up_epochs": 1,
    "fresh_start": True,
    "reestimate": False,
    "num_train_epochs": 2,
    "per_device_train_batch_size": 32,
    "gradient_accumulation_steps": 1,
    "compute_metrics": lambda e: {"accuracy": float((e.predictions.argmax(1) == e.label_ids).mean())},
    "learning_rate": 1e-7,  # the model itself learns nothing
    "judge": "probe",
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


@pytest.mark.parametrize("validated", [True, False])
def test_wrong_labels_are_found_by_a_model_whose_head_has_learnt_nothing(tmp_path, validated):
    data, held_out = noisy(240, 0, 0.4), noisy(90, 1, 0.4) if validated else None
    made = trained(tmp_path, train_dataset=data, eval_dataset=held_out, **SETTINGS)
    # drawing 60 % of the labels at random makes 40 % wrong
    assert abs(verdict(made)["random"] - 0.6) < 0.15
    assert made.state.global_step == 3 * 8, "it started afresh"
    wrong = np.array(data["labels"]) != np.array(rows(240, 0)["labels"])
    assert roc_auc_score(wrong, made.cleanliness.losses) > 0.75
    assert len(made.cleanliness.validation_probability) == (90 if validated else 0)


def test_right_labels_are_not_doubted(tmp_path):
    data, held_out = rows(240, 0), rows(90, 1)
    made = trained(tmp_path, train_dataset=data, eval_dataset=held_out, **SETTINGS)
    plain = trained(
        tmp_path / "plain",
        train_dataset=data,
        eval_dataset=held_out,
        **{**SETTINGS, "clean_routing": False},
    )
    assert verdict(made)["random"] < 0.1
    assert made.state.global_step == plain.state.global_step == 2 * 8
    assert all(torch.equal(w, weights(plain)[name]) for name, w in weights(made).items())


def test_the_model_judges_itself_where_it_is_told_to(tmp_path):
    made = trained(tmp_path, train_dataset=noisy(60, 0, 0.4), **{**SETTINGS, "judge": "model"})
    assert "random" not in verdict(made)


def test_features_are_the_mean_over_real_tokens_of_the_model_with_its_adapter():
    data = rows(10).remove_columns("labels").add_column("clear_example_id", np.arange(10))
    made = model()
    with torch.no_grad():
        for name, parameter in made.named_parameters():
            if "lora_" in name:
                parameter.add_(torch.randn_like(parameter))

    def collate(batch):
        return {name: torch.tensor([row[name] for row in batch]) for name in batch[0]}

    with torch.no_grad():
        inputs = {name: torch.tensor(data[name]) for name in ("input_ids", "attention_mask")}
        hidden = made.eval()(**inputs, output_hidden_states=True).hidden_states[-1]
    features = hidden_features(made, data, collate, batch_size=4, lengths=None, prepare=dict)
    assert torch.allclose(features.float(), hidden.mean(dim=1), atol=2e-3)


@pytest.mark.parametrize("seen", [True, False])
def test_who_has_seen_the_labels_is_judged_by_contradiction(tmp_path, seen):
    """Predictions that put every label second: a contradiction, but not far down the ranking of five."""
    labels = np.arange(40) % 5
    logits = torch.zeros(40, 5)
    logits[range(40), labels] = 2.0
    logits[range(40), (labels + 1) % 5] = 3.0
    logits += 0.1 * torch.rand(40, 5, generator=torch.Generator().manual_seed(0))
    args = CleaRConfig(output_dir=str(tmp_path), use_cpu=True, report_to="none")
    state = judged(logits, labels, (logits[:7], labels[:7]), ESTIMATOR, args, epoch=1, seen=seen)
    assert state.components == (2 if seen else 1)
    assert state.parameters["contradicted"] == 1
    assert np.allclose(state.losses, cross_entropy(logits, torch.from_numpy(labels)))


class _Outputs(dict):
    """What a model without hidden states to give out returns."""


def test_a_model_without_hidden_states_has_no_features():
    data = rows(6).remove_columns("labels").add_column("clear_example_id", np.arange(6))
    made = model()
    made.forward = lambda **inputs: _Outputs(logits=torch.zeros(len(inputs["input_ids"]), 3))

    def collate(batch):
        return {name: torch.tensor([row[name] for row in batch]) for name in batch[0]}

    assert hidden_features(made, data, collate, batch_size=4, lengths=None, prepare=dict) is None
