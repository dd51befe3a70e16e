"""Two processes train and score as one does."""

import textwrap
from pathlib import Path

import numpy as np
import pytest
from toy import model_without_dropout, rows, trained

from processes import run_two

pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("ignore")]

# sequential rows: two processes with half the batch each see the same steps as one
SETTINGS = {
    "train_sampling_strategy": "sequential",
    "consistency_weight": 1.0,
    "num_train_epochs": 2,
    "gradient_accumulation_steps": 1,
    "max_grad_norm": 0.0,
    "optim": "sgd",
}

SCRIPT = """
import sys
sys.path[:0] = {path!r}
import numpy as np, torch
from toy import model_without_dropout, rows, trained
start, data = model_without_dropout(), rows(24)
made = trained({out!r}, start=start, train_dataset=data, per_device_train_batch_size=2, **{settings!r})
state = made.cleanliness
np.savez({out!r} + f"/rank{{made.args.process_index}}.npz", p=state.clean_probability, losses=state.losses)
"""


@pytest.mark.parametrize("judge", ["model", "steps"])
def test_clean_probabilities_of_two_processes_are_those_of_one(tmp_path, judge):
    settings = {**SETTINGS, "judge": judge}
    one = trained(
        tmp_path,
        start=model_without_dropout(),
        train_dataset=rows(24),
        per_device_train_batch_size=4,
        **settings,
    )
    here = Path(__file__).parent
    script = tmp_path / "two.py"
    path = [str(here), str(here.parent)]
    script.write_text(textwrap.dedent(SCRIPT.format(path=path, out=str(tmp_path), settings=settings)))
    run_two(script)
    for rank in (0, 1):
        two = np.load(tmp_path / f"rank{rank}.npz")
        np.testing.assert_allclose(two["losses"], one.cleanliness.losses, atol=1e-4)
        np.testing.assert_allclose(two["p"], one.clean_probability, atol=1e-3)
