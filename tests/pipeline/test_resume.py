"""A run that was interrupted, and carried on."""

import json
import signal
import textwrap
import threading
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path

import pytest

from clear_peft.errors import InputError
from clear_peft.pipeline import train
from clear_peft.pipeline.progress import Silent
from clear_peft.run_folder import RunConfig
from clear_peft.run_folder.layout import last_checkpoint
from processes import run_ranks
from tiny_text import keyword_table, tiny_checkpoint

pytestmark = pytest.mark.filterwarnings(
    "ignore::UserWarning:torch", "ignore::FutureWarning:torch", "ignore:The warm-up takes"
)


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


def in_float32(patch):
    """Whatever this machine is good at."""
    for module in ("trainer.config", "pipeline.inference"):
        patch.setattr(f"clear_peft.{module}.bf16_pays", lambda device: False)


@pytest.fixture(autouse=True)
def _float32(monkeypatch):
    in_float32(monkeypatch)


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


def _assert_same(run, other):
    """All that a run leaves, but for the clock and the memory."""
    assert _weights(run) == _weights(other) != {}
    assert (run / "label_issues.csv").read_bytes() == (other / "label_issues.csv").read_bytes()
    metrics = [json.loads((place / "metrics.json").read_text()) for place in (run, other)]
    for values in metrics:
        del values["train_seconds"], values["peak_memory_bytes"]
    assert metrics[0] == metrics[1]


@pytest.mark.parametrize(
    ("interrupt", "options"),
    [
        (_Interrupt(epoch=2), {}),
        (_Interrupt(epoch=4), {}),  # in the epoch that clean probabilities are used
        (_Interrupt(epoch=1), {}),  # before there is a checkpoint
        (_Interrupt(stage="Writing"), {}),
        (_Interrupt(epoch=3), {"method": "full"}),
        (_Interrupt(epoch=3), {"peft": "prefix"}),
        (_Interrupt(epoch=3), {"dtype": "bfloat16"}),
        pytest.param(
            _Interrupt(epoch=3),
            {"quantization": "4bit"},
            marks=pytest.mark.skipif(find_spec("bitsandbytes") is None, reason="needs bitsandbytes"),
        ),
        # over, with nothing to begin anew for, and nothing left to wait for
        (_Interrupt(stage="Writing"), {"preset": "recommended", "training": {"noise_threshold": 1.0}}),
        (_Interrupt(epoch=5), {"method": "early_stopping", "epochs": 12}),
    ],
)
def test_it_ends_as_if_it_had_not_been_interrupted(place, tmp_path, interrupt, options):
    train(_config(place, tmp_path / "a", **options))
    config = _config(place, tmp_path / "b", **options)
    with pytest.raises(KeyboardInterrupt):
        train(config, reporter=interrupt)
    assert not (tmp_path / "b" / "metrics.json").exists()
    train(config, resume=True)
    _assert_same(tmp_path / "b", tmp_path / "a")


def test_a_checkpoint_that_is_not_whole_is_passed_over(place, tmp_path):
    whole = train(_config(place, tmp_path / "a"))
    config = _config(place, tmp_path / "b")
    with pytest.raises(KeyboardInterrupt):
        train(config, reporter=_Interrupt(epoch=4))
    part = tmp_path / "b" / "checkpoint-28"  # the one that was about to be written
    part.mkdir()
    (part / "adapter_model.safetensors").write_bytes(b"half")
    (tmp_path / "b" / ".report.html.123.tmp").write_bytes(b"half")
    assert train(config, resume=True)["epochs"] == whole["epochs"]
    assert _weights(tmp_path / "b") == _weights(tmp_path / "a")
    assert not list((tmp_path / "b").glob(".*"))


def test_only_with_the_options_it_was_begun_with(place, tmp_path):
    config = _config(place, tmp_path / "run", epochs=2)
    with pytest.raises(KeyboardInterrupt):
        train(config, reporter=_Interrupt(epoch=1))
    with pytest.raises(InputError, match=r"other options \(epochs\): resume it with --config"):
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


def _reversed(table):
    return table[::-1]


def _renamed(table):
    return table.replace({"label": {"farming": "zebra"}})


