"""How soon a command line does what it is asked: the first training step, a refusal, a scan, predictions.

    OMP_NUM_THREADS=1 python benchmarks/start_up.py
    OMP_NUM_THREADS=1 python benchmarks/start_up.py --src OLD/src src

Rows of BBC News, the packaged MiniLM, LoRA. Every command is a new process; those of several source trees
take turns. Seconds are medians over the rounds: of the processor (user and system, which depends less on
what else the machine does), and by the clock. The first round warms the disk and does not count.

Of `train` the time to its first step is split:

    command   Python, the command line, and what checks a table
    reading   the table is read and checked
    imports   torch, transformers, peft
    loading   model, adapter and tokens
    head      the head begins as a linear probe: a pass over the training rows
"""

import argparse
import json
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

from clear_peft.pipeline.packages import bbc_news, minilm

# ends at the first step; prints name, seconds by the clock and of the processor for each part
_CHILD = """
import json, os, sys, time
started = float(sys.argv.pop(1))
marks = []
def mark(name):
    marks.append((name, time.time() - started, sum(os.times()[:2])))
from clear_peft.cli import main
from clear_peft.cli.output import Output
def stage(self, text):
    name = text.split()[0]
    if name in ends:
        mark(ends[name])
    if name == "Training":
        from clear_peft.trainer import CleaRTrainer
        CleaRTrainer.training_step = step
def step(*_):
    mark("head")
    print(json.dumps(marks), flush=True)
    os._exit(0)
ends = {"Reading": "command", "Loading": "imports", "Training": "loading"}
Output.stage = stage
from clear_peft.pipeline import commands
read = commands.read_tables
def read_tables(config):
    tables = read(config)
    mark("reading")
    return tables
commands.read_tables = read_tables
main()
"""
PARTS = ("command", "reading", "imports", "loading", "head")


def first_step(src: str, command: Sequence[str]) -> dict[str, tuple[float, float]]:
    """Seconds by the clock and of the processor, of each part and altogether."""
    child = [sys.executable, "-c", _CHILD, str(time.time()), *command]
    done = subprocess.run(child, env=_env(src), capture_output=True, check=False)
    if done.returncode:
        sys.exit(done.stderr.decode())
    marks, before = json.loads(done.stdout), (0.0, 0.0)
    found = {"train, first step": tuple(marks[-1][1:])}
    for name, *now in marks:
        found[f"- {name}"] = (now[0] - before[0], now[1] - before[1])
        before = tuple(now)
    return found


def whole(src: str, command: Sequence[str], status: int) -> tuple[float, float]:
    """Seconds by the clock and of the processor of a command that ends with that status."""
    child = [sys.executable, "-c", "from clear_peft.cli import main; main()", *command]
    before, started = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
    done = subprocess.run(
        child, env=_env(src), stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, check=False
    )
    seconds, after = time.perf_counter() - started, resource.getrusage(resource.RUSAGE_CHILDREN)
    if done.returncode != status:
        sys.exit(done.stderr.decode())
    return seconds, after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def _env(src: str) -> dict[str, str]:
    return {**os.environ, "PYTHONPATH": src, "HF_HUB_OFFLINE": "1"}


def main() -> None:
    """Measure in turns, and print a table for each source tree."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    here = str(Path(__file__).parent.parent / "src")
    parser.add_argument("--src", nargs="+", default=[here], help="source trees (default: this one's)")
    parser.add_argument("--rows", type=int, default=300)
    parser.add_argument("--max-length", type=int, default=128)
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args()
    sources = [str(Path(src).resolve()) for src in options.src]
    found: list[dict[str, list[tuple[float, float]]]] = [{} for _ in sources]
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        table = str(folder / "rows.csv")
        bbc_news().sample(options.rows, random_state=0).to_csv(table, index=False)
        model = ["--model", str(minilm()), "--max-length", str(options.max_length)]
        run = ["train", *model, "--data", table, "--output", str(folder / "run")]
        whole(sources[0], [*run, "--epochs", "1", "--method", "plain"], 0)
        again = [*run, "--overwrite"]
        commands = {
            "refusal: no such file": ([*again, "--data", str(folder / "none.csv")], 2),
            "refusal: no such column": ([*again, "--label-column", "none"], 2),
            "refusal: no such choice": ([*again, "--peft", "none"], 2),
            "refusal: unknown setting of training": ([*again, "--training", '{"none": 1}'], 2),
            "scan": (["scan", *model, "--data", table, "--no-cache"], 0),
            "predict": (["predict", "--run", str(folder / "run"), "--data", table], 0),
        }
        for number in range(options.rounds + 1):
            for src, seconds in zip(sources, found, strict=True):
                new = first_step(src, [*run[:-1], f"{tempfile.mkdtemp(dir=folder)}/run"])
                for name, (command, status) in commands.items():
                    where = {
                        "scan": ["--output", f"{folder}/scan", "--overwrite"],
                        "predict": ["--output", f"{folder}/out.csv", "--overwrite"],
                    }.get(name, [])
                    new[name] = whole(src, [*command, *where], status)
                print(f"round {number}, {src}: {new['train, first step'][1]:.1f} s", file=sys.stderr)
                for name, both in new.items():
                    if number:
                        seconds.setdefault(name, []).append(both)
    print(f"{options.rows} rows, up to {options.max_length} tokens, {options.rounds} rounds\n")
    print("| s of the processor (by the clock) |" + "".join(f" {src} |" for src in options.src))
    print("|---|" + "---|" * len(sources))
    for name in found[0]:
        cells = [
            "{1:.1f} ({0:.1f})".format(*map(statistics.median, zip(*each[name], strict=True)))
            for each in found
        ]
        print(f"| {name} | {' | '.join(cells)} |", flush=True)


if __name__ == "__main__":
    main()
