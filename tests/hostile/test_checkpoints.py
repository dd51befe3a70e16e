"""A checkpoint from a stranger, or from a crash: nothing in it is run, and what is damaged is said so."""

import json
import pickle
import shutil
import struct
from contextlib import suppress
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors import safe_open
from safetensors.numpy import save_file
from transformers import TrainerState

from clear_peft.errors import InputError
from clear_peft.trainer.estimate import ESTIMATE_NAME
from clear_peft.trainer.hf_state import check_trainer_state

pytestmark = pytest.mark.filterwarnings("ignore::UserWarning:torch", "ignore::FutureWarning:torch")

READ = ["optimizer.pt", "scheduler.pt", "rng_state.pth", "scaler.pt"]
UNREAD = ["training_args.bin", "adapter_model.bin", "pytorch_model.bin"]


class _Touch:
    """Unpickled, it makes a file."""

    def __init__(self, path: Path):
        self.path = path

    def __reduce__(self):
        return Path.touch, (self.path,)


def _pickled(path, thing):
    path.write_bytes(pickle.dumps(thing))


def _zipped(path, thing):
    torch.save(thing, path)


@pytest.mark.parametrize("write", [_pickled, _zipped])
def test_the_pickle_would_run_code(tmp_path, write):
    write(tmp_path / "x", _Touch(tmp_path / "proof"))
    with suppress(RuntimeError, pickle.UnpicklingError, ValueError):
        torch.load(tmp_path / "x", weights_only=False)
    assert (tmp_path / "proof").exists()


@pytest.mark.parametrize("write", [_pickled, _zipped])
@pytest.mark.parametrize("name", READ)
def test_a_pickle_is_refused(scene, name, write):
    here = scene(finished=False)
    write(here.checkpoint / name, _Touch(here.proof))
    with pytest.raises(InputError, match="damaged checkpoint"):
        here.resume()
    assert here.unharmed()


@pytest.mark.parametrize("name", UNREAD)
def test_a_pickle_is_not_even_read(scene, name):
    here = scene(finished=False)
    _zipped(here.checkpoint / name, _Touch(here.proof))
    assert here.resume()["selected_epoch"] >= 1
    assert here.unharmed()


def test_pickled_weights_of_a_whole_model_are_refused(scene):
    here = scene(finished=False, method="full")
    (here.checkpoint / "model.safetensors").unlink()
    _zipped(here.checkpoint / "pytorch_model.bin", _Touch(here.proof))
    with pytest.raises(InputError, match="damaged checkpoint"):
        here.resume()
    assert here.unharmed()


@pytest.mark.parametrize(
    "content", ["", '{"epoch"', "[]", "null", '{"nonsense": 1}', "\udcff".encode("utf-8", "surrogateescape")]
)
def test_a_checkpoint_whose_last_file_is_half_written_is_passed_over(scene, content):
    here = scene(finished=False)
    whole = here.checkpoint
    half = whole.with_name("checkpoint-9999")
    shutil.copytree(whole, half)
    content = content if isinstance(content, bytes) else content.encode()
    (half / "trainer_state.json").write_bytes(content)
    # anything read from it would show
    (half / "adapter_model.safetensors").write_bytes(b"half")
    assert here.resume()["selected_epoch"] >= 1


TRAINER_STATES = [
    {"best_metric": "0.9"},
    {"best_metric": {}},
    {"best_metric": float("nan")},
    {"best_global_step": 5},
    {"best_model_checkpoint": 3},
    {"global_step": "21"},
    {"global_step": 10**400},
    {"epoch": None},
    {"epoch": float("inf")},
    {"train_batch_size": [8]},
    {"logging_steps": 0},
    {"log_history": 3},
    {"log_history": [{"epoch": 1.0, "step": 7, "eval_accuracy": "much"}]},
    {"log_history": [{"epoch": 1.0, "step": 7, "eval_macro_f1": "<b>much</b>"}]},
    {"log_history": [{"loss": 0.5}]},
    {"stateful_callbacks": {}},
]


@pytest.mark.parametrize("values", TRAINER_STATES)
def test_a_trainer_state_that_no_trainer_writes(tmp_path, values):
    path = tmp_path / "trainer_state.json"
    log = [{"epoch": 1.0, "step": 7, "loss": 0.5}]
    state = TrainerState(epoch=1.0, global_step=7, log_history=log, stateful_callbacks={"TrainerControl": {}})
    state.save_to_json(path)
    check_trainer_state(path, "eval_accuracy")
    path.write_text(json.dumps({**json.loads(path.read_text()), **values}))
    with pytest.raises(InputError, match=f"its {next(iter(values))} is not what"):
        check_trainer_state(path, "eval_accuracy")


def test_metrics_that_nothing_reads_may_be_of_any_kind(tmp_path):
    path = tmp_path / "trainer_state.json"
    log = [{"epoch": 1.0, "step": 7, "eval_accuracy": 0.5, "eval_confusion": [[1, 2], [3, 4]]}]
    TrainerState(
        epoch=1.0, global_step=7, log_history=log, stateful_callbacks={"TrainerControl": {}}
    ).save_to_json(path)
    check_trainer_state(path, "eval_accuracy")
    with pytest.raises(InputError, match="its log_history is not what"):
        check_trainer_state(path, "eval_confusion")


