"""Two and four processes train and score as one does."""

import textwrap
from pathlib import Path

import numpy as np
import pytest
import torch
from toy import is_lora, model_without_dropout, rows, trained, trainer, weights

from clear_peft.trainer.shards import whole
from processes import run_ranks

pytestmark = pytest.mark.slow

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

RUNS = {
    "losses": {},
    # what is remembered of each row is what the process has seen that has had it last
    "elr": {"clean_routing": False, "loss": "elr", "num_train_epochs": 3},
    "selc": {"clean_routing": False, "loss": "selc", "loss_options": {"switch_epoch": 0}},
}

SCRIPT = """
import sys
sys.path[:0] = {path!r}
import numpy as np
from clear_peft.pipeline.distributed import shutdown
from test_two_processes import RUNS, left_by, plain
for name, settings in RUNS.items():
    made = plain({out!r}, batch=2, **settings)
    np.savez({out!r} + f"/{{name}}{{made.args.process_index}}.npz", **left_by(made))
shutdown()
"""

BEGUN_ELSEWHERE = """
import os, sys
sys.path[:0] = {path!r}
import numpy as np
from clear_peft.pipeline.distributed import shutdown
from test_two_processes import begun_elsewhere, left_by
rank = os.environ["RANK"]
np.save({out!r} + f"/{{rank}}.npy", left_by(begun_elsewhere({out!r}, int(rank)))["weights"])
shutdown()
"""

RECOMMENDED = """
import sys
sys.path[:0] = {path!r}
import numpy as np
from clear_peft.pipeline.distributed import shutdown
from test_two_processes import left_by, recommended
made = recommended({out!r}, batch=4 // {ranks})
np.savez({out!r} + f"/recommended{{made.args.process_index}}.npz", **left_by(made))
shutdown()
"""

THERE_AND_BACK = """
import sys
sys.path[:0] = {path!r}
import numpy as np
from clear_peft.pipeline.distributed import shutdown
from test_two_processes import left_by, recommended
for name, checkpoint in (("two", None), ("more", {out!r} + "/one/checkpoint-15")):
    made = recommended({out!r} + "/" + name, 2, checkpoint, save_strategy="epoch")
    np.savez({out!r} + f"/{{name}}{{made.args.process_index}}.npz", **left_by(made))
shutdown()
"""


