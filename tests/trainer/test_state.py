"""The state beside a checkpoint, and the ids in a batch."""

import numpy as np
import pytest
import torch

from clear_peft.errors import InputError
from clear_peft.trainer import CleanlinessState
from clear_peft.trainer.indexing import ID_COLUMN, IdCollator
from clear_peft.trainer.state import STATE_NAME, load_memory, save_memory
from clear_peft.trainer.teacher import Teacher


def state(classes=4, transition=None):
    return CleanlinessState(
        epoch=3,
        losses=np.array([0.1, 2.5], np.float32),
        clean_probability=np.array([1.0, 0.25], np.float32),
        teacher=Teacher.of(torch.randn(2, classes, generator=torch.Generator().manual_seed(0))),
        validation_losses=np.array([0.7], np.float32),
        validation_probability=np.array([0.5], np.float32),
        validation_teacher=Teacher.of(torch.zeros(1, classes)),
        judge="probe",
        components=2,
        parameters={"means": [0.1, 2.5], "scale": "log_odds"},
        transition=transition,
    )


@pytest.mark.parametrize(
    ("classes", "transition"), [(4, torch.full((4, 4), 0.25)), (65, None), (40_000, None)]
)
def test_state_survives_a_round_trip(tmp_path, classes, transition):
    state(classes, transition).save(tmp_path)
    back = CleanlinessState.load(tmp_path, (2, classes))
    assert (back.epoch, back.judge, back.components) == (3, "probe", 2)
    assert back.parameters == state().parameters
    assert (back.transition is None) if transition is None else torch.equal(back.transition, transition)
    for name in ("losses", "clean_probability", "validation_losses", "validation_probability"):
        loaded, saved = getattr(back, name), getattr(state(), name)
        assert loaded.dtype == saved.dtype
        assert np.array_equal(loaded, saved)
    assert torch.equal(back.teacher.logits(), state(classes).teacher.logits())
    assert torch.equal(back.validation_teacher.logits(), state(classes).validation_teacher.logits())
    assert back.noise_rate == pytest.approx(0.375)


def test_no_state_is_none_and_a_damaged_one_is_refused(tmp_path):
    assert CleanlinessState.load(tmp_path, (2, 4)) is None
    state().save(tmp_path)
    whole = (tmp_path / STATE_NAME).read_bytes()
    (tmp_path / STATE_NAME).write_bytes(whole[:-3])
    with pytest.raises(InputError, match="damaged"):
        CleanlinessState.load(tmp_path, (2, 4))


@pytest.mark.parametrize(
    "transition", [torch.full((3, 3), 0.25), torch.full((4, 4), torch.nan), torch.full((4, 4), 0.25).double()]
)
def test_a_noise_model_of_other_classes_is_refused(tmp_path, transition):
    state(4, transition).save(tmp_path)
    with pytest.raises(InputError, match="damaged"):
        CleanlinessState.load(tmp_path, (2, 4))


@pytest.mark.parametrize("classes", [[[0, 99]], [[-1, 5]]])
def test_a_teacher_of_classes_that_there_are_not_is_refused(tmp_path, classes):
    planted = state(99)
    planted.teacher.classes[:, :2] = torch.tensor(classes)
    planted.save(tmp_path)
    with pytest.raises(InputError, match="damaged") as refusal:
        CleanlinessState.load(tmp_path, (2, 99))
    assert "classes that there are not" in str(refusal.value)


class Number:
    """Remembers a number."""

    def __init__(self, value):
        self.value = torch.tensor(value)

    def state(self):
        return {"value": self.value}

    def restore(self, state):
        self.value = state["value"]


@pytest.mark.parametrize(("saved", "resumed", "said"), [(1, 2, "fewer"), (2, 1, "more"), (3, 2, "more")])
def test_memories_of_another_number_of_processes_are_refused(tmp_path, saved, resumed, said):
    for rank in range(saved):
        save_memory({"number": Number(rank)}, tmp_path, rank)
    with pytest.raises(InputError, match=f"saved by {said} processes"):
        load_memory({"number": Number(-1)}, tmp_path, resumed - 1, resumed)
    number = Number(-1)
    load_memory({"number": number}, tmp_path, saved - 1, saved)
    assert number.value == saved - 1


def test_collator_carries_ids_past_a_collator_that_drops_what_it_does_not_know():
    def narrow(features):
        assert all(set(f) == {"input_ids"} for f in features)
        return {"input_ids": torch.tensor([f["input_ids"] for f in features])}

    features = [
        {"input_ids": [1, 2], ID_COLUMN: 7, "clean_label": 0},
        {"input_ids": [3, 4], ID_COLUMN: 5, "clean_label": 1},
    ]
    batch = IdCollator(narrow)(features)
    assert batch[ID_COLUMN].tolist() == [7, 5]
    assert batch["input_ids"].shape == (2, 2)
    assert features[0][ID_COLUMN] == 7, "the dataset's own items are left alone"
