"""A run that was interrupted, and carried on."""

import json

import pytest

from clear_peft.errors import InputError
from clear_peft.runs import RunConfig, train
from clear_peft.runs import training as runs_training
from clear_peft.runs.progress import Silent
from tiny_text import keyword_table, tiny_checkpoint

pytestmark = pytest.mark.filterwarnings("ignore::UserWarning:torch", "ignore::FutureWarning:torch")


class _Interrupt(Silent):
    """Ctrl-C when an epoch is over, or when a stage begins."""

    def __init__(self, epoch=None, stage=None):
        self.at, self.before = epoch, stage

    def epoch(self, figures):
        if figures["epoch"] == self.at:
            raise KeyboardInterrupt

    def stage(self, text):
        if self.before is not None and text.startswith(self.before):
            raise KeyboardInterrupt


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    folder = tmp_path_factory.mktemp("place")
    keyword_table(60, seed=0, noise=0.2).to_csv(folder / "train.csv", index=False)
    tiny_checkpoint(folder / "model")
    return folder


@pytest.fixture(autouse=True)
def _float32(monkeypatch):
    monkeypatch.setattr(runs_training, "bf16_pays", lambda: False)


def _config(place, output, **more):
    options = {
        "epochs": 4,
        "max_length": 32,
        "batch_size": 8,
        "learning_rate": 0.01,
        "preset": "paper",
        **more,
    }
    return RunConfig(model=str(place / "model"), data=str(place / "train.csv"), output=str(output), **options)


def _weights(run):
    return {p.name: p.read_bytes() for p in (run / "adapter").glob("*.safetensors")}


@pytest.mark.parametrize(
    ("interrupt", "options"),
    [
        (_Interrupt(epoch=2), {}),
        (_Interrupt(epoch=4), {}),  # in the epoch that clean probabilities are used
        (_Interrupt(epoch=1), {}),  # before there is a checkpoint
        (_Interrupt(stage="Writing"), {}),
        (_Interrupt(epoch=3), {"method": "full"}),
        (_Interrupt(epoch=3), {"peft": "prefix", "training": {"judge": "steps"}}),
    ],
)
def test_it_ends_as_if_it_had_not_been_interrupted(place, tmp_path, interrupt, options):
    undisturbed = train(_config(place, tmp_path / "a", **options))
    config = _config(place, tmp_path / "b", **options)
    with pytest.raises(KeyboardInterrupt):
        train(config, reporter=interrupt)
    assert not (tmp_path / "b" / "metrics.json").exists()
    resumed = train(config, resume=True)
    assert _weights(tmp_path / "b") == _weights(tmp_path / "a") != {}
    names = "epochs", "validation", "selected_epoch", "noise_rate_estimate"
    assert [resumed[name] for name in names] == [undisturbed[name] for name in names]
    issues = [(tmp_path / run / "label_issues.csv").read_bytes() for run in "ab"]
    assert issues[0] == issues[1]


def test_a_checkpoint_that_is_not_whole_is_passed_over(place, tmp_path):
    whole = train(_config(place, tmp_path / "a"))
    config = _config(place, tmp_path / "b")
    with pytest.raises(KeyboardInterrupt):
        train(config, reporter=_Interrupt(epoch=4))
    part = tmp_path / "b" / "checkpoint-28"  # the one that was about to be written
    part.mkdir()
    (part / "adapter_model.safetensors").write_bytes(b"half")
    assert train(config, resume=True)["epochs"] == whole["epochs"]
    assert _weights(tmp_path / "b") == _weights(tmp_path / "a")


def test_only_with_the_options_it_was_begun_with(place, tmp_path):
    config = _config(place, tmp_path / "run", epochs=2)
    with pytest.raises(KeyboardInterrupt):
        train(config, reporter=_Interrupt(epoch=1))
    with pytest.raises(InputError, match="other options: resume it with --config"):
        train(_config(place, tmp_path / "run", epochs=3), resume=True)
    same = _config(place, f"{tmp_path}/./run/", epochs=2)
    train(same, resume=True)
    with pytest.raises(InputError, match="is finished"):
        train(same, resume=True)


def test_an_interrupted_overwrite_leaves_the_new_run_to_be_resumed(place, tmp_path):
    config = _config(place, tmp_path / "run", epochs=2, method="plain")
    train(config)
    other = _config(place, tmp_path / "run", epochs=2, method="plain", seed=1)
    with pytest.raises(KeyboardInterrupt):
        train(other, overwrite=True, reporter=_Interrupt(epoch=2))
    assert not (tmp_path / "run" / ".earlier").exists()
    train(other, resume=True)
    assert json.loads((tmp_path / "run" / "metrics.json").read_text())["seed"] == 1
