"""Two processes on this machine."""

import subprocess
import sys
from pathlib import Path


def run_two(script: Path, *arguments: str, status: int = 0) -> str:
    """Run a script in two gloo processes that are to end with that status; returns what they printed."""
    command = [
        sys.executable,
        "-m",
        "torch.distributed.run",
        "--nproc-per-node=2",
        "--standalone",
        str(script),
        *arguments,
    ]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == status, done.stderr[-3000:]
    return done.stdout
