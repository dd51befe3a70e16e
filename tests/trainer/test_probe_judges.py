"""A probe on hidden features says what to doubt, without having been fitted to the label in question."""

from functools import partial

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from sklearn.metrics import roc_auc_score
from toy import model, rows, trained, weights

from clear_peft.errors import InputError
from clear_peft.label_quality import GaussianMixtureCleanliness, Judgement, NoiseModel
from clear_peft.losses import cross_entropy
from clear_peft.trainer import CleaRConfig, CleaRTrainer, probing
from clear_peft.trainer.judging import judged, judged_by_probe
from clear_peft.trainer.probing import blocks
from clear_peft.trainer.scoring import hidden_features, probed_layers

ESTIMATOR = GaussianMixtureCleanliness()
SYMMETRIC = np.full((3, 3), 0.2) + 0.4 * np.eye(3)
FLIPS = np.array([[0.7, 0.2, 0.1], [0.1, 0.6, 0.3], [0.4, 0.1, 0.5]])
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


@pytest.mark.parametrize("validated", [True, False])
def test_wrong_labels_are_found_by_a_model_whose_head_has_learnt_nothing(tmp_path, validated):
    data, held_out = noisy(240, 0, 0.4), noisy(90, 1, 0.4) if validated else None
    made = trained(tmp_path, train_dataset=data, eval_dataset=held_out, **SETTINGS)
    assert abs(made.cleanliness.noise_rate - 0.4) < 0.15  # of 240 rows
    assert made.doubted
    wrong = np.array(data["labels"]) != np.array(rows(240, 0)["labels"])
    assert roc_auc_score(wrong, -made.clean_probability) > 0.75
    assert made.judge == "probe"
    assert len(made.cleanliness.validation_probability) == (90 if validated else 0)


