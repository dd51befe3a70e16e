"""Two processes train and score as one does."""

import textwrap
from pathlib import Path

import numpy as np
import pytest
import torch
from toy import model_without_dropout, rows, trained, weights

from processes import run_two

pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("ignore")]

# sequential rows: two processes with half the batch each see the same steps as one
ROWS = 29  # of the last batches, one is half filled up, and the other has no row of its own
SETTINGS = {
    "train_sampling_strategy": "sequential",
    "consistency_weight": 1.0,
    "num_train_epochs": 2,
    "gradient_accumulation_steps": 2,
    "max_grad_norm": 0.0,
    "optim": "sgd",
}

SCRIPT = """
import sys
sys.path[:0] = {path!r}
import numpy as np
from clear_peft.pipeline.distributed import leave
from test_two_processes import ROWS, left_by, recommended
from toy import model_without_dropout, rows, trained
start, data = model_without_dropout(), rows(ROWS)
made = trained({out!r}, start=start, train_dataset=data, per_device_train_batch_size=2, **{settings!r})
np.savez({out!r} + f"/rank{{made.args.process_index}}.npz", **left_by(made))
made = recommended({out!r}, batch=2)
np.savez({out!r} + f"/recommended{{made.args.process_index}}.npz", **left_by(made))
leave()
"""


def noisy_rows(size, seed=0):
    """A third of the labels is wrong."""
    data = rows(size, seed=seed)
    labels = np.array(data["labels"])
    wrong = np.random.default_rng(seed).permutation(size)[: size // 3]
    labels[wrong] = (labels[wrong] + 1) % 3
    return data.remove_columns("labels").add_column("labels", labels)


def recommended(out, batch):
    """The default recipe on 59 rows, an odd number: one of two processes repeats a row to have as many."""
    return trained(
        out,
        start=model_without_dropout(),
        train_dataset=noisy_rows(59),
        eval_dataset=noisy_rows(21, seed=5),
        compute_metrics=lambda e: {"accuracy": (e.predictions.argmax(axis=1) == e.label_ids).mean()},
        eval_strategy="epoch",
        metric_for_best_model="accuracy",
        num_train_epochs=2,
        gradient_accumulation_steps=1,
        per_device_train_batch_size=batch,
        warm_up_epochs=0.5,
        fresh_start=True,
        probe_head=True,
        average_decay=0.99,
        reestimate=False,
        judge="probe",
        doubt_above=0.0,
    )


def left_by(made):
    """What a trainer knows in the end, as arrays."""
    state = made.cleanliness
    arrays = {"p": state.clean_probability, "losses": state.losses, "teacher": state.teacher.logits().numpy()}
    arrays |= {"held_out": state.validation_probability, "components": np.array(state.components)}
    trained_weights = torch.cat([w.flatten() for w in weights(made).values()])
    return {**arrays, "weights": trained_weights.numpy()}


@pytest.mark.parametrize("judge", ["model", "steps"])
def test_clean_probabilities_of_two_processes_are_those_of_one(tmp_path, judge):
    settings = {**SETTINGS, "judge": judge}
    one = trained(
        tmp_path,
        start=model_without_dropout(),
        train_dataset=rows(ROWS),
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
        np.testing.assert_allclose(two["weights"], left_by(one)["weights"], atol=1e-5)
    alone = left_by(recommended(tmp_path, batch=4))
    first, second = (np.load(tmp_path / f"recommended{rank}.npz") for rank in (0, 1))
    for part in alone:
        np.testing.assert_array_equal(first[part], second[part])
    assert first["components"] == alone["components"] == 2
    for part in ("p", "held_out", "losses", "teacher"):
        np.testing.assert_allclose(first[part], alone[part], atol=1e-2)
