"""The estimate in a checkpoint, and what every process writes beside it."""

import json
from contextlib import nullcontext, suppress
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors import safe_open
from safetensors.numpy import save_file
from transformers import TrainerState

from clear_peft.errors import InputError
from clear_peft.label_quality import LabelQuality, NoiseModel, TopProbs
from clear_peft.trainer import Estimate, checkpoint
from clear_peft.trainer.estimate import ESTIMATE_NAME

FLIPS = NoiseModel("class_conditional", np.full((4, 4), 0.2) + 0.2 * np.eye(4))


def quality(rows, classes, noise=None, seed=0):
    rng = np.random.default_rng(seed)
    labels, pred_probs = rng.integers(0, classes, rows), rng.dirichlet(np.full(classes, 0.5), rows)
    return LabelQuality(
        labels,
        TopProbs.of(pred_probs),
        pred_probs[range(rows), labels].astype(np.float32),
        rng.random(rows, np.float32),
        noise,
        None if noise is None else (0.1, 0.3),
        np.arange(rows) // 2,
        "final_model" if noise is None else "probe",
        np.arange(rows)[::-1] + 5,
    )


def estimate(classes=4, noise=None, validation=3):
    return Estimate(
        epoch=3,
        train=quality(6, classes, noise),
        validation=quality(validation, classes, noise, seed=1) if validation else None,
        losses=np.linspace(0.1, 2.5, 6, dtype=np.float32),
        noise_found=True,
        parameters={"means": [0.1, 2.5], "scale": "log_odds"},
        validation_weights=np.linspace(0.1, 0.9, validation, dtype=np.float32),
    )


def same(first, second):
    """Whether two qualities are the same, bit by bit."""
    (arrays, rest), (others, other) = first.arrays(), second.arrays()
    assert arrays.keys() == others.keys()
    assert all(arrays[name].dtype == others[name].dtype for name in arrays)
    return all(np.array_equal(arrays[name], others[name]) for name in arrays) and rest == other


def tampered(path, about=None, **arrays):
    """Change what an estimate in a file says of itself, or some of its arrays."""
    with safe_open(path, "np") as file:
        held = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        said = json.loads(file.metadata()["clear"])
    said = {**said, **(about or {})}
    save_file(
        held | {name.replace("__", "/"): a for name, a in arrays.items()}, path, {"clear": json.dumps(said)}
    )


@pytest.mark.parametrize(
    ("classes", "noise", "validation"), [(4, FLIPS, 3), (65, None, 3), (40_000, None, 1), (4, FLIPS, 0)]
)
def test_an_estimate_survives_a_round_trip(tmp_path, classes, noise, validation):
    made = estimate(classes, noise, validation)
    made.save(tmp_path)
    back = Estimate.load(tmp_path, 6, classes)
    assert (back.epoch, back.noise_found, back.parameters) == (3, True, made.parameters)
    assert same(back.train, made.train)
    assert (back.validation is None) == (not validation)
    assert not validation or same(back.validation, made.validation)
    for name in ("losses", "validation_weights"):
        assert getattr(back, name).dtype == getattr(made, name).dtype
        assert np.array_equal(getattr(back, name), getattr(made, name))


def test_no_estimate_is_none_and_a_half_written_one_is_refused(tmp_path):
    assert Estimate.load(tmp_path, 6, 4) is None
    estimate().save(tmp_path)
    whole = (tmp_path / ESTIMATE_NAME).read_bytes()
    (tmp_path / ESTIMATE_NAME).write_bytes(whole[:-3])
    with pytest.raises(InputError, match="damaged"):
        Estimate.load(tmp_path, 6, 4)


@pytest.mark.parametrize(("rows", "classes"), [(7, 4), (5, 4), (6, 3), (6, 5)])
def test_an_estimate_of_other_rows_or_classes_is_refused(tmp_path, rows, classes):
    estimate().save(tmp_path)
    with pytest.raises(InputError, match=f"not about {rows} rows and {classes} classes"):
        Estimate.load(tmp_path, rows, classes)


