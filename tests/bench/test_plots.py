import re
import sys
import xml.etree.ElementTree as ET

import pytest

from bench_cells import cell, losses, record
from clear_peft.bench.measures import curves, figures
from clear_peft.bench.plots import _by_noise, _carried_on, _styles, write_plots
from clear_peft.errors import InputError

GAUSSIANS = {
    "family": "gaussian",
    "scale": "log_odds",
    "weights": [0.7, 0.3],
    "means": [-3, 2],
    "variances": [1, 1],
}
OF_LOSSES = {**GAUSSIANS, "scale": "loss", "means": [0.3, 4.0]}
ALL = ["accuracy_by_epoch", "accuracy_by_noise", "memorised_by_epoch", "losses", "cost"]


@pytest.fixture
def records():
    made = []
    for seed in range(2):
        made.append(record(cell(seed=seed), 0.9))
        for noise, parameters in (("sym40", GAUSSIANS), ("sym60", OF_LOSSES)):
            made.append(record(cell(seed=seed, noise=noise), 0.7 + seed / 50))
            robust = record(cell("recommended", seed=seed, noise=noise), 0.8, seconds=13)
            for epoch in robust["metrics"]["epochs"][1:]:
                epoch["losses"] = losses() | {"parameters": parameters}
            made.append(robust)
    return made


def words(path):
    text = path.read_text()
    ET.fromstring(text)
    return set(re.findall(r"<!-- (.*?) -->", text))


def test_every_plot_has_all_its_panels(records, tmp_path):
    files = write_plots(records, tmp_path / "plots")
    assert [f.stem for f in files] == ALL
    said = {f.stem: words(f) for f in files}
    assert {"fields, none", "fields, sym40", "fields, sym60", "plain", "recommended", "epoch"} <= said[
        "accuracy_by_epoch"
    ]
    assert {"fields, symmetric", "plain", "recommended"} <= said["accuracy_by_noise"]
    titles = {f"fields, {noise}, epoch {epoch}" for noise in ("sym40", "sym60") for epoch in (2, 4)}
    assert titles | {"right labels", "wrong labels", "fitted mixture"} <= said["losses"]
    assert {"plain", "recommended", "gap recovered"} <= said["cost"]


def test_a_seed_that_stopped_early_counts_to_the_end():
    stopped = [record(cell(seed=0), curve=[0.2, 0.4]), record(cell(seed=1), curve=[0.6, 0.6, 0.6, 0.8])]
    shown = _carried_on(curves(stopped)).groupby("epoch")["test_accuracy"].mean()
    assert shown.to_dict() == pytest.approx({1: 0.4, 2: 0.5, 3: 0.5, 4: 0.6})


def test_bands_stay_on_the_scale():
    wide = figures([record(cell(seed=seed, noise=n), seed) for seed in range(2) for n in ("none", "sym40")])
    (panel,) = _by_noise(wide, _styles(["plain"])).axes
    assert [panel.dataLim.y0, panel.dataLim.y1] == [0, 100]


def test_the_same_results_give_the_same_files(records, tmp_path):
    one, two = (write_plots(of, tmp_path / name) for of, name in ((records, "1"), (records[::-1], "2")))
    assert [f.read_bytes() for f in one] == [f.read_bytes() for f in two]


def test_png(records, tmp_path):
    for file in write_plots(records, tmp_path, "png"):
        assert file.read_bytes().startswith(b"\x89PNG")


def test_what_there_is_nothing_for_is_left_out(tmp_path):
    of = record(cell())
    assert [f.stem for f in write_plots([of], tmp_path)] == ["accuracy_by_epoch", "memorised_by_epoch"]
    of["metrics"]["epochs"] = [{"epoch": 1}]
    assert write_plots([of], tmp_path) == []


def test_without_matplotlib(monkeypatch, tmp_path):
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    with pytest.raises(InputError, match="pip install 'matplotlib>="):
        write_plots([record(cell())], tmp_path)