@pytest.mark.parametrize("change", [_reversed, _renamed])
@pytest.mark.parametrize("method", ["clear", "cleanlab"])
def test_only_with_the_table_it_was_begun_with(place, tmp_path, change, method):
    if method == "cleanlab":
        pytest.importorskip("cleanlab")
    table = keyword_table(60, seed=0, noise=0.2)
    table.to_csv(tmp_path / "train.csv", index=False)
    data = {"data": str(tmp_path / "train.csv"), "epochs": 2, "method": method}
    config = replace(_config(place, tmp_path / "run"), **data)
    with pytest.raises(KeyboardInterrupt):
        train(config, reporter=_Interrupt(stage="Training" if method == "cleanlab" else "Writing"))
    change(table).to_csv(tmp_path / "train.csv", index=False)
    with pytest.raises(InputError, match=r"not as they were when the run in .* was begun"):
        train(config, resume=True)
    # the same rows, by another name
    table.to_csv(tmp_path / "moved.csv", index=False)
    train(replace(config, data=str(tmp_path / "moved.csv")), resume=True)
    assert RunConfig.load(tmp_path / "run").data == str(tmp_path / "moved.csv")


class _Fails(Silent):
    """A fault of ours, or of a library, when the training begins."""

    def stage(self, text):
        if text.startswith("Training"):
            raise RuntimeError("out of memory")


def test_a_crash_before_a_checkpoint_leaves_everything_as_it_was(place, tmp_path):
    config = _config(place, tmp_path / "run", epochs=1, method="plain")
    train(config)
    before = {p: p.read_bytes() for p in (tmp_path / "run").rglob("*") if p.is_file()}
    with pytest.raises(RuntimeError, match="out of memory"):
        train(config, overwrite=True, reporter=_Fails())
    assert {p: p.read_bytes() for p in (tmp_path / "run").rglob("*") if p.is_file()} == before
    with pytest.raises(RuntimeError, match="out of memory"):
        train(_config(place, tmp_path / "other"), reporter=_Fails())
    assert not (tmp_path / "other").exists()


def test_a_crash_after_the_folds_leaves_them_to_be_resumed(place, tmp_path):
    pytest.importorskip("cleanlab")
    config = _config(place, tmp_path / "run", epochs=1, method="cleanlab")
    with pytest.raises(RuntimeError, match="out of memory"):
        train(config, reporter=_Fails())
    folds = (tmp_path / "run" / "out_of_sample.safetensors").read_bytes()
    train(config, resume=True)
    assert (tmp_path / "run" / "out_of_sample.safetensors").read_bytes() == folds


def test_what_a_killed_overwrite_had_put_aside_goes_when_it_is_resumed(place, tmp_path):
    config = _config(place, tmp_path / "run", epochs=2, method="plain")
    with pytest.raises(KeyboardInterrupt):
        train(config, reporter=_Interrupt(epoch=2))
    (tmp_path / "run" / ".earlier" / "adapter").mkdir(parents=True)
    train(config, resume=True)
    assert not list((tmp_path / "run").glob(".*"))


class _CtrlC(Silent):
    """The signal itself, at steps of the training."""

    def __init__(self, *steps, times=1, kind=signal.SIGINT):
        self.steps, self.times, self.kind, self.stages = steps, times, kind, []

    def step(self, done, total):
        if done in self.steps:
            for _ in range(self.times):
                signal.raise_signal(self.kind)

    def stage(self, text):
        self.stages.append(text)


NOISY = {"preset": "recommended", "clean_label_column": "clean_label"}
CO_TEACHING = {"method": "co_teaching", "training": {"loss_options": {"noise_rate": 0.2}}}


# seven steps an epoch; recommended: one epoch to find wrong labels, three afresh
@pytest.mark.parametrize(
    ("steps", "options"),
    [
        ((3, 7, 21, 26), NOISY),  # 7 and 21 are the last of their epochs
        ((24,), {"clean_label_column": "clean_label"}),
        ((10,), CO_TEACHING),
        ((3,), {"method": "plain", "epochs": 2, "training": {"gradient_accumulation_steps": 2}}),
    ],
)
def test_ctrl_c_saves_where_the_training_stands(place, tmp_path, steps, options):
    train(_config(place, tmp_path / "a", **options))
    config = _config(place, tmp_path / "b", **options)
    for number, step in enumerate(steps):
        reporter = _CtrlC(step, kind=(signal.SIGINT, signal.SIGTERM)[number % 2])
        with pytest.raises(KeyboardInterrupt):
            train(config, resume=step != steps[0], reporter=reporter)
        assert last_checkpoint(tmp_path / "b").endswith(f"checkpoint-{step}")
        assert "Ctrl-C again stops at once" in reporter.stages[-1]
        assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
        assert signal.getsignal(signal.SIGTERM) is signal.SIG_DFL
    train(config, resume=True)
    _assert_same(tmp_path / "b", tmp_path / "a")