@pytest.mark.parametrize("transition", [np.full((3, 3), 0.25), np.full((4, 4), np.nan)])
def test_a_noise_model_of_other_classes_is_refused(tmp_path, transition):
    replace(estimate(), train=quality(6, 4, NoiseModel("symmetric", transition))).save(tmp_path)
    with pytest.raises(InputError, match="transition matrix of 4 classes"):
        Estimate.load(tmp_path, 6, 4)


@pytest.mark.parametrize("classes", [[0, 99], [-1, 5]])
def test_predictions_of_classes_that_there_are_not_are_refused(tmp_path, classes):
    planted = estimate(99)
    planted.train.pred_probs.classes[:, :2] = classes
    planted.save(tmp_path)
    with pytest.raises(InputError, match="damaged") as refusal:
        Estimate.load(tmp_path, 6, 99)
    assert "classes that there are not" in str(refusal.value)


@pytest.mark.parametrize(
    "change",
    [
        {"about": {"epoch": "3"}},
        {"about": {"parameters": "none"}},
        {"about": {"train": {}}},
        {"about": {"train": None}},
        {"losses": np.full(6, np.nan, np.float32)},
        {"losses": np.zeros((6, 1), np.float32)},
        {"losses": np.zeros(5, np.float32)},
        {"validation_weights": np.zeros(2, np.float32)},
        {"validation_weights": np.full(3, np.inf, np.float32)},
        {"train__given": np.full(6, 4)},
        {"train__clean_probability": np.full(6, 1.5, np.float32)},
        {"validation__self_confidence": np.zeros(2, np.float32)},
    ],
    ids=str,
)
def test_what_no_pass_finds_is_refused(tmp_path, change):
    estimate(noise=FLIPS).save(tmp_path)
    tampered(tmp_path / ESTIMATE_NAME, **change)
    with pytest.raises(InputError, match="is damaged"):
        Estimate.load(tmp_path, 6, 4)


@settings(max_examples=200, deadline=None)
@given(place=st.integers(0, 10**6), value=st.integers(0, 255))
def test_a_byte_that_is_another_is_no_traceback(tmp_path_factory, place, value):
    folder = tmp_path_factory.mktemp("estimate")
    estimate(noise=FLIPS).save(folder)
    whole = bytearray((folder / ESTIMATE_NAME).read_bytes())
    whole[place % len(whole)] = value
    (folder / ESTIMATE_NAME).write_bytes(whole)
    with suppress(InputError):
        assert len(Estimate.load(folder, 6, 4).train) == 6


class Number:
    """Remembers a number."""

    def __init__(self, value):
        self.value = torch.tensor(value)

    def state_dict(self):
        return {"value": self.value}

    def load_state_dict(self, state):
        if state.keys() != {"value"}:
            raise KeyError("value")
        self.value = state["value"]


def process(rank, world_size, *numbers):
    """As much of a trainer, in one of some processes, as a checkpoint asks."""
    return SimpleNamespace(
        args=SimpleNamespace(process_index=rank, world_size=world_size, should_save=rank == 0),
        store=SimpleNamespace(estimate=estimate() if rank == 0 else None),
        stateful=lambda: dict(zip(("number", "other"), numbers, strict=False)),
    )


def test_every_process_has_its_own_file_and_every_part_its_own_tensors(tmp_path):
    for rank in range(2):
        checkpoint.save(process(rank, 2, Number(rank), Number(10 + rank)), tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "clear_estimate.safetensors",
        "clear_state.safetensors",
        "clear_state_1.safetensors",
    ]
    for rank in range(2):
        numbers = Number(-1), Number(-1)
        checkpoint.load(process(rank, 2, *numbers), tmp_path)
        assert [int(number.value) for number in numbers] == [rank, 10 + rank]


@pytest.mark.parametrize(("saved", "resumed", "said"), [(1, 2, "fewer"), (2, 1, "more"), (3, 2, "more")])
def test_a_checkpoint_of_another_number_of_processes_is_for_the_end_of_an_epoch(
    tmp_path, saved, resumed, said
):
    for rank in range(saved):
        checkpoint.save(process(rank, saved, Number(rank)), tmp_path)
    TrainerState(epoch=1.5).save_to_json(tmp_path / "trainer_state.json")
    with pytest.raises(InputError, match=f"saved by {said} processes, within an epoch"):
        checkpoint.load(process(resumed - 1, resumed, Number(-1)), tmp_path)
    TrainerState(epoch=2.0).save_to_json(tmp_path / "trainer_state.json")
    number = Number(-1)
    checkpoint.load(process(resumed - 1, resumed, number), tmp_path)
    assert number.value == 0, "what the first process knew"
    checkpoint.load(process(saved - 1, saved, number), tmp_path)
    assert number.value == saved - 1


