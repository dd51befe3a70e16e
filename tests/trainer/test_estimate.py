"""Which labels look wrong: by a probe that was not fitted to the label in question, or by losses."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from datasets import Dataset
from hypothesis import given
from hypothesis import strategies as st
from sklearn.metrics import roc_auc_score
from toy import model, rows, trained, weights

from clear_peft.errors import RunFailedError
from clear_peft.label_quality import GaussianLossMixture, LabelQuality, NoiseModel, TopProbs, fit_probe
from clear_peft.losses import cross_entropy
from clear_peft.trainer import CleaRConfig, Phase, estimators, row_passes
from clear_peft.trainer.estimators import blocks, estimate_by_losses, estimate_by_probe
from clear_peft.trainer.passes import hidden_features, probed_layers
from clear_peft.trainer.store import Rows

MIXTURE = GaussianLossMixture()
SYMMETRIC = np.full((3, 3), 0.2) + 0.4 * np.eye(3)
FLIPS = np.array([[0.7, 0.2, 0.1], [0.1, 0.6, 0.3], [0.4, 0.1, 0.5]])
SETTINGS = {
    "warm_up_epochs": 1,
    "restart": True,
    "reestimate_every_epoch": False,
    "num_train_epochs": 2,
    "per_device_train_batch_size": 32,
    "gradient_accumulation_steps": 1,
    "compute_metrics": lambda e: {"accuracy": float((e.predictions.argmax(1) == e.label_ids).mean())},
    "learning_rate": 1e-7,  # the model itself learns nothing
    "label_estimator": "probe",
    "by": MIXTURE,
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
    assert abs(made.estimate.train.noise_rate - 0.4) < 0.15  # of 240 rows
    assert made.phase is Phase.ROBUST
    wrong = np.array(data["labels"]) != np.array(rows(240, 0)["labels"])
    assert roc_auc_score(wrong, -made.estimate.train.clean_probability) > 0.75
    assert made.estimate.train.source == "probe"
    assert len(made.estimate.validation_weights) == (90 if validated else 0)
    assert (made.estimate.validation is None) is not validated
    if validated:
        unseen = np.array(held_out["labels"]) != np.array(rows(90, 1)["labels"])
        assert roc_auc_score(unseen, -made.estimate.validation.clean_probability) > 0.75


def test_copies_do_not_vouch_for_each_other(tmp_path):
    data = noisy(240, 0, 0.4)
    once = trained(tmp_path / "once", train_dataset=data, **SETTINGS)
    rows_read = np.concatenate([np.arange(240), np.repeat(np.arange(60), 8)])
    copied = trained(tmp_path / "copied", train_dataset=data.select(rows_read), **SETTINGS)
    grouped = data.select(rows_read).add_column("group", rows_read // 2)
    pairs = trained(tmp_path / "pairs", train_dataset=grouped, **SETTINGS)
    p = once.estimate.train.clean_probability
    for made in (copied, pairs):
        again = made.estimate.train.clean_probability
        assert np.corrcoef(p, again[:240])[0, 1] > 0.9
        # who repeats a wrong label does not make it right
        assert abs(p[:60].mean() - again[240:].mean()) < 0.1


def test_a_single_epoch_is_not_spent_on_finding_wrong_labels(tmp_path):
    settings = {**SETTINGS, "num_train_epochs": 1, "warm_up_epochs": 0.2}
    made = trained(tmp_path, train_dataset=noisy(240, 0, 0.4), **settings)
    assert made.estimate.epoch == 0
    assert made.phase is Phase.ROBUST


def test_right_labels_are_not_doubted(tmp_path):
    data, held_out = rows(240, 0), rows(90, 1)
    settings = {**SETTINGS, "noise_threshold": 0.1}  # so few rows say little
    made = trained(tmp_path, train_dataset=data, eval_dataset=held_out, **settings)
    plain = trained(
        tmp_path / "plain",
        train_dataset=data,
        eval_dataset=held_out,
        **{**SETTINGS, "clean_routing": False},
    )
    assert made.estimate.train.noise_rate < 0.1
    assert made.phase is Phase.CONTINUE
    assert all(torch.equal(w, weights(plain)[name]) for name, w in weights(made).items())


def test_its_own_losses_count_where_the_model_is_told_so(tmp_path):
    made = trained(tmp_path, train_dataset=noisy(60, 0, 0.4), **{**SETTINGS, "label_estimator": "losses"})
    assert made.estimate.train.source == "final_model"


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


def given_rows(labels, classes, **more):
    return Rows(Dataset.from_dict({"labels": labels, **more}), classes, "length", "training")


def test_a_model_that_contradicts_no_label_doubts_none(tmp_path):
    labels = np.arange(40) % 5
    args = CleaRConfig(output_dir=str(tmp_path), use_cpu=True, report_to="none")
    for first in (0, 1):  # every label likeliest, every label second
        logits = torch.rand(40, 5, generator=torch.Generator().manual_seed(0))
        logits[range(40), labels] += 2.0
        logits[range(40), (labels + 1) % 5] += 4.0 * first
        held_out = logits[:7], given_rows(labels[:7], 5)
        found = estimate_by_losses(
            logits, given_rows(labels, 5), held_out, MIXTURE, args, epoch=1, before=None
        )
        assert found.noise_found == bool(first)
        assert found.parameters["contradicted"] == first
        assert np.allclose(found.losses, cross_entropy(logits, torch.from_numpy(labels)))
        assert np.allclose(found.validation.clean_probability, found.train.clean_probability[:7])
        assert np.array_equal(found.validation_weights, found.validation.clean_probability)
        assert np.allclose(found.train.self_confidence, torch.softmax(logits, 1)[range(40), labels])
        assert np.allclose(found.train.pred_probs.dense(), torch.softmax(logits, 1))
        assert first or (found.train.clean_probability == 1).all()


@pytest.mark.parametrize(("threshold", "noise_found"), [(0.0, True), (0.9, False)])
def test_what_a_probe_says_is_kept_whether_training_makes_use_of_it_or_not(tmp_path, threshold, noise_found):
    """That of ``fit_probe``, in which every row is judged without its group; validation rows by the same."""
    rng = np.random.default_rng(0)
    true, labels = rng.integers(0, 3, 150), rng.integers(0, 3, 150)
    labels = np.where(rng.random(150) < 0.6, true, labels)
    features = (
        rng.normal(size=(150, 2, 8)).astype(np.float32) + 2 * np.eye(8, dtype=np.float32)[true][:, None]
    )
    known = given_rows(labels[:120], 3, group=np.arange(120) // 2)
    held_out = given_rows(labels[120:], 3)
    args = CleaRConfig(str(tmp_path), use_cpu=True, report_to="none", noise_threshold=threshold)

    def features_of(rows):
        return torch.from_numpy(features[120:] if rows is None else features[:120][rows])

    found = estimate_by_probe(features_of, known, held_out, 3, args, epoch=1, decides=True)
    assert found.noise_found == noise_found
    assert found.train.noise_rate > 0.1
    probe, quality = fit_probe(
        features[:120], labels[:120], 3, groups=np.arange(120) // 2, copies=np.arange(120)
    )
    assert np.array_equal(found.train.clean_probability, quality.clean_probability)
    assert np.array_equal(found.train.pred_probs.dense(), quality.pred_probs.dense())
    assert found.train.noise_rate_interval == quality.noise_rate_interval
    assert np.allclose(found.losses, -np.log(found.train.self_confidence))
    unseen = probe.judge(features[120:], labels[120:])
    assert np.allclose(found.validation.clean_probability, unseen.clean_probability)
    assert np.allclose(found.validation.pred_probs.dense(), unseen.pred_probs)
    assert np.array_equal(found.validation_weights, found.validation.clean_probability)
    passed = []
    others = estimate_by_probe(
        lambda rows: passed.append(rows) or features_of(rows),
        known,
        held_out,
        3,
        args,
        epoch=1,
        decides=False,
    )
    assert others is None
    assert len(passed) == 2, "who does not decide takes part in all passes"


@pytest.mark.parametrize("kind", ["symmetric", "class_conditional"])
def test_the_target_is_the_posterior_of_the_true_class(tmp_path, kind):
    made = trained(tmp_path, train_dataset=noisy(60, 0, 0.4), **SETTINGS)
    rng = np.random.default_rng(0)
    predicted, labels = rng.dirichlet(np.ones(3), 60), np.array(made.train_dataset["labels"])
    noise = NoiseModel(kind, SYMMETRIC if kind == "symmetric" else FLIPS)
    p = noise.clean_probability(predicted, labels).astype(np.float32)
    own = predicted[range(60), labels].astype(np.float32)
    quality = LabelQuality(labels, TopProbs.of(predicted), own, p, noise, (0.1, 0.9), np.arange(60))
    made.store.set_estimate(replace(made.estimate, train=quality))
    targets = made.store.soft_labels(torch.from_numpy(labels), torch.arange(60))
    posterior = noise.posterior(predicted, labels)
    assert np.allclose(targets, posterior, atol=2e-3)  # what is predicted is kept as logits in float16
    assert np.allclose(made.store.confidence, posterior.max(axis=1), atol=2e-3)


def test_features_that_are_not_finite_stop_with_a_sentence(tmp_path, monkeypatch):
    monkeypatch.setattr(row_passes, "hidden_features", lambda *_, **__: torch.full((60, 1, 4), torch.nan))
    with pytest.raises(RunFailedError, match="features on the training set are not finite"):
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


def test_the_probability_of_a_given_label_is_exact_with_many_classes():
    """Of more than 64 classes the likeliest alone are kept, and a wrong label is seldom among these."""
    classes, rng = 100, np.random.default_rng(0)
    labels = np.arange(1000) % classes
    features = rng.normal(size=(classes, 16))[labels] + 0.3 * rng.normal(size=(1000, 16))
    labels[::5] = rng.integers(0, classes, 200)
    data = Dataset.from_dict({"label_ids": labels, "input_ids": [[i] for i in range(1000)]})
    features = torch.from_numpy(features).float()
    found = estimate_by_probe(
        lambda some: None if some is None else features[some],
        Rows(data, classes, "length", "training"),
        None,
        classes,
        CleaRConfig(use_cpu=True),
        epoch=0,
        decides=True,
    )
    _, quality = fit_probe(features.numpy(), labels, classes, groups=np.arange(1000))
    assert np.array_equal(found.train.self_confidence, quality.self_confidence)
    assert found.losses.max() < 50


def test_more_rows_than_a_probe_is_fitted_to_are_judged_alike(tmp_path, monkeypatch):
    whole = trained(tmp_path, train_dataset=noisy(300, 0, 0.3), **SETTINGS)
    passed = []

    def read(*arguments, rows=None, **options):
        passed.append(len(rows))
        return hidden_features(*arguments, rows=rows, **options)

    monkeypatch.setattr(row_passes, "hidden_features", read)
    monkeypatch.setattr(estimators, "MOST_ROWS", 120)
    parted = trained(tmp_path, train_dataset=noisy(300, 0, 0.3), **SETTINGS)
    assert passed == [120, 120, 60]
    one, other = whole.estimate, parted.estimate
    assert one.noise_found
    assert other.noise_found
    assert np.corrcoef(one.train.clean_probability, other.train.clean_probability)[0, 1] > 0.8
    assert (one.train.predicted == other.train.predicted).mean() > 0.8
    # every row in its own place
    own = other.train.pred_probs.dense()[range(300), other.train.given]
    assert np.allclose(own, other.train.self_confidence)
    assert np.array_equal(other.train.given, whole.train_dataset["labels"])
