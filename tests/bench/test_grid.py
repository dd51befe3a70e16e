import copy
import json
import math
import subprocess
import sys
from dataclasses import asdict
from datetime import date

import pytest
import yaml

from clear_peft.bench.grid import key_of, read_grid, shipped_grids, with_noise_rate
from clear_peft.errors import InputError

GRID = {
    "model": "package:minilm",
    "train": {"epochs": 3, "learning_rate": 1e-3},
    "data": {"a": {"train": "a.csv", "test": "b.csv", "train_rows": 50}, "bbc": {"package": "bbc"}},
    "noise": {"sym": {"kind": "symmetric", "rate": 0.6}},
    "methods": {"plain": {}, "paper": {"method": "clear", "preset": "paper"}},
    "cells": [
        {"data": ["a"], "noise": ["none", "sym"], "methods": ["plain", "paper"], "seeds": [0, 1]},
        {"data": ["bbc", "a"], "noise": ["sym"], "methods": ["plain"], "peft": ["lora", "bitfit"]},
    ],
}


@pytest.fixture
def grid(tmp_path):
    def write(change=lambda values: None):
        values = copy.deepcopy(GRID)
        change(values)
        path = tmp_path / "grid.yaml"
        path.write_text(yaml.safe_dump(values))
        return str(path)

    return write


def test_every_cell_once_and_by_seed(grid):
    cells = read_grid(grid())
    assert [cell.name for cell in cells] == [
        "a none lora plain seed 0",
        "a none lora paper seed 0",
        "a sym lora plain seed 0",
        "a sym lora paper seed 0",
        "bbc sym lora plain seed 0",
        "bbc sym bitfit plain seed 0",
        "a sym bitfit plain seed 0",
        "a none lora plain seed 1",
        "a none lora paper seed 1",
        "a sym lora plain seed 1",
        "a sym lora paper seed 1",
    ]
    assert cells[0].method_settings == {"method": "plain"}
    assert cells[1].method_settings == {"method": "clear", "preset": "paper"}


def test_a_key_is_the_same_in_another_process_and_out_of_a_store(grid):
    path = grid(lambda g: g["noise"].update(map={"kind": "map", "mapping": {2: 1, 10: 0}, "rate": 0.3}))
    cells = read_grid(path)
    code = f"from clear_peft.bench.grid import read_grid; print([c.key for c in read_grid({path!r})])"
    elsewhere = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    ).stdout
    assert elsewhere.strip() == str([cell.key for cell in cells])
    for cell in cells:
        assert key_of(json.loads(json.dumps(asdict(cell)))) == cell.key
    assert key_of({"mapping": {2: 1, 10: 0}}) == key_of({"mapping": {"10": 0, "2": 1}})


@pytest.mark.parametrize(
    "change",
    [
        lambda g: g.update(model="other"),
        lambda g: g["train"].update(epochs=4),
        lambda g: g["data"]["a"].update(train_rows=51),
        lambda g: g["noise"]["sym"].update(rate=0.5),
        lambda g: g["methods"]["plain"].update(epochs=4),
    ],
)
def test_a_key_changes_with_whatever_changes_the_outcome(grid, change):
    before = {cell.name: cell.key for cell in read_grid(grid())}
    after = {cell.name: cell.key for cell in read_grid(grid(change))}
    assert before["a sym lora plain seed 0"] != after["a sym lora plain seed 0"]


def test_settings_of_one_peft_method_are_in_its_cells_alone(grid):
    def change(g):
        g["peft"] = {"lora": {"peft_options": {"r": 2}}}
        g["cells"][0]["peft"] = ["lora", "prefix"]

    cells = read_grid(grid(change))
    own = {"lora": {"r": 2}}
    assert {cell.peft for cell in cells} == {"lora", "prefix", "bitfit"}
    assert all(cell.train.get("peft_options") == own.get(cell.peft) for cell in cells)
    assert all(cell.train["epochs"] == 3 for cell in cells)


