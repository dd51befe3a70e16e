"""Rows that a person has looked at, in training: believed as they are, in targets, sampling and gates."""

import numpy as np
import pytest
import torch
from test_two_processes import noisy_rows
from toy import rows, trainer

from clear_peft.errors import InputError
from clear_peft.trainer.estimators import blocks

SIZE = 60
PROBE = {
    "label_estimator": "probe",
    "restart": True,
    "probe_init": True,
    "ema_epochs": 1.4,
    "reestimate_every_epoch": False,
    "noise_threshold": 0.0,
}


def made(tmp_path, verified, **settings):
    data = noisy_rows(SIZE).add_column("verified", verified)
    return trainer(tmp_path, train_dataset=data, **PROBE | settings)


@pytest.fixture
def true_labels():
    return np.arange(SIZE) % 3


@pytest.fixture
def verified(true_labels):
    looked = np.random.default_rng(3).choice(SIZE, 15, replace=False)
    found = np.full(SIZE, -1)
    found[looked] = true_labels[looked]
    return found


def test_targets_and_confidence_are_what_was_found(tmp_path, verified):
    run = made(tmp_path, verified)
    run.train()
    looked = np.flatnonzero(verified >= 0)
    labels = run.store.rows.labels
    quality = run.label_quality
    assert np.array_equal(quality.verified, verified)
    assert np.array_equal(quality.clean_probability[looked], (labels == verified)[looked].astype(np.float32))
    assert (labels != verified)[looked].any(), "some of the given labels are wrong, or nothing is tested"
    ids = torch.from_numpy(looked)
    targets = run.store.soft_labels(torch.from_numpy(labels[looked]), ids)
    expected = torch.nn.functional.one_hot(torch.from_numpy(verified[looked]), 3).float()
    torch.testing.assert_close(targets, expected, atol=1e-3, rtol=0)
    torch.testing.assert_close(run.store.confidence[ids], torch.ones(len(looked)), atol=1e-3, rtol=0)


def test_nobody_has_looked_is_no_column_bitwise(tmp_path):
    without = trainer(tmp_path, train_dataset=noisy_rows(SIZE), **PROBE)
    without.train()
    run = made(tmp_path, np.full(SIZE, -1))
    run.train()
    for one, other in zip(without.model.parameters(), run.model.parameters(), strict=True):
        assert torch.equal(one, other)
    assert run.label_quality.verified is None


def test_resumes_with_what_was_found(tmp_path, verified):
    whole = made(tmp_path / "whole", verified, num_train_epochs=3)
    whole.train()
    first = made(tmp_path / "run", verified, num_train_epochs=3, save_strategy="epoch")
    first.train()
    second = made(tmp_path / "run", verified, num_train_epochs=3, save_strategy="epoch")
    second.train(resume_from_checkpoint=str(tmp_path / "run" / "checkpoint-16"))
    for one, other in zip(whole.model.parameters(), second.model.parameters(), strict=True):
        assert torch.equal(one, other)
    assert np.array_equal(second.label_quality.verified, verified)


@pytest.mark.parametrize("wrong", [np.full(SIZE, 3), np.full(SIZE, -2), np.full(SIZE, 0.5)])
def test_what_is_no_class_is_refused(tmp_path, wrong):
    with pytest.raises(InputError, match="column verified"):
        made(tmp_path, wrong)


def test_all_of_them_are_in_the_block_that_is_fitted_to():
    verified = np.full(1000, -1)
    verified[900:] = 1
    first, *others = blocks(np.arange(1000) % 3, 0, 150, verified)
    assert len(first) == 150
    assert set(range(900, 1000)) <= set(first.tolist())
    assert sorted(np.concatenate([first, *others])) == list(range(1000))


def test_the_column_is_no_input_of_the_model(tmp_path, verified):
    run = made(tmp_path, verified)
    batch = next(iter(run.get_train_dataloader()))
    assert "verified" not in batch
    assert rows(3).column_names == ["input_ids", "attention_mask", "labels"]