def noisy_rows(size, seed=0):
    """Rows with four tokens of their class, a third of whose labels is wrong."""
    data = rows(size, seed=seed)
    labels, ids = np.array(data["labels"]), np.array(data["input_ids"])
    ids[:, 1:5] = ids[:, 1:2]
    data = data.remove_columns("input_ids").add_column("input_ids", ids.tolist())
    wrong = np.random.default_rng(seed).permutation(size)[: size // 3]
    labels[wrong] = (labels[wrong] + 1) % 3
    return data.remove_columns("labels").add_column("labels", labels)


def plain(out, batch, **settings):
    """A training whose order of rows does not depend on the number of processes."""
    return trained(
        out,
        start=model_without_dropout(),
        train_dataset=rows(ROWS),
        per_device_train_batch_size=batch,
        **{**SETTINGS, **settings},
    )


def recommended(out, batch, checkpoint=None, **settings):
    """The default recipe on 59 rows, an odd number: one of several processes repeats a row."""
    recipe = {
        "eval_strategy": "epoch",
        "metric_for_best_model": "accuracy",
        "num_train_epochs": 2,
        "gradient_accumulation_steps": 1,
        "per_device_train_batch_size": batch,
        "warm_up_epochs": 0.5,
        "restart": True,
        "probe_init": True,
        "ema_epochs": 1.4,
        "reestimate_every_epoch": False,
        "label_estimator": "probe",
    }
    made = trainer(
        out,
        start=model_without_dropout(),
        train_dataset=noisy_rows(59),
        eval_dataset=noisy_rows(21, seed=5),
        compute_metrics=lambda e: {"accuracy": (e.predictions.argmax(axis=1) == e.label_ids).mean()},
        **{**recipe, **settings},
    )
    made.train(resume_from_checkpoint=checkpoint)
    return made


def left_by(made):
    """What a trainer knows in the end, as arrays."""
    found = made.estimate
    arrays = {"p": found.train.clean_probability, "losses": found.losses}
    arrays |= {"predicted": found.train.pred_probs.dense(), "held_out": found.validation_weights}
    arrays |= {"noise_found": np.array(found.noise_found), "source": np.array(found.train.source)}
    arrays |= {f"memory/{n}": t.numpy() for n, t in made.stateful()["loss"].state_dict().items()}
    trained_weights = torch.cat([whole(w).flatten() for w in weights(made).values()])
    return {**arrays, "weights": trained_weights.numpy()}


def written(folder, code, **values):
    """A script for processes, in a folder that they write to."""
    here = Path(__file__).parent
    script = folder / "script.py"
    path = [str(here), str(here.parent)]
    script.write_text(textwrap.dedent(code.format(path=path, out=str(folder), **values)))
    return script


def test_what_two_processes_know_is_what_one_does(tmp_path):
    run_ranks(written(tmp_path, SCRIPT))
    tolerance = {"p": 1e-3, "losses": 1e-4}
    for name, settings in RUNS.items():
        one = left_by(plain(tmp_path, batch=4, **settings))
        for rank in (0, 1):
            two = np.load(tmp_path / f"{name}{rank}.npz")
            assert one.keys() == set(two)
            for part in one.keys() - {"source"}:
                np.testing.assert_allclose(
                    two[part], one[part], atol=tolerance.get(part, 1e-5), err_msg=f"{name}: {part}"
                )
        if name != "losses":
            assert one["memory/targets"].any(axis=1).all(), "every row has been seen"


@pytest.mark.parametrize("ranks", [2, 4])
def test_the_default_recipe_knows_the_same_in_any_number_of_processes(tmp_path, ranks):
    run_ranks(written(tmp_path, RECOMMENDED, ranks=ranks), ranks=ranks)
    alone = left_by(recommended(tmp_path, batch=4))
    first, *others = (np.load(tmp_path / f"recommended{rank}.npz") for rank in range(ranks))
    for other in others:
        for part in alone:
            np.testing.assert_array_equal(first[part], other[part], err_msg=part)
    assert first["source"] == alone["source"] == "probe"
    assert alone["p"].min() < 0.1
    assert alone["p"].max() > 0.9
    assert len(alone["held_out"]) == 21
    for part in ("p", "held_out", "losses", "predicted"):
        np.testing.assert_allclose(first[part], alone[part], atol=1e-4, err_msg=part)


def test_the_checkpoint_of_an_epoch_goes_on_in_more_and_in_fewer_processes(tmp_path):
    through = left_by(recommended(tmp_path / "one", 4, save_strategy="epoch"))
    run_ranks(written(tmp_path, THERE_AND_BACK))
    fewer = left_by(recommended(tmp_path / "fewer", 4, str(tmp_path / "two" / "checkpoint-15")))
    two, more, other = (np.load(tmp_path / f"{name}.npz") for name in ("two0", "more0", "more1"))
    for part in through.keys() - {"source"}:
        np.testing.assert_array_equal(more[part], other[part], err_msg=part)
        np.testing.assert_allclose(more[part], through[part], atol=1e-5, err_msg=part)
        np.testing.assert_allclose(fewer[part], two[part], atol=1e-5, err_msg=part)


def begun_elsewhere(out, seed):
    """A run that restarts, of an adapter with weights of its own."""
    start = model_without_dropout()
    generator = torch.Generator().manual_seed(seed)
    for name, weight in start.named_parameters():
        if is_lora(name):
            weight.data += 0.1 * torch.randn(weight.shape, generator=generator)
    return trained(out, start=start, train_dataset=noisy_rows(60), restart=True, noise_threshold=0.0)


def test_processes_that_begin_with_other_weights_end_with_the_same(tmp_path):
    run_ranks(written(tmp_path, BEGUN_ELSEWHERE))
    first, second = (np.load(tmp_path / f"{rank}.npy") for rank in (0, 1))
    np.testing.assert_array_equal(first, second)
