"""Training whose weights and optimizer are sharded over two processes, by DeepSpeed's ZeRO.

accelerate runs DeepSpeed on accelerators alone. Here it is told that these processes are to speak by gloo;
all else is its own and DeepSpeed's, which has a back end for CPUs.
"""

import importlib.util
import os
from types import SimpleNamespace
from unittest.mock import patch

import numpy as np
import peft
import pytest
import torch
from accelerate import PartialState
from accelerate.utils import DistributedType
from test_two_processes import left_by, recommended, written
from toy import model_without_dropout
from transformers.integrations.deepspeed import unset_hf_deepspeed_config

from clear_peft.errors import InputError
from clear_peft.trainer.setup import check_sharding
from clear_peft.trainer.shards import accessible
from clear_peft.tuners import build
from processes import run_ranks
from tiny_models import tiny

needs_deepspeed = pytest.mark.skipif(
    importlib.util.find_spec("deepspeed") is None, reason="DeepSpeed is not installed"
)
EVERY_STEPS = {"save_strategy": "steps", "save_steps": 5, "num_train_epochs": 3}
WITHIN = 35  # a checkpoint after the restart, within an epoch of 15 steps
AT_END = 30
BEST = {"save_strategy": "epoch", "load_best_model_at_end": True, "metric_for_best_model": "loss"}
# one process has a batch more than the other in passes over the rows
UNEVEN = {"per_device_eval_batch_size": 7}

SCRIPT = """
import sys
sys.path[:0] = {path!r}
from clear_peft.pipeline.distributed import shutdown
import test_deepspeed
test_deepspeed.train_in_all_ways({out!r}, {stage})
shutdown()
"""


def zero(stage):
    """The settings of a trainer."""
    auto = ("train_batch_size", "train_micro_batch_size_per_gpu", "gradient_accumulation_steps")
    sharded = {"stage": stage}
    if stage == 3:  # small weights would be kept whole
        sharded |= {"stage3_param_persistence_threshold": 0}
        sharded |= {"stage3_gather_16bit_weights_on_model_save": True}
    config = {"zero_optimization": sharded, "gradient_clipping": "auto"} | dict.fromkeys(auto, "auto")
    return {"use_cpu": False, "deepspeed": config, **UNEVEN}


def by_gloo():
    """Inside, accelerate takes CPUs for something that DeepSpeed runs on."""
    return patch.object(PartialState, "_prepare_backend", lambda *_: ("gloo", DistributedType.MULTI_CPU))


def sharded(out, stage, checkpoint=None, **settings):
    """The default recipe by ZeRO."""
    unset_hf_deepspeed_config()  # of the trainer before: the model would be sharded where it is made
    with by_gloo():
        return recommended(out, 2, checkpoint, **settings, **zero(stage))


def kept(out, name, made):
    with accessible(made.model):
        np.savez(f"{out}/{name}{made.args.process_index}.npz", **left_by(made), **gates(made))


def gates(made):
    """Whether rows behind closed gates are bit for bit those of the frozen model, and others are tuned."""
    model = made.model.eval()
    ids = torch.arange(3, 27).view(4, 6)
    half = torch.tensor([True, False, True, False])[:, None].expand(4, made.router.num_blocks)

    def states():
        return model.get_base_model().bert(input_ids=ids).last_hidden_state

    with torch.no_grad():
        tuned = states()
        with model.disable_adapter():
            frozen = states()
        with made.router.hold(half):
            routed = states()
    expected = torch.where(half[:, :1, None], tuned, frozen)
    return {
        "exact": np.array(torch.equal(routed, expected)),
        "tuned": np.array(not torch.equal(tuned, frozen)),
    }


def train_in_all_ways(out, stage):
    """In each of two processes: with whole weights, with sharded ones, and from their checkpoints."""
    kept(out, "whole", recommended(f"{out}/whole", batch=2, **EVERY_STEPS, **UNEVEN))
    kept(out, "whole-best", recommended(f"{out}/whole", batch=2, **BEST, **UNEVEN))
    made = sharded(f"{out}/sharded", stage, **EVERY_STEPS)
    assert made.accelerator.distributed_type == DistributedType.DEEPSPEED
    assert all(hasattr(p, "ds_id") for p in made.model.parameters()) == (stage == 3)
    kept(out, "sharded", made)
    for step in (WITHIN, AT_END):
        again = sharded(f"{out}/again", stage, f"{out}/sharded/checkpoint-{step}", **EVERY_STEPS)
        assert again.state.global_step == 45
        kept(out, f"resumed-{step}-", again)
    made = sharded(f"{out}/best", stage, **BEST)
    made.save_model(f"{out}/saved")
    kept(out, "best", made)


@pytest.fixture(scope="module", params=[2, 3])
def made(tmp_path_factory, request):
    """What two processes have left."""
    folder = tmp_path_factory.mktemp("zero")
    with patch.dict(os.environ, {"DS_ACCELERATOR": "cpu"}):
        run_ranks(written(folder, SCRIPT, stage=request.param))
    return folder


def read(folder, name, rank=0):
    return dict(np.load(folder / f"{name}{rank}.npz"))


@pytest.mark.slow
@needs_deepspeed
def test_sharded_training_is_that_of_whole_weights(made):
    for sharded, whole in (("sharded", "whole"), ("best", "whole-best")):
        expected, found, other = read(made, whole), read(made, sharded), read(made, sharded, rank=1)
        assert found["noise_found"]
        assert found["exact"]
        assert found["tuned"]
        for part in expected:
            np.testing.assert_array_equal(found[part], other[part], err_msg=part)
            if part != "source":
                np.testing.assert_allclose(found[part], expected[part], atol=1e-5, err_msg=part)


@pytest.mark.slow
@needs_deepspeed
@pytest.mark.parametrize("step", [WITHIN, AT_END])
def test_a_sharded_checkpoint_goes_on_bit_for_bit(made, step):
    through, resumed = read(made, "sharded"), read(made, f"resumed-{step}-")
    for part in through:
        np.testing.assert_array_equal(through[part], resumed[part], err_msg=part)


@pytest.mark.slow
@needs_deepspeed
def test_plain_peft_loads_what_was_sharded(made):
    loaded = peft.PeftModel.from_pretrained(tiny("bert")[0], made / "saved")
    trained = [n for n, p in model_without_dropout().named_parameters() if p.requires_grad]
    values = dict(loaded.named_parameters())
    flat = torch.cat([values[name].detach().flatten() for name in trained]).numpy()
    np.testing.assert_array_equal(flat, read(made, "best")["weights"])


def test_methods_of_this_package_are_refused():
    state = SimpleNamespace(fsdp_plugin=None, deepspeed_plugin=SimpleNamespace())
    trainer = SimpleNamespace(
        accelerator=SimpleNamespace(state=state), model=build(tiny("bert")[0], "adapter")
    )
    with pytest.raises(InputError, match="DeepSpeed is for methods of peft"):
        check_sharding(trainer)
