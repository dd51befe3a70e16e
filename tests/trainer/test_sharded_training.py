"""Training whose weights are sharded over several processes, by accelerate's FSDP2.

accelerate shards on accelerators alone. Here it is told that these processes have some; all else is its own.
"""

import os
import runpy
from functools import partial
from types import SimpleNamespace
from unittest.mock import patch

import accelerate
import numpy as np
import pandas as pd
import peft
import pytest
import torch
from accelerate import PartialState
from accelerate.utils import DistributedType
from packaging.version import Version
from test_two_processes import left_by, recommended, written
from toy import model_without_dropout, rows
from transformers import AutoModelForSequenceClassification, Trainer, TrainingArguments

from clear_peft.errors import InputError
from clear_peft.trainer import CleanRouting, CleaRConfig
from clear_peft.trainer.clean_routing import CLEAN_PROBABILITY_COLUMN
from clear_peft.trainer.setup import check_sharding
from clear_peft.tuners import build
from pages import ROOT
from processes import run_ranks
from tiny_models import tiny
from tiny_text import keyword_table, tiny_checkpoint

# what accelerate launch sets
LAUNCHED = {
    "ACCELERATE_USE_FSDP": "true",
    "FSDP_VERSION": "2",
    "FSDP_AUTO_WRAP_POLICY": "TRANSFORMER_BASED_WRAP",
    "FSDP_TRANSFORMER_CLS_TO_WRAP": "BertLayer",
    "FSDP_RESHARD_AFTER_FORWARD": "true",
    "FSDP_CPU_RAM_EFFICIENT_LOADING": "false",
}
EVERY_STEPS = {"save_strategy": "steps", "save_steps": 5, "num_train_epochs": 3}
WITHIN = 35  # a checkpoint after the restart, within an epoch of 15 steps
AT_END = 30

SCRIPT = """
import sys
sys.path[:0] = {path!r}
from clear_peft.pipeline.distributed import shutdown
import test_sharded_training
test_sharded_training.{function}({out!r})
shutdown()
"""


def sharded(state_dict="FULL_STATE_DICT"):
    """Inside, trainers shard."""
    original = Trainer.create_accelerator_and_postprocess

    def on_an_accelerator(self):
        PartialState._shared_state["distributed_type"] = DistributedType.MULTI_XPU
        original(self)

    os.environ.update({**LAUNCHED, "FSDP_STATE_DICT_TYPE": state_dict})
    return patch.object(Trainer, "create_accelerator_and_postprocess", on_an_accelerator)


def kept(out, name, made):
    np.savez(f"{out}/{name}{made.args.process_index}.npz", **left_by(made))


def train_in_all_ways(out):
    """In each of two processes: with whole weights, with sharded ones, and from their checkpoints."""
    whole = recommended(f"{out}/whole", batch=2, **EVERY_STEPS)
    kept(out, "whole", whole)
    for kind in ("FULL_STATE_DICT", "SHARDED_STATE_DICT"):
        with sharded(kind):
            made = recommended(f"{out}/{kind}", batch=2, **EVERY_STEPS)
            assert all(hasattr(p, "full_tensor") for p in made.model.parameters())
            kept(out, kind, made)
            made.save_model(f"{out}/saved-{kind}")
            for step in (WITHIN, AT_END):
                checkpoint = f"{out}/{kind}/checkpoint-{step}"
                again = recommended(f"{out}/again", batch=2, checkpoint=checkpoint, **EVERY_STEPS)
                kept(out, f"{kind}-{step}-", again)
    with sharded():
        run_the_example(out)
        made = recommended(f"{out}/again", batch=2, gradient_checkpointing=True, **EVERY_STEPS)
        kept(out, "checkpointing", made)
        route(out)
        made = recommended(f"{out}/best", batch=2, save_strategy="epoch", load_best_model_at_end=True)
        made.save_model(f"{out}/saved-best")
        kept(out, "best", made)


def run_the_example(out):
    """The script that the docs show."""
    main = runpy.run_path(str(ROOT / "examples" / "train_sharded.py"))["main"]
    main.__globals__["CleaRConfig"] = partial(CleaRConfig, use_cpu=True)
    options = {"model": f"{out}/model", "data": f"{out}/train.csv", "epochs": "3", "output": f"{out}/example"}
    main([word for name, value in options.items() for word in (f"--{name}", value)])


def route(out):
    """Another trainer with gates."""

    class Routed(CleanRouting, Trainer):
        pass

    data = rows(24).add_column(CLEAN_PROBABILITY_COLUMN, np.linspace(0, 1, 24))
    arguments = TrainingArguments(f"{out}/routed", use_cpu=True, report_to="none", save_strategy="no")
    made = Routed(model_without_dropout(), arguments, train_dataset=data)
    assert np.isfinite(made.train().training_loss)
    assert all(hasattr(p, "full_tensor") for p in made.model.parameters())


