"""SelfMix: what is kept, what is guessed, what is mixed."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.nn.functional import cross_entropy, kl_div
from transformers import TrainerCallback

from clear_peft.baselines.selfmix import SelfMixTrainer, disagreement
from clear_peft.errors import InputError
from clear_peft.label_quality import MixtureEstimate
from clear_peft.trainer import CleaRConfig, CleaRTrainer, Phase
from clear_peft.trainer.head import find_head
from clear_peft.tuners import build
from tiny_models import tiny
from trainer.toy import Constant, model, model_without_dropout, rows, weights


class Doubts:
    """Doubts every second label."""

    def estimate(self, losses, labels=None):
        p = np.where(np.arange(len(losses)) % 2, 0.1, 0.9).astype(np.float32)
        return MixtureEstimate(p, 2, {})


def trainer(tmp_path, *, start=None, callbacks=None, by=None, kind=SelfMixTrainer, **settings):
    defaults = {
        "output_dir": str(tmp_path),
        "num_train_epochs": 3,
        "per_device_train_batch_size": 4,
        "gradient_accumulation_steps": 2,
        "learning_rate": 1e-2,
        "use_cpu": True,
        "save_strategy": "no",
        "report_to": "none",
        "disable_tqdm": True,
        "dataloader_pin_memory": False,
        "clean_routing": False,
        "loss_ema": 0.0,
        "warm_up_epochs": 1,
    }
    return kind(
        model=model() if start is None else start,
        args=CleaRConfig(**{**defaults, **settings}),
        train_dataset=rows(),
        mixture=Doubts() if by is None else by,
        callbacks=callbacks,
    )


def equal(first, second):
    return first.keys() == second.keys() and all(torch.equal(first[n], second[n]) for n in first)


def spied(made, check):
    """Let a check see each batch: its loss, logits, labels, ids, and what the head was given in turn."""
    given, loss = [], made.per_example_loss
    find_head(made.model).register_forward_hook(lambda _, inputs, outputs: given.append((inputs[0], outputs)))

    def spy(logits, labels, ids):
        found = loss(logits, labels, ids)
        check(found, logits, labels, ids, given[-3:])
        return found

    made.per_example_loss = spy


def test_the_loss_by_hand(tmp_path, monkeypatch):
    made = trainer(
        tmp_path,
        warm_up_epochs=0,
        num_train_epochs=1,
        soft_labels=False,  # every row once
        loss_options={"pseudo_weight": 0.7, "agreement_weight": 0.4, "temperature": 0.25},
    )
    share, checked = 0.8, []
    monkeypatch.setattr(torch.distributions.Beta, "sample", lambda _: torch.tensor(1 - share))
    monkeypatch.setattr(torch, "randperm", lambda size: torch.arange(size).roll(1))

    def check(loss, logits, labels, ids, given):
        (_, second), (embedding, first), (mixed, mixed_logits) = given
        assert torch.equal(first, logits)
        assert not torch.equal(first, second), "each forward has its own dropout"
        others = torch.arange(len(ids)).roll(1)
        torch.testing.assert_close(mixed, share * embedding + (1 - share) * embedding[others])
        targets = torch.nn.functional.one_hot(labels, 3).float()
        pseudo = torch.softmax(made.store.predicted_logits(ids) / 0.25, 1)
        wrong = ids % 2 == 1  # by estimate
        targets[wrong] = pseudo[wrong]
        both = share * targets + (1 - share) * targets[others]
        expected = cross_entropy(mixed_logits, both, reduction="none")
        for i in torch.nonzero(wrong).flatten():
            likely = pseudo[i].argmax()
            guessed = (cross_entropy(logits[i], likely) + cross_entropy(second[i], likely)) / 2
            logs = logits[i].log_softmax(0), second[i].log_softmax(0)
            apart = sum(kl_div(a, b, log_target=True, reduction="sum") for a, b in (logs, logs[::-1]))
            expected[i] += 0.7 * guessed + 0.4 * apart / 2
        torch.testing.assert_close(loss, expected)
        checked.extend(ids.tolist())

    spied(made, check)
    made.train()
    assert sorted(checked) == list(range(22))


@pytest.mark.parametrize("architecture", ["bert", "roberta", "distilbert", "deberta-v2", "modernbert"])
def test_what_is_mixed_is_what_the_logits_come_from(tmp_path, architecture):
    start, seen = build(tiny(architecture)[0], "lora"), []
    made = trainer(tmp_path, start=start, warm_up_epochs=0, num_train_epochs=1)
    head = find_head(made.model)

    def check(loss, logits, labels, ids, given):
        seen.append(torch.equal(head(given[1][0]), logits))

    spied(made, check)
    hooks = len(head._forward_hooks)
    made.train()
    assert seen == [True] * 6
    assert len(head._forward_hooks) == hooks


@pytest.mark.parametrize("own", [0, 3])
def test_rows_that_fill_up_a_batch_are_not_learnt(tmp_path, own):
    made = trainer(tmp_path, warm_up_epochs=0, start=model_without_dropout())
    assert made.estimate.noise_found
    assert made.phase is Phase.ROBUST
    batch = made.data_collator([made.train_dataset[i] for i in range(4)])
    batch["labels"] = batch["labels"][:own]
    loss = made.training_step(made.model, batch, torch.tensor(own))
    learnt = [p.grad.abs().sum() > 0 for p in made.model.parameters() if p.grad is not None]
    assert loss.isfinite()
    assert learnt
    assert any(learnt) == (own > 0)


def test_warm_up_is_plain_training(tmp_path):
    plain = trainer(tmp_path, kind=CleaRTrainer, warm_up_epochs=3)
    plain.train()
    warm = trainer(tmp_path, warm_up_epochs=3)
    warm.train()
    assert equal(weights(plain), weights(warm))


def test_it_scores_after_every_epoch_from_the_warm_up_on(tmp_path):
    estimator = Constant(0.9)
    made = trainer(tmp_path, by=estimator, num_train_epochs=4, warm_up_epochs=2, reestimate_every_epoch=True)
    before = weights(made)
    made.train()
    assert len(estimator.seen) == 3
    assert made.estimate.epoch == 4
    assert not equal(before, weights(made))


class StopAfter(TrainerCallback):
    def __init__(self, epochs):
        self.epochs = epochs

    def on_save(self, args, state, control, **_):
        control.should_training_stop = state.epoch >= self.epochs


@pytest.mark.parametrize(
    ("stop_at", "saving"),
    [(2, {"save_strategy": "epoch"}), (1.1, {"save_strategy": "steps", "save_steps": 4})],
)
def test_resumed_training_ends_where_undisturbed_training_does(tmp_path, stop_at, saving):
    whole = trainer(tmp_path / "whole", **saving)
    whole.train()
    trainer(tmp_path / "cut", callbacks=[StopAfter(stop_at)], **saving).train()
    resumed = trainer(tmp_path / "cut", **saving)
    resumed.train(resume_from_checkpoint=True)
    assert equal(weights(whole), weights(resumed))
    assert np.array_equal(whole.estimate.losses, resumed.estimate.losses)


@given(st.integers(0, 1000))
def test_disagreement_is_a_symmetric_distance(seed):
    first, second = torch.randn(2, 5, 4, generator=torch.Generator().manual_seed(seed)) * 3
    torch.testing.assert_close(disagreement(first, second), disagreement(second, first))
    assert (disagreement(first, second) > 0).all()
    assert not disagreement(first, first + 1).abs().max() > 1e-5


@pytest.mark.parametrize("warm_up", [0, 1])
def test_a_causal_model_is_refused_in_the_first_step(tmp_path, warm_up):
    made = trainer(tmp_path, start=model("llama"), warm_up_epochs=warm_up)
    with pytest.raises(InputError, match="mixes one vector per text"):
        made.train()
    assert made.state.global_step == 0


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"loss_options": {"alpha": 0}}, "alpha is 0"),
        ({"loss_options": {"beta": 0}}, "no option beta"),
        ({"clean_routing": True}, "set clean_routing=False"),
        ({"class_weights": "balanced"}, "leave out class_weights"),
    ],
)
def test_wrong_input_is_one_sentence(tmp_path, settings, words):
    with pytest.raises(InputError, match=words):
        trainer(tmp_path, **settings)
