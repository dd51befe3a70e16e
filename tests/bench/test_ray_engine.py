"""Cells as tasks of a local Ray of two workers."""

from functools import partial

import pytest

import bench_cells
from bench_cells import cell
from clear_peft.bench import store
from clear_peft.bench.ray_engine import in_ray
from clear_peft.bench.runner import run_grid
from clear_peft.errors import InputError

# of Ray's own
pytestmark = pytest.mark.filterwarnings("ignore")
ENGINE = partial(in_ray, cpus=1, gpus=0)


@pytest.fixture
def place(tmp_path):
    for name in ("train.csv", "test.csv"):
        (tmp_path / name).touch()
    return tmp_path


def run(cells, place, **more):
    return run_grid(
        cells,
        place / "results.jsonl",
        data_dir=place,
        say=lambda _: None,
        work=bench_cells.dies_once,
        engine=ENGINE,
        **more,
    )


def test_a_killed_worker_is_replaced_and_a_grid_goes_on(cluster, place):
    cells = [cell(method) for method in ("plain", "mortal", "paper", "recommended")]
    assert run(cells, place, limit=1).done == 1
    outcome = run(cells, place)
    assert (outcome.skipped, outcome.done) == (1, 2)
    (sentence,) = outcome.failed.values()
    assert sentence == "The paper is out of stock: order more."
    kept = {record["cell"]["method"] for record in store.read(place / "results.jsonl").values()}
    assert kept == {"plain", "mortal", "recommended"}
    assert (place / f"{cells[1].key}.tries").read_text() == "xx"


def test_a_cell_that_always_kills_its_worker_fails_alone(cluster, place):
    cells = [cell("killed"), cell("plain")]
    outcome = run(cells, place)
    assert outcome.done == 1
    assert "WorkerCrashedError" in next(iter(outcome.failed.values()))
    assert (place / f"{cells[0].key}.tries").read_text() == "xxx"


@pytest.mark.parametrize("needs", [{"cpus": 64, "gpus": 0}, {"cpus": 1, "gpus": 1}])
def test_what_no_machine_has_is_refused(cluster, place, needs):
    with pytest.raises(InputError, match="No machine of the cluster has"):
        list(in_ray([cell()], bench_cells.pretend, place, **needs))


def test_without_ray_it_is_named(place, monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "ray", None)
    with pytest.raises(InputError, match="pip install 'ray<"):
        list(in_ray([cell()], bench_cells.pretend, place, cpus=1, gpus=0))