@pytest.mark.parametrize("values", [{"best_metric": "0.9"}, {"best_metric": None, "epoch": {}}])
def test_it_is_checked_before_training_goes_on(scene, values):
    here = scene(finished=False)
    here.set_json(f"{here.checkpoint.name}/trainer_state.json", **values)
    with pytest.raises(InputError, match="is not what transformers writes"):
        here.resume()


def test_a_best_metric_beyond_all_accuracies(scene):
    here = scene(finished=False)
    here.set_json(f"{here.checkpoint.name}/trainer_state.json", best_metric=float("inf"))
    here.resume()


def test_the_best_checkpoint_is_one_of_the_run(scene):
    here = scene(finished=False)
    shutil.copytree(here.checkpoint, here.outside / "folder" / here.checkpoint.name)
    for path in (here.outside / "folder" / here.checkpoint.name).iterdir():
        path.write_bytes(b"another model")
    elsewhere = str(here.outside / "folder" / here.checkpoint.name)
    here.set_json(f"{here.checkpoint.name}/trainer_state.json", best_model_checkpoint=elsewhere)
    here.resume()
    assert all(p.read_bytes() == b"another model" for p in Path(elsewhere).iterdir())


def _state(*as_given, told=None, of_train=None, **changes):
    """Damage to arrays, or to what a file says: of itself as given, of some figures, of training rows."""

    def damage(path):
        with safe_open(path, "np") as file:
            arrays = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
            about = file.metadata()
        if told or of_train:
            rest = json.loads(about["clear"])
            rest |= told or {}
            if of_train:
                rest["train"] |= of_train
            about = {"clear": json.dumps(rest)}
        save_file(arrays | changes, path, as_given[0] if as_given else about)

    return damage


def _raw(header, data=b""):
    text = json.dumps(header).encode()
    return struct.pack("<Q", len(text)) + text + data


def _tensor(shape, begin, end):
    return {"dtype": "F32", "shape": shape, "data_offsets": [begin, end]}


DAMAGED = {
    "a header of 4 exabytes": struct.pack("<Q", 2**62) + b"{}",
    "tensors over each other": _raw({"a": _tensor([2], 0, 8), "b": _tensor([2], 4, 12)}, bytes(12)),
    "a shape without end": _raw({"a": _tensor([2**40, 2**40], 0, 8)}, bytes(8)),
    "offsets outside": _raw({"a": _tensor([2], 2**40, 2**40 + 8)}, bytes(8)),
    "nothing": b"",
    "no tensors": _raw({}),
    "deep": struct.pack("<Q", 100_000) + b"[" * 100_000,
}


@pytest.mark.parametrize("name", [ESTIMATE_NAME, "clear_state.safetensors", "adapter_model.safetensors"])
@pytest.mark.parametrize("kind", DAMAGED)
def test_damaged_safetensors(scene, name, kind):
    here = scene(finished=False)
    (here.checkpoint / name).write_bytes(DAMAGED[kind])
    with pytest.raises(InputError, match=name):
        here.resume()


STATES = {
    "of other rows": _state(
        losses=np.zeros(3, np.float32),
        **{f"train/{name}": np.zeros(3, np.float32) for name in ("clean_probability", "self_confidence")},
    ),
    "of fewer losses": _state(losses=np.zeros(53, np.float32)),
    "of other classes": _state(**{"train/pred_probs": np.zeros((54, 7), np.float32)}),
    "of whole numbers": _state(**{"train/clean_probability": np.ones(54, np.int32)}),
    "of text": _state(**{"train/given": np.frombuffer(b"a" * 54, np.uint8).astype(np.float64)}),
    "not finite": _state(**{"train/clean_probability": np.full(54, np.nan, np.float32)}),
    "of losses that are not finite": _state(losses=np.full(54, np.inf, np.float32)),
    "of labels of no class": _state(**{"train/given": np.full(54, 99)}),
    "of validation rows without weights": _state(validation_weights=np.zeros(0, np.float32)),
    "with more": _state(more=np.zeros(3)),
    "about nothing": _state(None),
    "about a list": _state({"clear": "[1]"}),
    "about too much": _state({"clear": "[" * 200_000}),
    "epoch of text": _state(told={"epoch": "x"}),
    "parameters of text": _state(told={"parameters": "x"}),
    "noise found of text": _state(told={"noise_found": "no"}),
    "about no rows": _state(told={"train": None}),
    "of a whole world of classes": _state(of_train={"num_classes": 10**11}),
    "of classes without end": _state(of_train={"num_classes": float("inf")}),
    "of an interval without end": _state(of_train={"noise_rate_interval": [0, 10**400]}),
    "of no classes": _state(of_train={"num_classes": 0}),
    "of classes that are none": _state(of_train={"num_classes": -3}),
    "of an unknown source": _state(of_train={"source": ["probe"]}),
    "of an unknown noise": _state(of_train={"noise": "much"}),
    "of an interval that is none": _state(of_train={"noise_rate_interval": [0.9, 0.1]}),
}


@pytest.mark.parametrize("kind", STATES)
def test_a_damaged_state(scene, kind):
    here = scene(finished=False)
    STATES[kind](here.checkpoint / ESTIMATE_NAME)
    with pytest.raises(InputError, match="is damaged"):
        here.resume()
