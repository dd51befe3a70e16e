"""Tests run offline and on one thread."""

import os
import shutil
import signal
from pathlib import Path

os.environ["HF_HUB_OFFLINE"] = "1"
os.environ["HF_HUB_DISABLE_PROGRESS_BARS"] = "1"
os.environ.setdefault("OMP_NUM_THREADS", "1")

# a shell's background jobs ignore Ctrl-C, and so would what tests it
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)

import pytest

from stand_in_hub import hub  # noqa: F401


@pytest.fixture(scope="session", autouse=True)
def _one_thread():
    import torch

    torch.set_num_threads(1)


@pytest.fixture(scope="session")
def cluster():
    """A local Ray of two workers, which can import what lies beside this file."""
    ray = pytest.importorskip("ray", reason="needs the extra ray")
    here = (str(Path(__file__).parent), os.environ.get("PYTHONPATH", ""))
    paths = {"PYTHONPATH": os.pathsep.join(filter(None, here))}
    ray.init(
        num_cpus=2, num_gpus=0, include_dashboard=False, log_to_driver=False, runtime_env={"env_vars": paths}
    )
    yield ray
    ray.shutdown()


@pytest.fixture(autouse=True)
def _compiles_anew(request):
    """What other tests have compiled does not count against the limit of torch.compile."""
    if request.node.get_closest_marker("compiled"):
        import torch

        torch._dynamo.reset()


def pytest_configure(config):
    # peft 0.21 asks transformers 5.23 by an old name; nothing of ours could avoid it.
    config.addinivalue_line(
        "filterwarnings", "ignore:`is_gradient_checkpointing` is deprecated:FutureWarning"
    )


def pytest_collection_modifyitems(items):
    if not (shutil.which("g++") or shutil.which("clang++")):
        for item in items:
            if item.get_closest_marker("compiled"):
                item.add_marker(pytest.mark.skip(reason="torch.compile needs a C++ compiler"))