def test_copies_do_not_vouch_for_each_other(tmp_path):
    data = noisy(240, 0, 0.4)
    once = trained(tmp_path / "once", train_dataset=data, **SETTINGS)
    rows_read = np.concatenate([np.arange(240), np.repeat(np.arange(60), 8)])
    copied = trained(tmp_path / "copied", train_dataset=data.select(rows_read), **SETTINGS)
    grouped = data.select(rows_read).add_column("group", rows_read // 2)
    pairs = trained(tmp_path / "pairs", train_dataset=grouped, **SETTINGS)
    for made in (copied, pairs):
        assert np.corrcoef(once.clean_probability, made.clean_probability[:240])[0, 1] > 0.9
        # who repeats a wrong label does not make it right
        assert abs(once.clean_probability[:60].mean() - made.clean_probability[240:].mean()) < 0.1


def test_a_single_epoch_is_not_spent_on_finding_wrong_labels(tmp_path):
    settings = {**SETTINGS, "num_train_epochs": 1, "warm_up_epochs": 0.2}
    made = trained(tmp_path, train_dataset=noisy(240, 0, 0.4), **settings)
    assert made.cleanliness.epoch == 0
    assert made.doubted


def test_right_labels_are_not_doubted(tmp_path):
    data, held_out = rows(240, 0), rows(90, 1)
    settings = {**SETTINGS, "doubt_above": 0.1}  # so few rows say little
    made = trained(tmp_path, train_dataset=data, eval_dataset=held_out, **settings)
    plain = trained(
        tmp_path / "plain",
        train_dataset=data,
        eval_dataset=held_out,
        **{**SETTINGS, "clean_routing": False},
    )
    assert made.cleanliness.noise_rate < 0.1
    assert not made.doubted
    assert all(torch.equal(w, weights(plain)[name]) for name, w in weights(made).items())


def test_the_model_judges_itself_where_it_is_told_to(tmp_path):
    made = trained(tmp_path, train_dataset=noisy(60, 0, 0.4), **{**SETTINGS, "judge": "model"})
    assert made.judge == "final_model"


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
        states = made.eval()(**inputs, output_hidden_states=True).hidden_states
    features = hidden_features(made, data, collate, batch_size=4, lengths=None, prepare=dict)
    probed = probed_layers(len(states))
    assert features.shape == (10, len(probed), states[-1].shape[2])
    for place, layer in enumerate(probed):
        assert torch.allclose(features[:, place], states[layer].mean(dim=1), atol=1e-5)


def test_the_middle_and_the_last_two_layers_are_probed():
    assert probed_layers(7) == [3, 5, 6]
    assert probed_layers(13) == [6, 11, 12]
    assert probed_layers(2) == [0, 1]
    assert probed_layers(1) == [0]


def test_a_model_that_contradicts_no_label_doubts_none(tmp_path):
    labels = np.arange(40) % 5
    args = CleaRConfig(output_dir=str(tmp_path), use_cpu=True, report_to="none")
    for first in (0, 1):  # every label likeliest, every label second
        logits = torch.rand(40, 5, generator=torch.Generator().manual_seed(0))
        logits[range(40), labels] += 2.0
        logits[range(40), (labels + 1) % 5] += 4.0 * first
        state = judged(logits, labels, (logits[:7], labels[:7]), ESTIMATOR, args, epoch=1)
        assert state.components == 1 + first
        assert state.parameters["contradicted"] == first
        assert np.allclose(state.losses, cross_entropy(logits, torch.from_numpy(labels)))
        assert np.allclose(state.validation_probability, state.clean_probability[:7])
        assert first or (state.clean_probability == 1).all()


@pytest.mark.parametrize(("above", "components"), [(0.0, 2), (0.9, 1)])
def test_few_doubts_are_told_but_not_trained_by(tmp_path, above, components):
    rng = np.random.default_rng(0)
    predicted, labels = rng.dirichlet(np.ones(3), 50), rng.integers(0, 3, 50)
    noise = NoiseModel("symmetric", SYMMETRIC)
    args = CleaRConfig(output_dir=str(tmp_path), use_cpu=True, report_to="none", doubt_above=above)
    p = noise.clean_probability(predicted, labels)
    halves = np.arange(0, 50, 2), np.arange(1, 50, 2)
    judgements = [(rows, Judgement(predicted[rows], p[rows])) for rows in halves]
    held_out = Judgement(predicted[:7], p[:7]), labels[:7]
    state = judged_by_probe(noise, (0.1, 0.9), judgements, labels, held_out, args, epoch=1)
    assert state.components == components
    assert np.allclose(state.clean_probability, noise.posterior(predicted, labels)[range(50), labels])
    assert np.allclose(state.validation_probability, state.clean_probability[:7])
    assert state.noise_rate > 0.1


@pytest.mark.parametrize("kind", ["symmetric", "class_conditional"])
def test_the_target_is_the_posterior_of_the_true_class(tmp_path, kind):
    made = trained(tmp_path, train_dataset=noisy(60, 0, 0.4), **SETTINGS)
    rng = np.random.default_rng(0)
    predicted, labels = rng.dirichlet(np.ones(3), 60), np.array(made.train_dataset["labels"])
    noise = NoiseModel(kind, SYMMETRIC if kind == "symmetric" else FLIPS)
    judgement = Judgement(predicted, noise.clean_probability(predicted, labels))
    nobody = Judgement(predicted[:0], np.zeros(0)), labels[:0]
    known = [(np.arange(60), judgement)]
    state = judged_by_probe(noise, (0.1, 0.9), known, labels, nobody, made.args, epoch=1)
    made._set_state(state)
    targets = made._targets(torch.from_numpy(labels), torch.arange(60))
    assert np.allclose(targets, noise.posterior(predicted, labels), atol=2e-3)  # the teacher is in float16


def test_features_that_are_not_finite_stop_with_a_sentence(tmp_path, monkeypatch):
    monkeypatch.setattr(CleaRTrainer, "_pass_over", lambda *_: torch.full((60, 4), torch.nan))
    with pytest.raises(InputError, match="features on the training set are not finite"):
        trained(tmp_path, train_dataset=noisy(60, 0, 0.4), **SETTINGS)


class _Outputs(dict):
    """What a model without hidden states to give out returns."""


def test_a_model_without_hidden_states_has_no_features():
    data = rows(6).remove_columns("labels").add_column("clear_example_id", np.arange(6))
    made = model()
    made.forward = lambda **inputs: _Outputs(logits=torch.zeros(len(inputs["input_ids"]), 3))

    def collate(batch):
        return {name: torch.tensor([row[name] for row in batch]) for name in batch[0]}

    assert hidden_features(made, data, collate, batch_size=4, lengths=None, prepare=dict) is None


@given(st.lists(st.integers(0, 4), min_size=1, max_size=80), st.integers(1, 90), st.integers(0, 3))
def test_blocks_hold_every_row_once_in_order(labels, most, seed):
    labels = np.array(labels)
    parts = blocks(labels, seed, most)
    assert np.array_equal(np.sort(np.concatenate(parts)), np.arange(len(labels)))
    assert all(len(part) <= most and (np.diff(part) > 0).all() for part in parts)
    assert len(parts) == -(-len(labels) // most)


def test_the_first_block_knows_rare_classes():
    labels = np.repeat([0, 1, 2], [9000, 960, 40])
    first, *_ = blocks(labels, 0, 1000)
    counts = np.bincount(labels[first])
    assert counts[2] == 40
    assert counts[1] >= 50
    assert counts[0] > 800


def test_more_rows_than_a_probe_is_fitted_to_are_judged_alike(tmp_path, monkeypatch):
    whole = trained(tmp_path, train_dataset=noisy(300, 0, 0.3), **SETTINGS)
    passed = []
    own = CleaRTrainer._pass_over

    def pass_over(*arguments):
        passed.append(arguments[-1])
        return own(*arguments)

    monkeypatch.setattr(CleaRTrainer, "_pass_over", pass_over)
    monkeypatch.setattr(probing, "blocks", partial(blocks, most=120))
    parted = trained(tmp_path, train_dataset=noisy(300, 0, 0.3), **SETTINGS)
    assert [len(rows) for rows in passed if isinstance(rows, np.ndarray) and len(rows) < 300] == [
        120,
        120,
        60,
    ]
    one, other = whole.cleanliness, parted.cleanliness
    assert one.components == other.components == 2
    assert np.corrcoef(one.clean_probability, other.clean_probability)[0, 1] > 0.8
    assert (one.teacher.predicted == other.teacher.predicted).float().mean() > 0.8