def test_yaml_without_a_point_is_a_number_still(grid, tmp_path):
    path = grid()
    text = (tmp_path / "grid.yaml").read_text().replace("0.001", "1e-3")
    assert "1e-3" in text
    before = [cell.key for cell in read_grid(path)]
    (tmp_path / "grid.yaml").write_text(text)
    assert [cell.key for cell in read_grid(path)] == before


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda g: g.pop("methods"), "methods is missing"),
        (lambda g: g.update(model=3), "model is 3"),
        (lambda g: g.update(seeds=[1]), "unknown key 'seeds'"),
        (lambda g: g["data"]["a"].pop("train"), "data.a lacks train"),
        (lambda g: [g["data"]["a"].pop(key) for key in ("test", "train_rows")], "data.a lacks test"),
        (lambda g: g["data"]["a"].update(train_rows=0), "data.a.train_rows is 0"),
        (lambda g: g["data"]["a"].update(train_rows=-5), "data.a.train_rows is -5"),
        (lambda g: g["data"]["a"].update(text_column=""), "data.a.text_column is ''"),
        (lambda g: g["data"]["a"].update(train_rows=True), "data.a.train_rows is True"),
        (lambda g: g["data"]["a"].update(rows=3), "data.a has the unknown key 'rows'"),
        (lambda g: g["data"]["bbc"].update(package="ccb"), "data.bbc.package is 'ccb'"),
        (lambda g: g["data"]["bbc"].update(text_column="t"), "data.bbc.text_column cannot be set"),
        (lambda g: g["noise"].update(none={"kind": "pair", "rate": 0.1}), "noise.none is a reserved name"),
        (lambda g: g["noise"].update(sym={"rate": 0.1}), "noise.sym lacks its kind"),
        (lambda g: g["noise"]["sym"].update(rate=2), "noise.sym: "),
        (lambda g: g["noise"].update(m={"kind": "map", "mapping": {"a": "b"}}), "noise.m: The class map"),
        (lambda g: g["noise"].update(m={"kind": "map", "mapping": {0: date(2020, 1, 1)}}), "The class map"),
        (lambda g: g["noise"]["sym"].update(kind="white"), "noise.sym: There is no noise 'white'"),
        (lambda g: g["train"].update(seed=3), "train has the unknown key 'seed'"),
        (lambda g: g["train"].update(epochs=0), "epochs is 0"),
        (lambda g: g["methods"].update(magic={}) or g["cells"][0]["methods"].append("magic"), "magic"),
        (lambda g: g["methods"].update(plain=[1]), "methods.plain is [1]"),
        (lambda g: g["train"].update(training={"max_grad_norm": math.inf}), "options by name, as JSON can"),
        (lambda g: g["train"].update(training={"magic": 1}), "CleaRConfig has no magic"),
        (lambda g: g["cells"][0].pop("data"), "cells[0].data is None"),
        (lambda g: g["cells"][1].update(data=["c"]), "cells[1].data names 'c'"),
        (lambda g: g["cells"][1].update(data=[["a"]]), "cells[1].data is [['a']]"),
        (lambda g: g["cells"][1].update(noise=["c"]), "cells[1].noise names 'c'"),
        (lambda g: g["cells"][1].update(methods=["c"]), "cells[1].methods names 'c'"),
        (lambda g: g["cells"][1].update(peft=["glue"]), "There is no peft 'glue'"),
        (lambda g: g["cells"][1].update(seeds=[-1]), "seed is -1"),
        (lambda g: g["cells"][1].update(seeds=0), "cells[1].seeds is 0"),
        (lambda g: g.update(cells={"data": ["a"]}), "cells is no list"),
    ],
)
def test_what_is_wrong_is_said_with_file_and_key(grid, change, said):
    path = grid(change)
    with pytest.raises(InputError) as caught:
        read_grid(path)
    assert str(caught.value).startswith(f"{path}: ")
    assert said in str(caught.value)
    assert "\n" not in str(caught.value)


def test_without_an_adapter_all_peft_methods_are_one(grid):
    def change(g):
        g["methods"]["all weights"] = {"method": "full"}
        g["cells"] = [{"data": ["a"], "noise": ["none"], "methods": ["plain", "all weights"]}]
        g["cells"][0]["peft"] = ["lora", "bitfit"]

    cells = [(cell.method, cell.peft) for cell in read_grid(grid(change))]
    assert sorted(cells) == [("all weights", "lora"), ("plain", "bitfit"), ("plain", "lora")]


def test_no_grid_and_no_yaml(tmp_path):
    with pytest.raises(InputError, match="smoke"):
        read_grid(str(tmp_path / "none.yaml"))
    for text in ("a: [", "train: &a {training: *a}"):
        (tmp_path / "grid.yaml").write_text(text)
        with pytest.raises(InputError, match="not YAML"):
            read_grid(str(tmp_path / "grid.yaml"))


@pytest.mark.parametrize("name", ["smoke", "cpu", "peft", "heads", "paper", "unseen"])
def test_grids_that_ship(name):
    cells = read_grid(name)
    assert name in shipped_grids()
    for cell in cells:
        beside = {
            (c.method, c.noise)
            for c in cells
            if (c.data, c.peft, c.seed) == (cell.data, cell.peft, cell.seed)
        }
        assert {("plain", "none"), ("plain", cell.noise)} <= beside  # else no gap


def test_the_noise_rate_goes_in_at_any_depth():
    settings = {"a": {"b": "true noise rate", "c": 1}, "d": "true noise rates"}
    assert with_noise_rate(settings, 0.4) == {"a": {"b": 0.4, "c": 1}, "d": "true noise rates"}
