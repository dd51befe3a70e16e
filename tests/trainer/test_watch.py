"""Steps that are not finite stop training, and no step waits for its device to say so."""

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode
from toy import Constant, rows, trainer

from clear_peft.errors import InputError
from clear_peft.trainer import CleaRTrainer, watch
from clear_peft.trainer.indexing import ID_COLUMN
from clear_peft.trainer.watch import FiniteWatch

pytestmark = pytest.mark.filterwarnings("ignore")


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
    monkeypatch.setattr(watch, "_STEPS", 3)
    meta = torch.device("meta")

    def make():
        made = FiniteWatch("The loss", meta)
        made._step, made._rows = torch.tensor(0), torch.full((5,), -1)
        return made

    return make


def test_the_first_ruined_step_is_named_with_its_rows(patient):
    watched, ids = patient(), torch.tensor([7, 3, 9])
    watched.see(torch.tensor([True, True, True]), ids, 1)
    watched.see(torch.tensor([False, True, False]), ids, 2)
    with pytest.raises(InputError, match=r"The loss is not finite at step 2 \(training rows 7, 9, …\)"):
        watched.see(torch.tensor([True, False, True]), ids, 3)


def test_a_look_before_a_checkpoint_finds_what_no_step_has_found_yet(patient):
    watched = patient()
    watched.look()
    watched.see(torch.arange(12) > 7, torch.arange(12), 1)
    with pytest.raises(InputError, match="rows 0, 1, 2, 3, 4, …"):
        watched.look()


def test_on_the_cpu_it_stops_at_once():
    watched = FiniteWatch("The loss", torch.device("cpu"))
    watched.see(torch.tensor([True]), torch.tensor([0]), 1)
    with pytest.raises(InputError, match="step 2"):
        watched.see(torch.tensor([False]), torch.tensor([0]), 2)


@pytest.mark.parametrize("settings", [{}, {"consistency_weight": 1.0}, {"judge": "steps"}])
def test_no_step_waits_for_its_device(tmp_path, settings):
    """All that a step does up to its gradient norm; what an optimizer does on an accelerator is torch's."""
    counts, own = [], []

    class Counted(CleaRTrainer):
        def training_step(self, model, inputs, *args):
            for watched in (self._watched_loss, self._watched_gradient):
                watched._patience = 10**6
            features = {n: t for n, t in inputs.items() if n not in ("labels", ID_COLUMN)}
            with _Waits() as forward:
                model(**features)
            with _Waits() as waits:
                loss = super().training_step(model, inputs, *args)
                self._get_grad_norm(self.model)
            own.append(forward.count)
            counts.append(waits.count)
            return loss

    made = trainer(tmp_path, train_dataset=rows(40), by=Constant(0.5), **settings)
    made.__class__ = Counted
    made.train()
    assert made._robust
    # the model's own, and the key of the gates, which is made on the CPU wherever the model is
    assert counts == [count + 1 for count in own]
