import multiprocessing
import os
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import pytest

import bench_cells
from bench_cells import cell
from clear_peft.bench import store
from clear_peft.bench.grid import TRUE_NOISE_RATE
from clear_peft.bench.runner import run_grid
from clear_peft.errors import InputError


@pytest.fixture
def place(tmp_path):
    for name in ("train.csv", "test.csv"):
        (tmp_path / name).touch()
    return tmp_path


def run(cells, place, work=bench_cells.pretend, **more):
    said = []
    outcome = run_grid(cells, place / "results.jsonl", data_dir=place, say=said.append, work=work, **more)
    return outcome, said


def test_an_interrupted_grid_is_completed_and_a_complete_one_left_alone(place):
    cells = [cell(seed=seed) for seed in range(4)]
    outcome, said = run(cells, place, limit=2)
    assert (outcome.cells, outcome.skipped, outcome.done) == (4, 0, 2)
    assert said[0].startswith("[1/4] fields none lora plain seed 0: 80.0 (")
    assert set(store.read(place / "results.jsonl")) == {c.key for c in cells[:2]}

    outcome, said = run(cells, place, workers=2)
    assert (outcome.skipped, outcome.done) == (2, 2)
    assert said[0].startswith("2 of 4 cells are in")
    assert said[-1].startswith("[4/4]")
    assert set(store.read(place / "results.jsonl")) == {c.key for c in cells}

    content = (place / "results.jsonl").read_bytes()
    for trace in place.glob("*.ran"):
        trace.unlink()
    outcome, _ = run(cells, place)
    assert (outcome.skipped, outcome.done) == (4, 0)
    assert (place / "results.jsonl").read_bytes() == content
    assert not list(place.glob("*.ran"))


def test_workers_share_the_cores(place, monkeypatch):
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(6)), raising=False)
    before = os.environ.get("OMP_NUM_THREADS")
    run([cell(seed=seed) for seed in range(2)], place, workers=2)
    seconds = [r["metrics"]["train_seconds"] for r in store.read(place / "results.jsonl").values()]
    assert seconds == [3, 3]  # pretend() puts its threads there
    assert os.environ.get("OMP_NUM_THREADS") == before


def test_a_failing_cell_is_reported_and_the_others_go_on(place):
    cells = [cell(method) for method in ("paper", "bug", "killed", "plain")]
    outcome, said = run(cells, place, bench_cells.fail_on_paper)
    assert outcome.done == 1
    assert list(store.read(place / "results.jsonl")) == [cells[3].key]
    by_method = {name.split()[3]: sentence for name, sentence in outcome.failed.items()}
    assert by_method["paper"] == "The paper is out of stock: order more."
    assert by_method["bug"].startswith("RuntimeError: never mind (bench_cells.py, line ")
    assert "died with status 9" in by_method["killed"]
    assert "paper seed 0: failed: The paper is out of stock: order more. (" in said[0]


def test_a_table_that_is_missing_is_said_before_anything_runs(tmp_path):
    with pytest.raises(InputError, match=r"data\.fields\.train: there is no train\.csv"):
        run([cell()], tmp_path)


def test_a_table_that_has_changed_is_another(place):
    run([cell()], place, bench_cells.with_tables)
    run([cell(), cell("paper")], place, bench_cells.with_tables)
    (place / "test.csv").write_text("text,label\n")
    with pytest.raises(InputError, match=r"data\.fields\.test: test\.csv in .* is not the table that"):
        run([cell("gce")], place, bench_cells.with_tables)
    assert len(store.read(place / "results.jsonl")) == 2


def test_a_default_that_has_changed_makes_another_recipe(place):
    def paper(seed):
        return cell("paper", seed, training={"noise_threshold": TRUE_NOISE_RATE})

    run([paper(0)], place)  # older records do not say
    (place / "class_balance").write_text("0")
    run([paper(1)], place, bench_cells.with_defaults)
    run([paper(2)], place, bench_cells.with_defaults)  # what the grid sets is each cell's own
    (place / "class_balance").write_text("0.5")
    run([cell("gce")], place, bench_cells.with_defaults)
    with pytest.raises(InputError, match=r"paper has class_balance 0\.5, and 0\.0 in .*results\.jsonl"):
        run([paper(3)], place, bench_cells.with_defaults)
    assert len(store.read(place / "results.jsonl")) == 4


def test_a_store_elsewhere_than_in_jsonl_is_refused(place):
    with pytest.raises(InputError, match=r"ends in \.jsonl"):
        run_grid([cell()], place / "results.csv", data_dir=place, say=print)


_SCRIPT = """
import sys
from pathlib import Path
import bench_cells
from clear_peft.bench.runner import run_grid
if __name__ == "__main__":
    place = Path(sys.argv[1])
    cells = [bench_cells.cell("plain"), bench_cells.cell("slow")]
    run_grid(cells, place / "results.jsonl", data_dir=place, say=print, work=bench_cells.first_is_slow)
"""


@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_finished_cells_survive_and_nothing_else_does(place, how, monkeypatch):
    scratch = place / "scratch"
    scratch.mkdir()
    script = place / "script.py"
    script.write_text(_SCRIPT)
    environment = {**os.environ, "TMPDIR": str(scratch), "PYTHONPATH": str(Path(bench_cells.__file__).parent)}
    process = subprocess.Popen(
        [sys.executable, script, place],
        env=environment,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    _until((place / "began").exists)
    assert list(scratch.rglob("half"))
    process.send_signal(how)
    assert process.wait(20) != 0
    assert list(store.read(place / "results.jsonl")) == [bench_cells.cell("plain").key]
    _until(lambda: not list(scratch.iterdir()))  # the worker has noticed, too


def test_an_interrupt_between_two_cells_ends_the_others(place, monkeypatch):
    scratch = place / "scratch"
    scratch.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(scratch))

    def interrupted(_said):
        _until((place / "began").exists)
        raise KeyboardInterrupt

    cells = [cell("plain"), cell("slow")]
    with pytest.raises(KeyboardInterrupt) as raised:
        run_grid(
            cells,
            place / "results.jsonl",
            data_dir=place,
            workers=2,
            say=interrupted,
            work=bench_cells.first_is_slow,
        )
    assert raised.traceback  # it is on its way still, and holds what it went through
    assert multiprocessing.active_children() == []
    assert list(scratch.iterdir()) == []
    assert list(store.read(place / "results.jsonl")) == [cells[0].key]


def _until(condition):
    end = time.monotonic() + 30
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.05)
