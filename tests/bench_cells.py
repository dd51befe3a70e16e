"""Cells and records for the tests of the bench, and ways to run a cell without training."""

import os
import signal
import time
from dataclasses import asdict

import numpy as np

from clear_peft.baselines import METHODS
from clear_peft.bench.cell import digests
from clear_peft.bench.grid import Cell
from clear_peft.errors import InputError


def cell(method="plain", seed=0, noise="none", data="fields", peft="lora", **settings):
    specs = {"sym40": {"kind": "symmetric", "rate": 0.4}, "sym60": {"kind": "symmetric", "rate": 0.6}}
    return Cell(
        model="tiny",
        data=data,
        data_source={"train": "train.csv", "test": "test.csv"},
        noise=noise,
        noise_spec=specs.get(noise, {}),
        peft=peft,
        method=method,
        method_settings={"method": method if method in METHODS else "clear"} | settings,
        train={"epochs": 4},
        seed=seed,
    )


def record(of, accuracy=0.8, curve=None, memorised=0.1, seconds=10.0, **metrics):
    """What running the cell could have given; the epoch before the last is the selected one."""
    curve = [accuracy - 0.2, accuracy + 0.05, accuracy, accuracy - 0.1] if curve is None else curve
    epochs = [
        {"epoch": i, "test_accuracy": value, "memorised": memorised * i / len(curve)}
        for i, value in enumerate(curve, start=1)
    ]
    rates = {"none": 0.0, "sym40": 0.41, "sym60": 0.59}
    return {
        "key": of.key,
        "cell": asdict(of),
        "noise": {"rate": rates.get(of.noise), "rows": 90, "test_rows": 30, "classes": 3},
        "metrics": {
            "test": {"accuracy": accuracy, "macro_f1": accuracy / 2},
            "selected_epoch": len(curve) - 1,
            "epochs": epochs,
            "train_seconds": seconds,
            "peak_memory_bytes": 300_000_000,
            "memorised": memorised,
            **metrics,
        },
        "environment": {
            "processor": "abacus",
            "cores": 2,
            "threads": 1,
            "gpu": None,
            "versions": {},
            "date": "",
        },
    }


def losses(seed=0):
    """A histogram as a run records it, with the mixture that was fitted."""
    rng = np.random.default_rng(seed)
    values = rng.normal(-3, 1, 60), rng.normal(2, 1, 30)
    edges = np.linspace(-7, 6, 41)
    right, wrong = (np.histogram(part, edges)[0].tolist() for part in values)
    return {"edges": edges.tolist(), "right": right, "wrong": wrong, "parameters": {}}


def pretend(of, folder, data_dir):
    """Runs a cell in no time; leaves a trace beside the data, as only files reach another process."""
    (data_dir / f"{of.key}.ran").touch()
    threads = int(os.environ["OMP_NUM_THREADS"])
    return record(of, seconds=threads)


def with_tables(of, folder, data_dir):
    """As pretend, and says which tables were read."""
    made = pretend(of, folder, data_dir)
    return {**made, "environment": {**made["environment"], "tables": digests(of.data_source, data_dir)}}


def fail_on_paper(of, folder, data_dir):
    if of.method == "paper":
        raise InputError("The paper is out of stock: order more.")
    if of.method == "bug":
        raise RuntimeError("never\nmind")
    if of.method == "killed":
        os._exit(9)
    return pretend(of, folder, data_dir)


def first_is_slow(of, folder, data_dir):
    if of.method == "slow":
        (folder / "half").touch()
        (data_dir / "began").touch()
        time.sleep(60)
    return pretend(of, folder, data_dir)


def with_defaults(of, folder, data_dir):
    """As a version of the package would, whose default of ``class_balance`` stands in a file."""
    balance = float((data_dir / "class_balance").read_text())
    return record(of, training={"class_balance": balance, "noise_threshold": of.seed / 10})


def dies_once(of, folder, data_dir):
    """Of some methods, the process is killed: of "mortal" at the first try, of "killed" always."""
    tries = data_dir / f"{of.key}.tries"
    with tries.open("a") as file:
        file.write("x")
    if of.method == "killed" or (of.method == "mortal" and len(tries.read_text()) == 1):
        os.kill(os.getpid(), signal.SIGKILL)
    return fail_on_paper(of, folder, data_dir)
