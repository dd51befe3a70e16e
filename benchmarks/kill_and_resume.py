"""Kill a run again and again, resume it until it ends, and compare it with one that nothing disturbed.

Run it with `python benchmarks/kill_and_resume.py --kills 50`, for several methods with
`--runs clear plain:recommended:adapter`. Every child is the command line in a process of its own (forked, so
that modules are imported once), which sends itself SIGKILL at a moment that the seed chooses: after a random
time from when the run folder's config.yaml is there, or inside a call that is worth it (while a file of a
checkpoint is half written, before and after a rename, in a batch of the scoring pass, in the optimizer's
step). Or it is SIGINT, once or twice, after a random time, at a step or in a scoring batch. Adapter, label
issues and metrics (but times and memory) must be bit-identical; exits 1 where they are not. On the CPU in
float32. With `--processes 2` two processes train one model, and both are killed at a random time.
"""

import argparse
import json
import multiprocessing
import os
import random
import shutil
import signal
import socket
import sys
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

TESTS = Path(__file__).parents[1] / "tests"
FORK = multiprocessing.get_context("fork")
# where a child can die, and among how many calls the moment is drawn
PLACES = {
    "optimizer step": 60,
    "scoring batch": 14,
    "half a checkpoint file": 25,
    "half a trainer state": 4,
    "before a rename": 25,
    "after a rename": 25,
    "half a safetensors file": 8,
    "deletion of a checkpoint": 4,
    "SIGINT at a step": 60,
    "SIGINT in a scoring batch": 30,
    "two SIGINTs at a step": 60,
    "random time": 0,
    "SIGINT at random time": 0,
    "two SIGINTs at random time": 0,
}
INTERRUPTED = 130
# what a method has to be told
_TOLD = {"co_teaching": ["noise_rate"], "stgn": ["noise_rate"]}
_VARYING = {"train_seconds", "peak_memory_bytes"}


# In the child


def child(words: list[str], moment: str | None, errors: Path) -> None:
    """The command line in this process, which dies at the moment, "place:n"."""
    import torch

    from clear_peft import hardware
    from clear_peft.cli import main
    from clear_peft.pipeline import inference, training  # noqa: F401  all that may ask the hardware

    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
    os.dup2(os.open(errors, os.O_WRONLY | os.O_CREAT | os.O_TRUNC), 2)
    # a shell lets what it starts in the background ignore it
    signal.signal(signal.SIGINT, signal.default_int_handler)
    torch.set_num_threads(1)
    _everywhere(hardware.bf16_pays, lambda device: False)
    if moment:
        place, _, count = moment.partition(":")
        _arm(place, int(count))
    sys.argv = ["clear-peft", *words]
    main()