def test_a_second_ctrl_c_stops_at_once(place, tmp_path):
    with pytest.raises(KeyboardInterrupt):
        train(_config(place, tmp_path / "run"), reporter=_CtrlC(3, times=2))
    assert last_checkpoint(tmp_path / "run") is None


def test_a_ctrl_c_of_somebody_else_is_left_alone(place, tmp_path, monkeypatch):
    heard = []
    before = signal.signal(signal.SIGINT, lambda *_: heard.append(1))
    try:
        train(_config(place, tmp_path / "run", epochs=1, method="plain"), reporter=_CtrlC(3))
    finally:
        signal.signal(signal.SIGINT, before)
    assert heard == [1]


def test_signals_are_for_the_main_thread(place, tmp_path):
    config = _config(place, tmp_path / "run", epochs=1, method="plain")
    thread = threading.Thread(target=train, args=(config,))
    thread.start()
    thread.join()
    assert (tmp_path / "run" / "metrics.json").is_file()


TWO = """
import json
import sys
import pytest
sys.path[:0] = {path!r}
from clear_peft.pipeline.distributed import shutdown
from clear_peft.pipeline import train
from test_resume import _Interrupt, _config, in_float32
in_float32(pytest.MonkeyPatch())
place, output, resume, stop = Path(sys.argv[1]), sys.argv[2], sys.argv[3] == "resume", int(sys.argv[4])
config = _config(place, output, **json.loads(sys.argv[5]))
train(config, resume=resume, reporter=_Interrupt(epoch=stop))
shutdown()
"""
# what the second process is told with, as all but the first have no reporter of their own
TERMINATED = """
import os
import signal
from clear_peft.pipeline import training
from test_resume import _CtrlC
if os.environ["RANK"] == "1":
    training.Silent = lambda: _CtrlC(5, kind=signal.SIGTERM)
"""


RECIPES = {
    "recommended": {"preset": "recommended"},
    # what each process has seen of the epoch, and its memory, is in the checkpoint: here in the middle of one
    "elr": {
        "method": "elr",
        "training": {
            "save_strategy": "steps",
            "save_steps": 3,
            "load_best_model_at_end": False,
        },
    },
}


@pytest.mark.slow
@pytest.mark.parametrize("recipe", RECIPES)
def test_two_processes_carry_on_as_if_nothing_had_been(place, tmp_path, recipe):
    script = tmp_path / "two.py"
    here = Path(__file__).parent
    text = textwrap.dedent(TWO.format(path=[str(here), str(here.parent)]))
    script.write_text(f"from pathlib import Path\n{text}")
    whole, broken, settings = tmp_path / "whole", tmp_path / "broken", json.dumps(RECIPES[recipe])
    run_ranks(script, str(place), str(whole), "anew", "0", settings)
    run_ranks(script, str(place), str(broken), "anew", "2", settings, status=1)
    assert last_checkpoint(broken) is not None
    assert not (broken / "metrics.json").exists()
    run_ranks(script, str(place), str(broken), "resume", "0", settings)
    assert _weights(broken) == _weights(whole) != {}
    assert (broken / "label_issues.csv").read_bytes() == (whole / "label_issues.csv").read_bytes()


@pytest.mark.slow
def test_a_signal_to_one_of_two_processes_saves_where_both_stand(place, tmp_path):
    here = Path(__file__).parent
    body = textwrap.dedent(TWO.format(path=[str(here), str(here.parent)]))
    script, stopped = tmp_path / "two.py", tmp_path / "stopped.py"
    script.write_text(f"from pathlib import Path\n{body}")
    stopped.write_text(script.read_text().replace("place, output", f"{TERMINATED}\nplace, output", 1))
    whole, broken, settings = tmp_path / "whole", tmp_path / "broken", json.dumps(RECIPES["recommended"])
    run_ranks(script, str(place), str(whole), "anew", "0", settings)
    run_ranks(stopped, str(place), str(broken), "anew", "0", settings, status=1)
    kept = Path(last_checkpoint(broken))
    assert kept.name == "checkpoint-10"
    assert json.loads((kept / "trainer_state.json").read_text())["epoch"] == 2.5
    run_ranks(script, str(place), str(broken), "resume", "0", settings)
    assert _weights(broken) == _weights(whole) != {}
