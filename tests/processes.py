"""Several processes on this machine."""

import subprocess
import sys
from pathlib import Path

import numpy as np

_TRAINS = """
import sys
sys.path[:0] = {path!r}
import numpy as np
from clear_peft.pipeline.distributed import shutdown
from {module} import left_by, on_any_number
made = on_any_number({out!r}, batch=2)
np.savez({out!r} + f"/{{made.args.process_index}}.npz", **left_by(made))
shutdown()
"""


def run_ranks(script: Path, *arguments: str, ranks: int = 2, status: int = 0) -> str:
    """Run a script in so many gloo processes; returns what they printed, or said if they were to fail."""
    command = [
        sys.executable,
        "-m",
        "torch.distributed.run",
        f"--nproc-per-node={ranks}",
        "--standalone",
        str(script),
        *arguments,
    ]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == status, done.stderr[-3000:]
    return done.stderr if status else done.stdout


def check_two_train_as_one(test_file: str, out: Path, tolerance: float) -> dict[str, np.ndarray]:
    """Check that two processes end with the same arrays, and near those of one process; returns those of one.

    The test file has ``on_any_number(out, batch)``, which trains, and ``left_by(made)``: the arrays.
    """
    place = Path(test_file)
    script = out / "two.py"
    script.write_text(
        _TRAINS.format(path=[str(place.parent), str(place.parent.parent)], module=place.stem, out=str(out))
    )
    run_ranks(script)
    module = sys.modules[place.stem]
    one = module.left_by(module.on_any_number(out / "one", batch=4))
    first, second = (np.load(out / f"{rank}.npz") for rank in (0, 1))
    for part, values in one.items():
        np.testing.assert_array_equal(first[part], second[part], err_msg=part)
        np.testing.assert_allclose(first[part], values, atol=tolerance, err_msg=part)
    return one