def test_a_node_with_a_disk_of_its_own_has_the_files_of_its_processes(tmp_path):
    checkpoint.save(process(1, 4, Number(1)), tmp_path)
    checkpoint.save(process(0, 4, Number(0)), tmp_path)
    number = Number(-1)
    checkpoint.load(process(1, 4, number), tmp_path)
    assert number.value == 1


def test_epochs_of_other_steps_are_refused():
    state = TrainerState(epoch=2.0, global_step=8)
    checkpoint.check_steps(state, 4)
    with pytest.raises(InputError, match="has 4 steps an epoch, and this training 3: let the product of"):
        checkpoint.check_steps(state, 3)


def test_a_part_that_is_missing_and_a_file_that_is_are_said(tmp_path):
    with pytest.raises(InputError, match=r"Cannot read .*clear_state\.safetensors"):
        checkpoint.load(process(0, 1, Number(0)), tmp_path)
    checkpoint.save(process(0, 1, Number(0)), tmp_path)
    with pytest.raises(InputError, match=r"clear_state\.safetensors is damaged"):
        checkpoint.load(process(0, 1, Number(0), Number(0)), tmp_path)


FULL, SHARDS = ({"is_fsdp_enabled": kind} for kind in ("FULL_STATE_DICT", "SHARDED_STATE_DICT"))
ZERO = {"is_deepspeed_enabled": True}


@pytest.mark.parametrize(
    ("file", "now", "said"),
    [
        ("optimizer.pt", FULL, "holds whole weights, and this training keeps FSDP's FULL_STATE_DICT: resume"),
        ("pytorch_model_fsdp.bin", {}, "holds FSDP's FULL_STATE_DICT, and this training keeps whole weights"),
        ("pytorch_model_fsdp.bin", SHARDS, "FULL_STATE_DICT, and this training keeps FSDP's SHARDED_STATE"),
        ("pytorch_model_fsdp_0", FULL, "SHARDED_STATE_DICT, and this training keeps FSDP's FULL_STATE_DICT"),
        ("pytorch_model_fsdp_0", ZERO, "SHARDED_STATE_DICT, and this training keeps DeepSpeed's shards"),
        ("latest", {}, "holds DeepSpeed's shards, and this training keeps whole weights: resume"),
        ("optimizer.pt", {}, None),
        ("pytorch_model_fsdp.bin", FULL, None),
        ("pytorch_model_fsdp_0", SHARDS, None),
        ("latest", ZERO, None),
    ],
)
def test_a_checkpoint_of_weights_that_are_kept_otherwise_is_not_called_damaged(tmp_path, file, now, said):
    plugin = SimpleNamespace(state_dict_type=SimpleNamespace(name=now.get("is_fsdp_enabled")))
    trainer = SimpleNamespace(
        args=SimpleNamespace(metric_name="accuracy"),
        accelerator=SimpleNamespace(state=SimpleNamespace(fsdp_plugin=plugin)),
        **({"is_fsdp_enabled": False, "is_deepspeed_enabled": False} | now),
    )
    (tmp_path / "trainer_state.json").write_text('{"log_history": []}')
    (tmp_path / file).touch()
    with (
        nullcontext() if said is None else pytest.raises(InputError, match=said),
        checkpoint.readable(str(tmp_path), trainer),
    ):
        pass


def test_a_full_memory_is_no_damage(tmp_path):
    args = SimpleNamespace(metric_name="accuracy")
    trainer = SimpleNamespace(args=args, is_fsdp_enabled=False, is_deepspeed_enabled=False)
    (tmp_path / "trainer_state.json").write_text('{"log_history": []}')
    with pytest.raises(torch.OutOfMemoryError), checkpoint.readable(str(tmp_path), trainer):
        raise torch.OutOfMemoryError("CUDA out of memory.")
