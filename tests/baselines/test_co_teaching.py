"""Co-teaching: who learns what of whom."""

import numpy as np
import peft
import pytest
import torch
from safetensors.torch import load_file, save
from transformers import TrainerCallback

from clear_peft.baselines.co_teaching import CoTeachingOptions, CoTeachingTrainer, another_start
from clear_peft.errors import InputError
from clear_peft.trainer import CleaRConfig
from clear_peft.tuners import available_methods, build
from tiny_models import tiny
from trainer.toy import model, rows, weights


def trainer(tmp_path, *, start=None, callbacks=None, options=None, **settings):
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
        "loss_options": {"noise_rate": 0.5, "ramp_epochs": 2} if options is None else options,
    }
    return CoTeachingTrainer(
        model=model() if start is None else start,
        args=CleaRConfig(**{**defaults, **settings}),
        train_dataset=rows(),
        callbacks=callbacks,
    )


def peer_weights(made):
    return {n: p.detach().clone() for n, p in made._peer.named_parameters() if p.requires_grad}


def equal(first, second):
    return first.keys() == second.keys() and all(torch.equal(first[n], second[n]) for n in first)


def logits_with_losses(losses):
    """Label 0; the third class has no probability."""
    columns = [torch.zeros(len(losses)), torch.tensor(losses).expm1().log(), torch.full((len(losses),), -1e4)]
    return torch.stack(columns, dim=1).requires_grad_()


def test_each_learns_what_its_peer_finds_easiest(tmp_path):
    made = trainer(tmp_path, options={"noise_rate": 0.5, "ramp_epochs": 0})
    own = logits_with_losses([0.1, 2.0, 0.2, 3.0])
    made._peer_logits = peers = logits_with_losses([1.5, 0.3, 2.5, 0.4])
    loss = made.per_example_loss(own, torch.zeros(4, dtype=torch.int64), torch.arange(4))
    # the peer finds 1 and 3 easiest, and we 0 and 2; the mean over two of four
    torch.testing.assert_close(loss, 2 * torch.tensor([1.5, 2.0, 2.5, 3.0]))
    loss.sum().backward()
    assert (own.grad != 0).any(dim=1).tolist() == [False, True, False, True]
    assert (peers.grad != 0).any(dim=1).tolist() == [True, False, True, False]


def test_the_dropped_share_grows_to_the_noise_rate():
    options = CoTeachingOptions(noise_rate=0.4, ramp_epochs=2)
    assert [options.dropped(epoch) for epoch in (0, 0.5, 1, 2, 9)] == [0, 0.1, 0.2, 0.4, 0.4]
    assert CoTeachingOptions(noise_rate=0.4).ramp_epochs == 3


def test_without_wrong_labels_two_networks_train_that_do_not_know_each_other(tmp_path):
    # without dropout, which draws from one generator
    start = build(tiny("bert")[0], "adapter").eval()
    for module in start.modules():
        if isinstance(module, torch.nn.Dropout):
            module.p = 0.0
    together = trainer(tmp_path, start=start, options={"noise_rate": 0.0}, max_grad_norm=0.1)
    alone = trainer(
        tmp_path,
        start=another_start(start, together.args.seed + 1),
        options={"noise_rate": 0.0},
        max_grad_norm=0.1,
    )
    together.train()
    alone.train()
    for name, value in peer_weights(together).items():
        torch.testing.assert_close(value, weights(alone)[name], atol=1e-6, rtol=1e-5, msg=name)
    assert not equal(weights(together), peer_weights(together))


@pytest.mark.parametrize(
    "method", [m for m in ("lora", "adapter", "bitfit", "hra", "osf", "deft") if m in available_methods()]
)
def test_another_start_is_that_of_the_pretrained_model_with_another_head(method):
    base, batch = tiny("bert")
    first = build(base, method).eval()
    before = {name: p.clone() for name, p in first.named_parameters()}
    other = another_start(first, 1).eval()
    with torch.no_grad():
        bodies = [m.get_base_model().bert(**batch).last_hidden_state for m in (first, other)]
        assert torch.equal(*bodies)
        assert not torch.equal(first(**batch).logits, other(**batch).logits)
    assert equal(before, dict(first.named_parameters()))
    for (_, own), (_, theirs) in zip(first.named_parameters(), other.named_parameters(), strict=True):
        assert (own is theirs) == (not own.requires_grad)


