"""What a full disk, a ruined step and a resumed run leave behind."""

import errno
import os

import pytest
import torch
from safetensors import SafetensorError

from clear_peft.errors import InputError, RunFailedError
from clear_peft.pipeline import train
from clear_peft.pipeline.progress import Silent
from clear_peft.pipeline.splits import read_tables
from clear_peft.run_folder import RunConfig
from clear_peft.run_folder.layout import last_checkpoint
from clear_peft.tuners import available_methods, build
from tiny_models import tiny

pytestmark = pytest.mark.filterwarnings("ignore::UserWarning:torch", "ignore::FutureWarning:torch")


class _At(Silent):
    """Does something when an epoch is over, before its checkpoint."""

    def __init__(self, epoch, act):
        self.at, self.act = epoch, act

    def epoch(self, figures):
        if figures["epoch"] == self.at:
            self.act()


def _interrupt():
    raise KeyboardInterrupt


@pytest.fixture
def config(hostile_place, tmp_path, monkeypatch):
    for module in ("trainer.config", "pipeline.inference"):
        monkeypatch.setattr(f"clear_peft.{module}.bf16_pays", lambda device: False)

    def make(name="run", **more):
        return RunConfig(
            model=str(hostile_place / "model"),
            data=str(hostile_place / "train.csv"),
            output=str(tmp_path / name),
            clean_label_column="clean_label",
            epochs=4,
            batch_size=8,
            max_length=32,
            learning_rate=0.01,
            **more,
        )

    return make


@pytest.mark.parametrize("epoch", [3, 4])
def test_figures_of_examples_without_a_step_survive_too(config, epoch):
    undisturbed = train(config("a"))
    with pytest.raises(KeyboardInterrupt):
        train(config("b"), reporter=_At(epoch, _interrupt))
    assert train(config("b"), resume=True)["epochs"] == undisturbed["epochs"]


@pytest.mark.parametrize("method", [m for m in ("lora", "bitfit", "ia3") if m in available_methods()])
def test_the_saved_settings_are_in_an_order_that_no_process_changes(method):
    settings = build(tiny("bert")[0], method).peft_config["default"]
    assert not [name for name, value in vars(settings).items() if isinstance(value, set)]


def _no_space(*_, **__):
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def _torch_no_space(*_, **__):
    raise RuntimeError("[enforce fail at inline_container.cc:672] . PytorchStreamWriter failed writing file")


def _safetensors_no_space(*_, **__):
    raise SafetensorError("I/O error: No space left on device (os error 28)")


DISKS = {
    "a file of ours": lambda patch: patch.setattr(os, "fsync", _no_space),
    "the optimizer": lambda patch: patch.setattr(torch, "save", _torch_no_space),
    "the adapter": lambda patch: patch.setattr("peft.peft_model.safe_save_file", _safetensors_no_space),
}


@pytest.mark.parametrize("kind", DISKS)
def test_a_full_disk_costs_an_epoch_at_most(config, tmp_path, kind):
    undisturbed = train(config("a"))
    with pytest.MonkeyPatch.context() as patch:
        fill = _At(3, lambda: DISKS[kind](patch))
        with pytest.raises((InputError, OSError)) as end:
            train(config(), reporter=fill)
    assert not isinstance(end.value, SafetensorError)
    checkpoint = last_checkpoint(tmp_path / "run")
    assert checkpoint is not None
    if isinstance(end.value, InputError):  # the command line adds the way on to an OSError
        assert checkpoint in str(end.value)
    again = train(config(), resume=True)
    assert again["epochs"] == undisturbed["epochs"]
    adapter = "adapter/adapter_model.safetensors"
    assert (tmp_path / "run" / adapter).read_bytes() == (tmp_path / "a" / adapter).read_bytes()


def test_a_row_whose_loss_is_not_finite_is_named_as_in_its_file(config, monkeypatch):
    from clear_peft.trainer.trainer import CleaRTrainer

    rows = read_tables(config()).train.rows
    place = int((rows != range(len(rows))).argmax())  # behind the first row that is held out
    plain_loss = CleaRTrainer.per_example_loss

    def ruined(self, logits, labels, ids):
        return plain_loss(self, logits, labels, ids).where(ids != place, torch.nan)

    monkeypatch.setattr(CleaRTrainer, "per_example_loss", ruined)
    with pytest.raises(
        RunFailedError, match=rf"loss is not finite at step \d+ \(training rows {rows[place]}, …\)"
    ):
        train(config())


def test_a_gradient_that_is_not_finite_ruins_no_checkpoint(config, tmp_path, monkeypatch):
    from clear_peft.trainer.trainer import CleaRTrainer

    plain_step = CleaRTrainer.training_step

    def ruined(self, model, inputs, num_items_in_batch=None):
        loss = plain_step(self, model, inputs, num_items_in_batch)
        if self.state.global_step == 16:
            next(p for p in model.parameters() if p.grad is not None).grad.fill_(torch.nan)
        return loss

    monkeypatch.setattr(CleaRTrainer, "training_step", ruined)
    with pytest.raises(
        RunFailedError, match=r"gradient is not finite at step 17 \(training rows \d+, "
    ) as end:
        train(config())
    assert last_checkpoint(tmp_path / "run") in str(end.value)
    monkeypatch.setattr(CleaRTrainer, "training_step", plain_step)
    assert train(config(), resume=True)["selected_epoch"] >= 1
