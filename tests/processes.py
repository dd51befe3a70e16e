"""Several processes on this machine."""

import subprocess
import sys
from pathlib import Path


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