def go_on(out):
    """In each of four processes, or in one, from checkpoints of two."""
    ranks = int(os.environ["WORLD_SIZE"])
    place, batch, said = f"{out}/{ranks}", 4 // ranks, "fewer" if ranks > 2 else "more"
    for kind in ("FULL_STATE_DICT", "SHARDED_STATE_DICT"):
        with sharded(kind):
            checkpoint = f"{out}/{kind}/checkpoint-{AT_END}"
            kept(out, f"{ranks}-{kind}", recommended(place, batch, checkpoint, **EVERY_STEPS))
            with pytest.raises(InputError, match=f"by {said} processes, within an epoch: resume with as"):
                recommended(place, batch, f"{out}/{kind}/checkpoint-{WITHIN}", **EVERY_STEPS)


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """What two processes have left, and one and four that went on."""
    if Version(accelerate.__version__) < Version("1.15"):
        pytest.skip("accelerate 1.15 loads sharded adapters")
    folder = tmp_path_factory.mktemp("sharded")
    tiny_checkpoint(folder / "model", positions=128)
    keyword_table(60, seed=0, noise=0.3).to_csv(folder / "train.csv", index=False)
    run_ranks(written(folder, SCRIPT, function="train_in_all_ways"))
    for ranks in (1, 4):
        run_ranks(written(folder, SCRIPT, function="go_on"), ranks=ranks)
    return folder


def read(folder, name, rank=0):
    return dict(np.load(folder / f"{name}{rank}.npz"))


@pytest.mark.slow
def test_sharded_training_is_that_of_whole_weights(made):
    for name in ("FULL_STATE_DICT", "SHARDED_STATE_DICT", "checkpointing"):
        whole, found, other = read(made, "whole"), read(made, name), read(made, name, rank=1)
        assert found["noise_found"]
        for part in whole:
            np.testing.assert_array_equal(found[part], other[part], err_msg=part)
            if part != "source":
                np.testing.assert_allclose(found[part], whole[part], atol=1e-5, err_msg=part)


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["FULL_STATE_DICT", "SHARDED_STATE_DICT"])
@pytest.mark.parametrize("step", [WITHIN, AT_END])
def test_a_sharded_checkpoint_goes_on_bit_for_bit(made, kind, step):
    through, resumed = read(made, kind), read(made, f"{kind}-{step}-")
    for part in through:
        np.testing.assert_array_equal(through[part], resumed[part], err_msg=part)


@pytest.mark.slow
@pytest.mark.parametrize("ranks", [1, 4])
@pytest.mark.parametrize("kind", ["FULL_STATE_DICT", "SHARDED_STATE_DICT"])
def test_the_checkpoint_of_an_epoch_goes_on_in_fewer_and_in_more_processes(made, kind, ranks):
    through, resumed = read(made, kind), read(made, f"{ranks}-{kind}")
    for part in through.keys() - {"source"}:
        np.testing.assert_allclose(resumed[part], through[part], atol=1e-5, err_msg=part)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["FULL_STATE_DICT", "SHARDED_STATE_DICT", "best"])
def test_plain_peft_loads_what_was_sharded(made, name):
    base, _ = tiny("bert")
    loaded = peft.PeftModel.from_pretrained(base, made / f"saved-{name}")
    values = {n: p for n, p in loaded.named_parameters() if "lora_" in n or "modules_to_save" in n}
    flat = torch.cat([p.flatten() for p in values.values()]).detach().numpy()
    np.testing.assert_array_equal(flat, read(made, name)["weights"])


@pytest.mark.slow
def test_the_example_saves_an_adapter_and_a_list(made):
    base = AutoModelForSequenceClassification.from_pretrained(
        made / "model", num_labels=3, ignore_mismatched_sizes=True
    )
    adapter = peft.PeftModel.from_pretrained(base, made / "example")
    trained = [p for name, p in adapter.named_parameters() if "lora_B" in name]
    assert all(weight.any() for weight in trained)
    assert sorted(pd.read_csv(made / "example" / "label_issues.csv")["row"]) == list(range(60))


@pytest.mark.parametrize(
    ("settings", "method", "said"),
    [
        ({"accelerate": "1.14.0"}, "lora", "accelerate 1.14.0 cannot load sharded adapters again"),
        ({"fsdp_version": 1}, "lora", "Clean routing needs FSDP2: set fsdp_version: 2"),
        ({"activation_checkpointing": True}, "lora", "FSDP's activation checkpointing renames the weights"),
        ({"cpu_ram_efficient_loading": True}, "lora", "give --fsdp_cpu_ram_efficient_loading false"),
        ({}, "adapter", "FSDP is for methods of peft"),
        ({}, "metapeft", "FSDP is for methods of peft"),
    ],
)
def test_sharding_that_was_not_tried_is_refused(monkeypatch, settings, method, said):
    monkeypatch.setattr(accelerate, "__version__", settings.get("accelerate", "1.15.0"))
    usual = {"fsdp_version": 2, "activation_checkpointing": False, "cpu_ram_efficient_loading": False}
    plugin = SimpleNamespace(**{**usual, **settings})
    accelerator = SimpleNamespace(state=SimpleNamespace(fsdp_plugin=plugin))
    with pytest.raises(InputError, match=said):
        check_sharding(SimpleNamespace(accelerator=accelerator, model=build(tiny("bert")[0], method)))
