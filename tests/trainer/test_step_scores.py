"""Scores that fall out of the training steps."""

import numpy as np
import pytest
import torch
from accelerate import Accelerator
from toy import Constant, rows, trained

from clear_peft.errors import InputError
from clear_peft.label_quality import moved_to
from clear_peft.trainer.scoring import pass_over
from clear_peft.trainer.steps import StepScores

pytestmark = pytest.mark.filterwarnings("ignore")


@pytest.fixture
def passes(monkeypatch):
    """Counts the examples that passes go over."""
    counted = []

    def spy(read, model, dataset, collate, **options):
        counted.append(len(dataset))
        return pass_over(read, model, dataset, collate, **options)

    monkeypatch.setattr("clear_peft.trainer.scoring.pass_over", spy)
    return counted


@pytest.mark.parametrize(("judge", "expected"), [("model", [90] * 3), ("steps", [])])
def test_the_steps_take_the_place_of_the_passes(tmp_path, passes, judge, expected):
    estimator = Constant(0.5)
    made = trained(tmp_path, train_dataset=rows(90), by=estimator, judge=judge, warm_up_epochs=1)
    assert passes == expected
    assert len(estimator.seen) == 3
    assert made.cleanliness.epoch == 3
    assert np.isfinite(made.cleanliness.losses).all()


def test_the_losses_are_those_of_the_epochs_steps_moved_to_its_end(tmp_path, monkeypatch):
    estimator, seen, step = Constant(1.0), {}, StepScores.step

    def spy(self, logits, labels, ids, epoch):
        losses = torch.nn.functional.cross_entropy(logits, labels, reduction="none").tolist()
        seen.update(zip(ids.tolist(), zip(losses, [epoch] * len(ids), strict=True), strict=True))
        step(self, logits, labels, ids, epoch)

    monkeypatch.setattr(StepScores, "step", spy)
    settings = {"num_train_epochs": 1, "judge": "steps", "loss_smoothing": 0.0}
    trained(tmp_path, train_dataset=rows(90), by=estimator, **settings)
    losses, times = (np.array([seen[i][part] for i in range(90)], np.float32) for part in (0, 1))
    assert times.max() > 0.8 > 0.2 > times.min()
    np.testing.assert_allclose(estimator.seen[0], moved_to(losses, times, 1.0), rtol=1e-6)


def test_an_example_that_had_no_step_yet_makes_a_pass_necessary(tmp_path, passes):
    trained(tmp_path, train_dataset=rows(90), by=Constant(0.5), judge="steps", warm_up_epochs=0)
    assert passes == [90], "before the first step; after it, all have had one"
    passes.clear()
    last_batch_dropped = {"dataloader_drop_last": True, "num_train_epochs": 1}
    trained(tmp_path, train_dataset=rows(90), by=Constant(0.5), judge="steps", **last_batch_dropped)
    assert passes == [90]


def test_an_example_without_a_step_in_the_epoch_keeps_what_it_had():
    scores, labels = StepScores(100, 3, torch.device("cpu")), torch.arange(100) % 3
    accelerator = Accelerator(cpu=True)
    logits = torch.randn(100, 3, generator=torch.Generator().manual_seed(0))
    kept = []
    for epoch, ids in ((0.2, torch.arange(100)), (1.5, torch.arange(70))):
        scores.step(epoch + logits[ids], labels[ids], ids, epoch)
        scores.end_epoch(np.ceil(epoch), accelerator)
        kept.append(scores.losses[70:])
    assert scores.complete
    assert np.array_equal(*kept)
    torch.testing.assert_close(scores.logits[70:], 0.2 + logits[70:], atol=2e-3, rtol=0)
    torch.testing.assert_close(scores.logits[:70], 1.5 + logits[:70], atol=3e-3, rtol=0)


def test_nothing_is_kept_where_no_step_is_asked(tmp_path):
    assert trained(tmp_path, num_train_epochs=1)._steps is None
    assert trained(tmp_path, num_train_epochs=1, judge="steps", clean_routing=False)._steps is None


def test_a_judge_that_there_is_not(tmp_path):
    with pytest.raises(InputError, match="no judge 'both': choose from probe, model, steps"):
        trained(tmp_path, judge="both")


@pytest.mark.parametrize("classes", [3, 100])
def test_a_memory_of_other_examples_is_refused(classes):
    cpu = torch.device("cpu")
    state = StepScores(4, classes, cpu).state()
    StepScores(4, classes, cpu).restore(state)
    for other in (StepScores(5, classes, cpu), StepScores(4, 5, cpu)):
        with pytest.raises((ValueError, RuntimeError)):
            other.restore(state)
