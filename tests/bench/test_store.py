import json
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context

import pytest

from bench_cells import cell, record
from clear_peft.bench import store
from clear_peft.errors import InputError


def test_round_trip_rounded_and_in_the_order_of_keys(tmp_path):
    path = tmp_path / "results.jsonl"
    assert store.read(path) == {}
    for seed in (2, 0, 1):
        store.add(
            path, record(cell(seed=seed, learning_rate=0.00123456789), accuracy=2 / 3, seconds=float("nan"))
        )
    records = store.read(path)
    assert list(records) == sorted(records)
    assert {r["cell"]["seed"] for r in records.values()} == {0, 1, 2}
    one = next(iter(records.values()))
    assert one["metrics"]["test"]["accuracy"] == 0.666667
    assert one["metrics"]["train_seconds"] is None
    assert one["cell"]["method_settings"]["learning_rate"] == 0.00123456789
    before = path.read_bytes()
    store.add(path, one)
    assert path.read_bytes() == before


def test_results_that_another_has_added_meanwhile_are_kept(tmp_path):
    path = tmp_path / "results.jsonl"
    store.add(path, record(cell(seed=0)))
    other = record(cell(seed=7))
    path.write_text(path.read_text() + json.dumps(other) + "\n")
    store.add(path, record(cell(seed=1)))
    assert {r["cell"]["seed"] for r in store.read(path).values()} == {0, 1, 7}


def test_results_of_two_processes_at_once_are_kept(tmp_path):
    path = tmp_path / "results.jsonl"
    with ProcessPoolExecutor(2, get_context("spawn")) as pool:
        list(pool.map(_add_some, [path] * 2, [0, 40]))
    assert {r["cell"]["seed"] for r in store.read(path).values()} == set(range(80))


def _add_some(path, first):
    for seed in range(first, first + 40):
        store.add(path, record(cell(seed=seed)))


def test_an_empty_file_is_an_empty_store(tmp_path):
    path = tmp_path / "results.jsonl"
    path.touch()
    assert store.read(path) == {}
    store.add(path, record(cell()))
    assert len(store.read(path)) == 1


def test_a_store_in_no_folder_is_a_sentence(tmp_path):
    with pytest.raises(InputError, match="Cannot write"):
        store.add(tmp_path / "none" / "results.jsonl", record(cell()))


def test_names_may_hold_other_line_separators(tmp_path):
    path = tmp_path / "results.jsonl"
    for name in ("a\u2028b", "a\x85b"):
        store.add(path, record(cell(data=name)))
    assert {r["cell"]["data"] for r in store.read(path).values()} == {"a\u2028b", "a\x85b"}


@pytest.mark.parametrize(
    "damage",
    [
        lambda t: t[:-40],
        lambda t: "<<<<<<< HEAD",
        lambda t: "[]",
        lambda t: "[" * 100_000,
        lambda t: t.replace("0.4", "0.5"),
        lambda t: t.replace('"rate": 0.41', '"rates": 0.41'),
        lambda t: t.replace('"accuracy"', '"precision"'),
        lambda t: t.replace('"epochs": [', '"epoch": ['),
        lambda t: t.replace('"processor"', '"cpu"'),
        lambda t: json.dumps(json.loads(t) | {"metrics": []}),
    ],
)
def test_a_damaged_line_is_named(tmp_path, damage):
    path = tmp_path / "results.jsonl"
    for seed in range(3):
        store.add(path, record(cell(seed=seed, noise="sym40")))
    lines = path.read_text().splitlines()
    lines[1] = damage(lines[1])
    path.write_text("\n".join(lines) + "\n")
    with pytest.raises(InputError, match="line 2, is no result"):
        store.read(path)


def test_several_stores_as_one(tmp_path):
    one, two = tmp_path / "1.jsonl", tmp_path / "2.jsonl"
    for path, seeds in ((one, (0, 1)), (two, (1, 2))):
        for seed in seeds:
            store.add(path, record(cell(seed=seed)))
    assert sorted(r["cell"]["seed"] for r in store.read_all([one, two])) == [0, 1, 2]
    with pytest.raises(InputError, match="holds no results"):
        store.read_all([one, tmp_path / "3.jsonl"])


def test_results_of_some_data_and_methods(tmp_path):
    path = tmp_path / "1.jsonl"
    for of in (cell(), cell(data="woods"), cell("paper", data="woods")):
        store.add(path, record(of))
    found = store.read_all([path], methods=["plain"], data=["woods"])
    assert [(r["cell"]["method"], r["cell"]["data"]) for r in found] == [("plain", "woods")]
    with pytest.raises(InputError, match="paper has no results on fields"):
        store.read_all([path], methods=["paper"], data=["fields"])
    with pytest.raises(InputError, match="no results of lakes: choose from fields, woods"):
        store.read_all([path], data=["woods", "lakes"])
