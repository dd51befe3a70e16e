import math
from dataclasses import replace

import pytest

from bench_cells import cell, record
from clear_peft.bench.measures import against_plain, curves, figures, mean_and_margin


def test_figures_of_a_record():
    found = {
        "roc_auc": 0.9,
        "average_precision": 0.8,
        "precision": None,
        "recall": 0.7,
        "wrong": 3,
        "found": 2,
    }
    curve = [0.1, 0.2, 0.6, 0.5, 0.4, 0.3]
    row = figures(
        [record(cell(noise="sym40"), 0.4, curve, memorised=0.3, detection=found, noise_rate_estimate=0.37)]
    ).iloc[0]
    assert (row["selected"], row["last"], row["peak"], row["noise_rate"]) == (0.4, 0.3, 0.6, 0.41)
    assert row["last_5"] == pytest.approx(0.4)
    assert row["memorised"] == pytest.approx(0.3)
    assert (row["roc_auc"], row["recall"], row["megabytes"]) == (0.9, 0.7, 300)
    assert math.isnan(row["precision"])
    assert row["estimated"] == 0.37


def test_a_record_that_says_little():
    of = record(cell(), detection=None)
    of["metrics"] = {"test": {"accuracy": 0.5}, "epochs": [{"epoch": 1}], "detection": None}
    row = figures([of]).iloc[0]
    assert row["selected"] == 0.5
    silent = ["last", "last_5", "peak", "roc_auc", "seconds", "megabytes"]
    assert row[silent].isna().all()
    assert curves([of])["test_accuracy"].isna().all()


def test_student_s_interval():
    # by hand: mean 2, standard deviation 1, t(0.975, 2) = 4.302653, so 4.302653 / √3
    assert mean_and_margin([1, 2, 3, math.nan]) == pytest.approx((2, 2.484138))
    assert mean_and_margin([5])[0] == 5
    assert math.isnan(mean_and_margin([5])[1])
    assert all(map(math.isnan, mean_and_margin([])))


def test_gap_recovered_by_hand():
    records = [
        record(cell(), 0.9),
        record(cell(noise="sym40"), 0.8, seconds=10),
        record(cell("clear", noise="sym40"), 0.85, seconds=15),  # half of 0.1
        record(cell("clear"), 0.95),  # no noise: nothing to recover
        record(cell(noise="sym60"), 0.895),  # a gap of 0.005 is none
        record(cell("clear", noise="sym60"), 0.9),
        record(cell("clear", noise="sym40", seed=1), 0.9),  # no plain beside it
        record(cell(noise="sym40", peft="bitfit"), 0.7),  # no plain PEFT on true labels
        record(cell("clear", noise="sym40", peft="bitfit"), 0.6),
    ]
    rows = against_plain(figures(records)).set_index(["method", "noise", "peft"])
    assert len(rows) == 6
    assert rows.loc[("clear", "sym40", "lora"), "gap_recovered"] == pytest.approx(0.5)
    assert rows.loc[("clear", "sym40", "lora"), "relative_seconds"] == pytest.approx(1.5)
    assert rows.loc[("plain", "sym40", "lora"), "gap_recovered"] == 0
    assert math.isnan(rows.loc[("clear", "sym60", "lora"), "gap_recovered"])
    assert rows.loc[("clear", "sym60", "lora"), "gap"] == pytest.approx(0.005)
    assert math.isnan(rows.loc[("clear", "sym40", "bitfit"), "gap"])
    assert rows.loc[("clear", "sym40", "bitfit"), "difference"] == pytest.approx(-0.1)


@pytest.mark.parametrize("other", [{"gpu": "slide rule"}, {"processor": "quipu"}, {"bf16": True}])
def test_times_of_two_machines_are_not_compared(other):
    elsewhere = record(cell("clear", noise="sym40"), 0.85)
    elsewhere["environment"] |= other
    runs = figures([record(cell(), 0.9), record(cell(noise="sym40"), 0.8), elsewhere])
    row = against_plain(runs).set_index("method").loc["clear"]
    assert math.isnan(row["relative_seconds"])
    assert row["gap_recovered"] == pytest.approx(0.5)


def test_one_name_for_two_settings_is_two():
    records = [record(cell(seed=seed)) for seed in range(2)]
    records += [record(cell(epochs=9)), record(cell("other"))]
    assert sorted(figures(records)["method"]) == ["other", "plain", "plain", "plain (epochs=9)"]


def test_a_setting_that_is_left_out_is_a_difference_of_its_own():
    usual = [record(cell(seed=seed, train_labels=3)) for seed in range(3)]
    others = [record(cell(train_labels=3, epochs=9)), record(cell(epochs=9)), record(cell(train_labels=4))]
    names = sorted(figures([*usual, *others])["method"])
    assert names == [
        *("plain", "plain", "plain"),
        "plain (epochs=9)",
        "plain (epochs=9, without train_labels=3)",
        "plain (train_labels=4)",
    ]


def test_one_other_plain_does_not_take_the_comparison_away():
    records = [record(cell(seed=seed, noise=noise), 0.8) for seed in range(2) for noise in ("none", "sym40")]
    records += [
        record(cell("recommended", seed=0, noise="sym40"), 0.9),
        record(cell(noise="sym40", epochs=9)),
    ]
    compared = against_plain(figures(records)).set_index("method")
    assert compared.loc["recommended", "difference"] == pytest.approx(0.1)
    assert "plain (epochs=9)" in compared.index


def test_maps_are_kinds_of_their_own():
    maps = [{"kind": "map", "mapping": {"0": to}, "rate": 0.4} for to in (1, 2)]
    cells = [replace(cell(noise=f"map{i}"), noise_spec=spec) for i, spec in enumerate(maps)]
    kinds = figures([record(c) for c in [*cells, cell(noise="sym40"), cell()]])["kind"]
    assert set(kinds) == {'map {"mapping": {"0": 1}}', 'map {"mapping": {"0": 2}}', "symmetric", "none"}


def test_peft_options_tell_one_peft_method_in_two_apart_and_not_the_data():
    def frame(*ranks):
        cells = [replace(cell(), train={"peft_options": {"r": r}}) for r in ranks]
        return figures([record(c) for c in [*cells, replace(cell(peft="bitfit"), train={})]])

    assert set(frame(8)["peft"]) == {"lora", "bitfit"}
    assert set(frame(8, 4)["peft"]) == {"bitfit", "lora", "lora (peft_options={'r': 4})"}
    assert set(frame(8, 4)["data"]) == {"fields"}


def test_curves_by_epoch():
    frame = curves([record(cell(seed=3), curve=[0.1, 0.2], memorised=0.4)])
    assert frame["epoch"].tolist() == [1, 2]
    assert frame["test_accuracy"].tolist() == [0.1, 0.2]
    assert frame["memorised"].tolist() == pytest.approx([0.2, 0.4])
    assert set(frame["seed"]) == {3}