def test_another_start_has_another_adapter_of_the_same_spread():
    first = build(tiny("bert")[0], "lora")
    other = dict(another_start(first, 1).named_parameters())
    for name, matrix in first.named_parameters():
        if "lora_A" in name:
            assert not torch.equal(matrix, other[name])
            assert 0.5 < matrix.std() / other[name].std() < 2
        if "lora_B" in name:
            assert not other[name].any()


def test_training_trains_both_and_saves_an_ordinary_adapter(tmp_path):
    made = trainer(tmp_path)
    first, second = weights(made), peer_weights(made)
    made.train()
    assert not equal(weights(made), first)
    assert not equal(peer_weights(made), second)
    made.save_model(str(tmp_path / "adapter"))
    loaded = peft.PeftModel.from_pretrained(tiny("bert")[0], tmp_path / "adapter").eval()
    batch = tiny("bert")[1]
    made.model.eval()
    with torch.no_grad():
        assert torch.equal(loaded(**batch).logits, made.model(**batch).logits)
    assert np.isfinite(made.estimate.train.clean_probability).all()


class StopAfter(TrainerCallback):
    def __init__(self, epochs):
        self.epochs = epochs

    def on_save(self, args, state, control, **_):
        control.should_training_stop = state.epoch >= self.epochs


@pytest.mark.parametrize(
    ("stop_at", "saving"),
    [(1, {"save_strategy": "epoch"}), (1.1, {"save_strategy": "steps", "save_steps": 4})],
)
def test_resumed_training_ends_where_undisturbed_training_does(tmp_path, stop_at, saving):
    whole = trainer(tmp_path / "whole", **saving)
    whole.train()
    trainer(tmp_path / "cut", callbacks=[StopAfter(stop_at)], **saving).train()
    resumed = trainer(tmp_path / "cut", **saving)
    resumed.train(resume_from_checkpoint=True)
    assert equal(weights(whole), weights(resumed))
    assert equal(peer_weights(whole), peer_weights(resumed))


def test_a_checkpoint_without_the_peer_is_refused(tmp_path):
    trainer(tmp_path, num_train_epochs=1, save_strategy="epoch").train()
    path = next(tmp_path.rglob("clear_state.safetensors"))
    tensors = load_file(path)
    assert any(name.startswith("peer/") for name in tensors)
    for left in ({n: t for n, t in tensors.items() if not n.startswith("peer/")}, None):
        path.write_bytes(b"half" if left is None else save(left))
        with pytest.raises(InputError, match=r"clear_state\.safetensors"):
            trainer(tmp_path, save_strategy="epoch").train(resume_from_checkpoint=True)


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"options": {}}, "has to be told the noise_rate: give loss_options"),
        ({"options": {"noise_rate": 1.0}}, "noise_rate is 1.0"),
        ({"options": {"noise_rate": 0.1, "rate": 1}}, "no option rate: choose from noise_rate, ramp_epochs"),
        ({"loss": "gce"}, "leave out loss 'gce'"),
        ({"clean_routing": True}, "set clean_routing=False"),
        ({"start": tiny("bert")[0]}, "give a PEFT model"),
    ],
)
def test_wrong_input_is_one_sentence(tmp_path, settings, words):
    with pytest.raises(InputError, match=words):
        trainer(tmp_path, **settings)


class _Memory(TrainerCallback):
    """Runs out of memory once, after a backward; remembers the peer at each beginning."""

    def __init__(self):
        self.starts, self.enough = [], False

    def on_step_begin(self, args, state, control, **_):
        if state.global_step == 0 and not any(p.grad is not None for p in self.made.model.parameters()):
            gradients = [p.grad for p in self.made._peer.parameters() if p.grad is not None and p.grad.any()]
            self.starts.append((peer_weights(self.made), len(gradients)))

    def on_pre_optimizer_step(self, args, state, control, **_):
        if state.global_step == 2 and not self.enough:
            self.enough = True
            raise RuntimeError("CUDA out of memory.")


def test_both_networks_begin_again_with_a_smaller_batch(tmp_path):
    memory = _Memory()
    memory.made = trainer(tmp_path, callbacks=[memory], auto_find_batch_size=True)
    memory.made.train()
    (first, _), (again, gradients) = memory.starts
    assert equal(first, again)
    assert gradients == 0
