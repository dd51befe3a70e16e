import math

import pytest

from bench_cells import cell, record
from clear_peft.bench.tables import as_markdown, as_values, hardware_of, tables_of, write
from clear_peft.errors import InputError
from clear_peft.files import plain_json


@pytest.fixture
def records():
    made = []
    for seed in range(3):
        made += [
            record(cell(seed=seed), 0.9),
            record(cell(seed=seed, noise="sym40"), 0.8, seconds=10),
            record(cell("clear", seed=seed, noise="sym40"), 0.84 + seed / 100, seconds=20),
            record(cell(seed=seed, noise="sym60"), 0.6),
            record(cell("clear", seed=seed, noise="sym60"), 0.57),
            record(cell("stgn", seed=seed, noise="sym60"), 0.6),
        ]
    return made


def test_the_table_of_a_cell(records):
    table, _ = tables_of(records)
    rows = table.set_index(["noise", "method"])
    assert list(table["method"][:3]) == ["plain", "plain", "clear"]
    clear = rows.loc[("sym40", "clear")]
    assert clear["seeds"] == 3
    assert clear["selected"] == pytest.approx(0.85)
    assert clear["selected_margin"] == pytest.approx(0.02484138)
    assert clear["difference"] == pytest.approx(0.05)
    assert clear["difference_margin"] == pytest.approx(0.02484138)
    assert math.isnan(rows.loc[("sym40", "plain")]["difference"])


def test_methods_are_compared_where_all_were_run(records):
    _, summary = tables_of([r for r in records if r["cell"]["method"] != "stgn"])
    rows = summary.methods.set_index("method")
    assert (summary.runs, summary.gaps) == (6, 6)
    # (0.05 / 0.1 and −0.03 / 0.3) / 2
    assert rows.loc["clear", "gap_recovered"] == pytest.approx((0.5 - 0.1) / 2)
    assert rows.loc["clear", "selected"] == pytest.approx((0.85 + 0.57) / 2)
    assert rows.loc["clear", "worst_difference"] == pytest.approx(-0.03)
    assert rows.loc["clear", "worst_cell"] == "fields sym60 lora"
    assert summary.not_run == {"fields none lora": ["clear"]}

    _, summary = tables_of(records)
    assert summary.runs == 3  # stgn has no cell but sym60
    assert summary.methods.set_index("method").loc["clear", "gap_recovered"] == pytest.approx(-0.1)
    assert summary.not_run == {"fields none lora": ["clear", "stgn"], "fields sym40 lora": ["stgn"]}
    assert summary.methods.set_index("method").loc["stgn", "needs"] == "the noise rate"


def test_cells_without_a_gap_are_named():
    records = [
        record(cell(), 0.8),
        record(cell(noise="sym40"), 0.8),
        record(cell(noise="sym60", seed=1), 0.5),
    ]
    _, summary = tables_of(records)
    assert summary.left_out == [
        "fields sym40 lora seed 0 (gap 0.0)",
        "fields sym60 lora seed 1 (no plain PEFT on true labels)",
    ]


def test_results_with_no_noise_or_no_plain_have_tables_too():
    for of in (cell(), cell("clear", noise="sym40")):
        table, summary = tables_of([record(of)])
        assert len(table) == 1
        assert summary.runs == 0
        assert as_markdown(table, summary, ["abacus"])


def test_as_a_person_reads_it(records):
    table, summary = tables_of(records)
    text = as_markdown(table, summary, hardware_of(records))
    assert "### fields, sym40 (41.0 % of labels wrong), lora" in text
    assert (
        "| clear | 3 | 85.0 ± 2.5 | +5.0 ± 2.5 | 42.5 ± 1.2 | 75.0 | 78.8 | 90.0 | 10.0 "
        "| – | – | – | – | – | 20 | 300 |" in text
    )
    assert "| clear | -0.10 | 57.0 | 28.5 | 1.00 | -3.0 fields sym60 lora | – |" in text
    assert "On the 3 runs (cells × seeds)" in text
    _, overview = text.split("### Accuracy at the best noisy-validation epoch\n\n")
    assert overview.startswith("|  | plain | clear | stgn |")
    assert "| fields, sym40 (41.0 % of labels wrong), lora | 80.0 ± 0.0 (3) | 85.0 ± 2.5 (3) |  |" in overview
    _, overview = text.split("### Macro-F1 at the best noisy-validation epoch\n\n")
    assert "| fields, sym40 (41.0 % of labels wrong), lora | 40.0 ± 0.0 (3) | 42.5 ± 1.2 (3) |  |" in overview
    _, overview = text.split("### Gap recovered\n\n")
    assert "| fields, sym40 (41.0 % of labels wrong), lora | 0.00 (3) | 0.50 (3) |  |" in overview
    assert "peak (oracle)" in text
    assert text.endswith("Made on abacus (threads a cell: 1).\n")
    assert "| a\\|b | 1 | 80.0 |" in as_markdown(*tables_of([record(cell("a|b"))]), [])
    one, _ = tables_of([record(cell())])
    assert "| plain | 1 | 80.0 | – |" in as_markdown(one, summary, [])  # no interval for one seed


def test_the_first_and_the_last_verdict_of_those_who_judge_again():
    once, twice = record(cell("clear", noise="sym40"), 0.84), record(cell("paper", noise="sym40"), 0.84)
    judged = [(0.5, 0.9), (0.45, 0.95), (0.3, None)]
    for epoch, (rate, area) in zip(twice["metrics"]["epochs"], judged, strict=False):
        epoch |= {"noise_rate": rate} | ({} if area is None else {"detection_auc": area})
    for epoch in once["metrics"]["epochs"][1:]:
        epoch |= {"noise_rate": 0.4, "detection_auc": 0.9}
    table, summary = tables_of([record(cell(noise="sym40"), 0.8), once, twice])
    text = as_markdown(table, summary, ["abacus"])
    section = text.partition("### Judged epoch after epoch")[2].partition("###")[0].strip().splitlines()
    assert section[4:] == ["| fields sym40 lora paper | 1 | 41.0 | 50.0 | 30.0 | 90.0 | – |"]
    table, summary = tables_of([once])
    assert "Judged epoch after epoch" not in as_markdown(table, summary, ["abacus"])


def test_files_and_values(records, tmp_path):
    table, summary = tables_of(records)
    write(tmp_path / "t.csv", table, "text")
    lines = (tmp_path / "t.csv").read_text().splitlines()
    assert lines[0].startswith("data,noise,peft,method,seeds,noise_rate,selected,selected_margin,")
    assert len(lines) == 1 + len(table)
    write(tmp_path / "t.md", table, "text")
    assert (tmp_path / "t.md").read_text() == "text"
    with pytest.raises(InputError, match=r"\.md or \.csv"):
        write(tmp_path / "t.xlsx", table, "text")
    values = plain_json(as_values(table, summary))
    assert values["cells"][0]["difference"] is None
    assert values["common_runs"] == 3
