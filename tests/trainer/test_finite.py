"""Steps that are not finite stop training, and no step waits for its device to say so."""

from contextlib import nullcontext

import numpy as np
import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode
from toy import Constant, rows, trainer

from clear_peft.errors import RunFailedError
from clear_peft.trainer import CleaRTrainer, Phase, finite
from clear_peft.trainer.columns import ID_COLUMN
from clear_peft.trainer.finite import NonFiniteGuard


class _Waits(TorchDispatchMode):
    """Counts what makes the host wait for a device: reading a number, or a shape that depends on numbers."""

    def __init__(self):
        super().__init__()
        self.count = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        self.count += func.overloadpacket.__name__ in ("_local_scalar_dense", "nonzero", "masked_select")
        return func(*args, **(kwargs or {}))


@pytest.fixture
def patient(monkeypatch):
    """As on an accelerator, with a look at every third step."""
    monkeypatch.setattr(finite, "_STEPS", 3)
    meta = torch.device("meta")

    def make():
        made = NonFiniteGuard("The loss", meta, np.arange(100, 200))
        made._step, made._rows = torch.tensor(0), torch.full((5,), -1)
        return made

    return make


def test_the_first_ruined_step_is_named_with_its_rows(patient):
    watched, ids = patient(), torch.tensor([7, 3, 9])
    watched.update(torch.tensor([True, True, True]), ids, 1)
    watched.update(torch.tensor([False, True, False]), ids, 2)
    with pytest.raises(
        RunFailedError, match=r"The loss is not finite at step 2 \(training rows 107, 109, …\)"
    ):
        watched.update(torch.tensor([True, False, True]), ids, 3)


def test_a_look_before_a_checkpoint_finds_what_no_step_has_found_yet(patient):
    watched = patient()
    watched.check()
    watched.update(torch.arange(12) > 7, torch.arange(12), 1)
    with pytest.raises(RunFailedError, match="rows 100, 101, 102, 103, 104, …"):
        watched.check()


def test_on_the_cpu_it_stops_at_once():
    watched = NonFiniteGuard("The loss", torch.device("cpu"), np.arange(3))
    watched.update(torch.tensor([True]), torch.tensor([0]), 1)
    with pytest.raises(RunFailedError, match="step 2"):
        watched.update(torch.tensor([False]), torch.tensor([0]), 2)


@pytest.mark.parametrize("settings", [{}, {"consistency_weight": 1.0}, {"soft_labels": False}])
def test_no_step_waits_for_its_device(tmp_path, monkeypatch, settings):
    """All that a step does up to its gradient norm; what an optimizer does on an accelerator is torch's."""
    counts, own = [], []

    class Counted(CleaRTrainer):
        def training_step(self, model, inputs, *args):
            features = {n: t for n, t in inputs.items() if n not in ("labels", ID_COLUMN)}
            with _Waits() as forward:
                model(**features)
            with _Waits() as waits:
                loss = super().training_step(model, inputs, *args)
                self._get_grad_norm(self.model)  # where the gradient is guarded
            own.append(forward.count)
            counts.append(waits.count)
            return loss

    begin = NonFiniteGuard.__init__

    def patient_for_long(self, *arguments):
        begin(self, *arguments)
        self._patience = 10**6  # as on an accelerator between two looks

    monkeypatch.setattr(NonFiniteGuard, "__init__", patient_for_long)
    monkeypatch.setattr("clear_peft.trainer.trainer.faster", nullcontext)  # as on an accelerator
    made = trainer(tmp_path, train_dataset=rows(40), by=Constant(0.5), **settings)
    made.__class__ = Counted
    made.train()
    assert made.phase is Phase.ROBUST
    # the model's own, and the key of the gates, which is made on the CPU wherever the model is
    assert counts == [count + 1 for count in own]