def _arm(place: str, count: int) -> None:
    import io

    import torch
    from safetensors import torch as safetensors_torch
    from transformers import TrainerState

    from clear_peft.trainer import passes

    calls = 0

    def die() -> None:
        sys.stderr.flush()
        if "SIGINT" not in place:
            os.kill(os.getpid(), signal.SIGKILL)
        for _ in range(2 if place.startswith("two") else 1):
            signal.raise_signal(signal.SIGINT)

    def is_time() -> bool:
        nonlocal calls
        calls += 1
        return calls == count

    def before(function, half=None):
        def patched(*arguments, **options):
            if is_time():
                if half is not None:
                    half(*arguments, **options)
                die()
            return function(*arguments, **options)

        return patched

    def after(function):
        def patched(*arguments, **options):
            result = function(*arguments, **options)
            if is_time():
                die()
            return result

        return patched

    def cut(path: object, content: bytes) -> None:
        with open(path, "wb") as stream:  # noqa: PTH123
            stream.write(content[: len(content) // 2])

    def half_torch(thing: object, file: object, *_: object, **__: object) -> None:
        whole = io.BytesIO()
        save(thing, whole)
        cut(file, whole.getvalue())

    def half_state(state: TrainerState, path: str) -> None:
        save_state(state, path)
        cut(path, Path(path).read_bytes())

    def half_safetensors(tensors: dict, path: object, *_: object, **__: object) -> None:
        cut(path, safetensors_torch.save(tensors))

    save, save_state = torch.save, TrainerState.save_to_json
    if place in ("optimizer step", "SIGINT at a step", "two SIGINTs at a step"):
        torch.optim.AdamW.step = before(torch.optim.AdamW.step)
    elif place in ("scoring batch", "SIGINT in a scoring batch"):
        forward = before(lambda: None)
        original = passes.pass_over

        def pass_over(*arguments, prepare, **options):
            def counted(batch):
                forward()
                return prepare(batch)

            return original(*arguments, prepare=counted, **options)

        _everywhere(original, pass_over)
    elif place == "half a checkpoint file":
        torch.save = before(torch.save, half_torch)
    elif place == "half a trainer state":
        TrainerState.save_to_json = before(TrainerState.save_to_json, half_state)
    elif place == "before a rename":
        Path.replace = before(Path.replace)
        Path.rename = before(Path.rename)
    elif place == "after a rename":
        Path.replace = after(Path.replace)
        Path.rename = after(Path.rename)
    elif place == "half a safetensors file":
        original = safetensors_torch.save_file
        _everywhere(original, before(original, half_safetensors))
    elif place == "deletion of a checkpoint":

        def half_gone(path: object, *_: object, **__: object) -> None:
            for file in sorted(Path(str(path)).iterdir())[:3]:
                if file.is_file():
                    file.unlink()

        rmtree = shutil.rmtree
        armed = before(rmtree, half_gone)
        shutil.rmtree = lambda path, *a, **o: (armed if "checkpoint-" in str(path) else rmtree)(path, *a, **o)


def _everywhere(original: object, patched: object) -> None:
    """Replace a function by name in every module that has imported it."""
    for module in list(sys.modules.values()):
        for name, value in list(vars(module).items() if hasattr(module, "__dict__") else ()):
            if value is original:
                setattr(module, name, patched)


# In the harness


@dataclass(frozen=True)
class Way:
    """How a run trains."""

    method: str
    preset: str = "recommended"
    peft: str = "lora"

    def __str__(self) -> str:
        return f"{self.method}:{self.preset}:{self.peft}"


@dataclass
class Moments:
    """What happened at one kind of moment."""

    tried: int = 0
    ended: int = 0


@dataclass
class Tally:
    """What happened to the runs of one way."""

    kills: int = 0
    runs: int = 0
    places: dict[str, Moments] = field(default_factory=dict)
    differing: list[str] = field(default_factory=list)


class Alone:
    """One process, which may kill itself at a moment."""

    def __init__(self, words: list[str], moment: str | None, errors: Path) -> None:
        self._process = FORK.Process(target=child, args=(words, moment, errors))
        self.start, self.join, self.is_alive = (
            self._process.start,
            self._process.join,
            self._process.is_alive,
        )

    def kill(self, kind: int) -> None:
        """Send a signal."""
        os.kill(self._process.pid, kind)

    @property
    def exitcode(self) -> int:
        """The first that is not 0."""
        return self._process.exitcode


class Ranks:
    """Several processes that train one model, as ``torchrun`` starts them, and as one process is asked."""

    def __init__(self, count: int, words: list[str], errors: Path) -> None:
        with socket.socket() as free:
            free.bind(("localhost", 0))
            port = free.getsockname()[1]
        shared = {"WORLD_SIZE": str(count), "MASTER_ADDR": "localhost", "MASTER_PORT": str(port)}
        self._processes = [
            FORK.Process(
                target=_as_rank,
                args=({**shared, "RANK": str(rank), "LOCAL_RANK": str(rank)}, words, f"{errors}{rank or ''}"),
            )
            for rank in range(count)
        ]

    def start(self) -> None:
        """Start all."""
        for process in self._processes:
            process.start()

    def join(self, timeout: float | None = None) -> None:
        """Wait for all."""
        for process in self._processes:
            process.join(timeout)

    def is_alive(self) -> bool:
        """Whether none has ended."""
        return all(process.is_alive() for process in self._processes)

    def kill(self, kind: int) -> None:
        """Send a signal."""
        for process in self._processes:
            if process.is_alive():
                os.kill(process.pid, kind)

    @property
    def exitcode(self) -> int:
        """The first that is not 0."""
        return next((p.exitcode for p in self._processes if p.exitcode), 0)


def _as_rank(environment: dict[str, str], words: list[str], errors: str) -> None:
    os.environ |= environment
    child(words, None, Path(errors))


def ended(
    words: list[str], folder: Path, count: int, moment: str | None = None, meanwhile: Any = None
) -> tuple[int, str]:
    """Exit status and errors of a child; ``meanwhile`` is called with it once it is the command."""
    errors = folder / "errors.txt"
    errors.unlink(missing_ok=True)
    process = Ranks(count, words, errors) if count > 1 else Alone(words, moment, errors)
    process.start()
    if meanwhile is not None:
        # before, it is still a copy of this program, whose words for an interrupt are others
        while not errors.is_file() and process.is_alive():
            time.sleep(0.001)
        meanwhile(process)
    process.join()
    return process.exitcode, errors.read_text() if errors.is_file() else ""


def tiny(folder: Path, noise: float) -> dict[str, str]:
    """A tiny model and a noisy table."""
    sys.path.insert(0, str(TESTS))
    from tiny_text import keyword_table, tiny_checkpoint

    keyword_table(120, seed=0, noise=noise).to_csv(folder / "train.csv", index=False)
    tiny_checkpoint(folder / "model")
    return {
        "model": str(folder / "model"),
        "data": str(folder / "train.csv"),
        "clean-label-column": "clean_label",
        "max-length": "32",
        "batch-size": "8",
        "epochs": "4",
        "learning-rate": "0.01",
    }


def outcome(run: Path) -> dict[str, bytes]:
    """What must not differ: the bytes of every file of the result, metrics without what the clock says."""
    metrics = json.loads((run / "metrics.json").read_text())
    kept = {name: value for name, value in metrics.items() if name not in _VARYING}
    files = {"metrics.json": json.dumps(kept, sort_keys=True).encode()}
    epochs = json.loads((run / "epochs.json").read_text())  # a checkpoint keeps its keys in another order
    files["epochs.json"] = json.dumps(epochs, sort_keys=True).encode()
    for name in ("label_issues.csv", "label_quality.safetensors", "adapter"):
        path = run / name
        parts = path.rglob("*") if path.is_dir() else [path]
        files |= {str(p.relative_to(run)): p.read_bytes() for p in parts if p.is_file()}
    return files


def killed_once(
    run: Path, words: list[str], rng: random.Random, place: str, mean_seconds: float, count: int
) -> bool:
    """Start or resume, and kill; False where the run ended before its moment came."""

    def meanwhile(process: Any) -> None:
        while not (run / "config.yaml").is_file() and process.is_alive():
            time.sleep(0.02)
        process.join(rng.uniform(0, mean_seconds))
        kind = signal.SIGINT if "SIGINT" in place else signal.SIGKILL
        for _ in range(2 if place.startswith("two") else 1):
            if process.is_alive():
                process.kill(kind)
            time.sleep(rng.uniform(0, 0.3))

    timed = place.endswith("random time")
    moment = None if timed else f"{place}:{rng.randint(1, PLACES[place])}"
    status, errors = ended(resumed(words, run), run.parent, count, moment, meanwhile if timed else None)
    # a process that is coming up or going down has other words for an interrupt
    allowed = {INTERRUPTED, -signal.SIGINT, 1} if "SIGINT" in place else {-signal.SIGKILL}
    if status not in {0, *allowed} or (status == 1 and "KeyboardInterrupt" not in errors):
        raise SystemExit(f"A child failed at {place} ({status}): {errors[-2000:]}")
    return status != 0


def resumed(words: list[str], run: Path) -> list[str]:
    """The same command line, carrying on what there is."""
    return [*words, *(["--resume"] if (run / "config.yaml").is_file() else [])]


def disturbed(way: Way, folder: Path, options: argparse.Namespace, rng: random.Random) -> Tally:
    """Kill and resume runs of one way, in a folder of their own, and compare."""
    values = tiny(folder, options.noise)
    values |= {"method": way.method, "preset": way.preset, "peft": way.peft}
    words = ["train", "--format", "quiet", *(w for k, v in values.items() for w in (f"--{k}", v))]
    if way.method in _TOLD:
        told = {"training": {"loss_options": dict.fromkeys(_TOLD[way.method], options.noise)}}
        (folder / "told.yaml").write_text(json.dumps(told))  # JSON is YAML
        words += ["--config", str(folder / "told.yaml")]
    begun = time.perf_counter()
    count = options.processes
    status, errors = ended([*words, "--output", str(folder / "undisturbed")], folder, count)
    if status:
        raise SystemExit(errors)
    seconds = time.perf_counter() - begun
    expected = outcome(folder / "undisturbed")
    tally = Tally(places={place: Moments() for place in options.places})
    while tally.kills < options.kills:
        tally.runs += 1
        run = folder / f"run-{tally.runs}"
        there = [*words, "--output", str(run)]
        history: list[str] = []
        for _ in range(options.run_kills):
            place = rng.choice(options.places)
            tally.places[place].tried += 1
            if not killed_once(run, there, rng, place, seconds / 3, count):
                break
            tally.places[place].ended += 1
            tally.kills += 1
            history.append(place)
            if (run / "metrics.json").is_file():
                break  # it came after the end
        if not (run / "metrics.json").is_file():
            status, errors = ended(resumed(there, run), folder, count)
            if status:
                raise SystemExit(f"Resuming failed after {history}: {errors[-2000:]}")
        found = outcome(run)
        wrong = sorted(n for n in expected.keys() | found.keys() if expected.get(n) != found.get(n))
        ends = ", ".join(history) or "no kill"
        print(f"{way}, run {tally.runs}: {ends}: {wrong or 'identical'}", flush=True)
        if "metrics.json" in wrong:
            one, other = (json.loads(files["metrics.json"]) for files in (expected, found))
            print("  of metrics.json:", [name for name in one if one[name] != other.get(name)], flush=True)
        tally.differing += [f"run {tally.runs} ({ends}): {', '.join(wrong)}"] if wrong else []
        left = [p.name for p in run.rglob(".*")]
        if left:
            print(f"  left over: {', '.join(left)}", flush=True)
    return tally


def main() -> None:
    """Kill, resume, compare, and print a table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--kills", type=int, default=50, help="of every way")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument(
        "--runs",
        nargs="+",
        default=[Way("clear")],
        type=lambda text: Way(*text.split(":")),
        help="METHOD[:PRESET[:PEFT]]",
    )
    parser.add_argument("--noise", type=float, default=0.3, help="share of wrong labels")
    parser.add_argument("--run-kills", type=int, default=3, help="kills of one run before it may end")
    parser.add_argument("--places", nargs="+", choices=PLACES, default=list(PLACES))
    parser.add_argument("--processes", type=int, default=1, help="that train one model")
    options = parser.parse_args()
    if options.processes > 1:
        options.places = ["random time"]  # the others are moments of one process
    os.environ |= {"OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1", "TOKENIZERS_PARALLELISM": "false"}
    import clear_peft.pipeline.training  # noqa: F401  once, for all children

    rng = random.Random(options.seed)
    tallies: dict[Way, Tally] = {}
    for way in options.runs:
        # not a TemporaryDirectory, which a forked child would delete when it leaves
        scratch = Path(tempfile.mkdtemp())
        try:
            tallies[way] = disturbed(way, scratch, options, rng)
        finally:
            shutil.rmtree(scratch)
    for way, tally in tallies.items():
        print(f"{tally.kills} kills in {tally.runs} runs of {way}; place, killed:")
        for place, moments in tally.places.items():
            print(f"  {place:26} {moments.ended:4} of {moments.tried}")
        end = "different:" if tally.differing else "all bit-identical to the undisturbed run"
        print(end, *tally.differing, sep="\n  ", flush=True)
    sys.exit(any(tally.differing for tally in tallies.values()))


if __name__ == "__main__":
    main()
