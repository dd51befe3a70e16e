"""One process estimates the labels for all: others may round otherwise."""

from pathlib import Path

import numpy as np
import pytest

from processes import run_ranks

pytestmark = pytest.mark.slow

SCRIPT = """
import os, sys
sys.path[:0] = {path!r}
import numpy as np
import torch
from clear_peft.pipeline.distributed import shutdown
from clear_peft.trainer import estimators
from test_two_processes import left_by, recommended

rank = int(os.environ["RANK"])
torch.set_num_threads(1 + rank)
if rank:
    estimators.fit_probe = None  # to call it is an error
np.savez({out!r} + f"/rank{{rank}}.npz", **left_by(recommended({out!r}, batch=2)))
shutdown()
"""


def test_processes_of_different_thread_counts_have_one_verdict_and_one_adapter(tmp_path):
    here = Path(__file__).parent
    script = tmp_path / "two.py"
    script.write_text(SCRIPT.format(path=[str(here), str(here.parent)], out=str(tmp_path)))
    run_ranks(script)
    first, second = (np.load(tmp_path / f"rank{rank}.npz") for rank in (0, 1))
    assert set(first) == set(second)
    assert {"p", "predicted", "weights", "noise_found"} <= set(first)
    for part in first:
        np.testing.assert_array_equal(first[part], second[part], err_msg=part)
