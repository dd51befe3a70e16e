"""A scan on a local Ray of two workers, beside one of this process."""

from itertools import pairwise
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from clear_peft.data import read_table, unescape_formulas
from clear_peft.errors import InputError, RunFailedError
from clear_peft.pipeline import big_table
from clear_peft.pipeline.progress import Silent
from clear_peft.pipeline.ray_scan import scan_with_ray
from clear_peft.pipeline.scan import scan
from clear_peft.pipeline.scan_options import ScanOptions
from ray_encoders import DiesAlways, DiesOnce, Letters, Refuses
from tiny_text import keyword_table, tiny_checkpoint

# of Ray's own
pytestmark = [pytest.mark.filterwarnings("ignore"), pytest.mark.slow]
ROWS, ENDS = 2400, (0, 900, 1000, 2400)


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A tiny model, and a table in three files."""
    folder = tmp_path_factory.mktemp("big")
    table = keyword_table(ROWS, seed=0, noise=0.2)[["text", "label"]]
    (folder / "data").mkdir()
    for number, (start, stop) in enumerate(pairwise(ENDS)):
        table[start:stop].to_parquet(folder / "data" / f"{number}.parquet", row_group_size=400)
    tiny_checkpoint(folder / "model")
    return folder


@pytest.fixture
def options(place, tmp_path):
    def made(**more):
        values = {"data": str(place / "data"), "model": str(place / "model"), "max_length": 32}
        return ScanOptions(**{**values, "output": str(tmp_path / "scan"), **more})

    return made


def all_rows(folder):
    return pd.concat([read_table(path) for path in sorted((folder / "label_issues").iterdir())])


def test_a_sample_of_the_whole_table_is_a_scan_of_it(cluster, options, tmp_path):
    found = scan_with_ray(options(), Silent())
    whole = scan(options(output=str(tmp_path / "whole"), cache=False), Silent())
    p = all_rows(found.folder)["clean_probability"].to_numpy()
    np.testing.assert_allclose(p, whole.quality.clean_probability, atol=1e-3)
    assert found.summary["noise_rate_estimate"] == pytest.approx(
        whole.metrics["noise_rate_estimate"], abs=1e-4
    )
    assert found.summary["noise_rate_interval"] == pytest.approx(
        whole.metrics["noise_rate_interval"], abs=1e-3
    )
    assert found.summary["class_counts"] == whole.metrics["class_counts"]
    assert found.summary["sampled"] == found.summary["rows"] == ROWS
    top = unescape_formulas(read_table(found.folder / "label_issues.csv"))
    first = {f"{number}.parquet": start for number, start in enumerate(ENDS[:-1])}
    rows = [first[file] + int(row) for file, row in zip(top["file"], top["row"], strict=True)]
    text = dict(zip(whole.audit.issues["row"], whole.audit.issues["text"], strict=True))
    assert [text[row] for row in rows] == top["text"].tolist()
    assert {path.name for path in found.folder.iterdir()} == {
        "label_issues",
        "label_issues.csv",
        "summary.json",
    }
    with pytest.raises(InputError, match="is finished already"):
        scan_with_ray(options(), Silent())


def test_a_sample_judges_the_others_and_an_actor_that_dies_is_replaced(
    cluster, options, monkeypatch, tmp_path
):
    monkeypatch.setattr(big_table, "SHARD_ROWS", 512)
    log = tmp_path / "log"
    found = scan_with_ray(options(), Silent(), sample_rows=800, load=lambda: DiesOnce(log))
    assert sum(map(int, log.read_text().split())) == ROWS
    table, clean = all_rows(found.folder), keyword_table(ROWS, seed=0, noise=0.2)
    wrong = (clean["label"] != clean["clean_label"]).to_numpy()
    assert len(table) == ROWS
    assert (table["is_label_issue"].to_numpy() == wrong).mean() > 0.95
    assert found.summary["noise_rate_estimate"] == pytest.approx(wrong.mean(), abs=0.03)
    assert 0 < found.summary["sampling_error"] < 0.02
    assert found.summary["sampled"] == 800


def test_a_shard_that_always_kills_its_actor_is_given_up(cluster, options, tmp_path):
    log = tmp_path / "log"
    with pytest.raises(RunFailedError, match="A task of Ray has failed"):
        scan_with_ray(options(), Silent(), load=lambda: DiesAlways(log))
    assert 4 <= len(log.read_text().split()) <= 4 * (len(ENDS) - 1)


def test_a_scan_goes_on_with_the_shards_that_lack(cluster, options, tmp_path):
    log = tmp_path / "log"
    with pytest.raises(InputError, match=r"2\.parquet': The power is gone: wait\."):
        scan_with_ray(options(), Silent(), load=lambda: Refuses(log))
    with pytest.raises(InputError, match="was begun with other values of 'max_length'"):
        scan_with_ray(options(max_length=16), Silent(), load=lambda: Letters(log))
    begun = tmp_path / "scan" / "features"
    known, _ = Letters(log).layer_means(texts_of(options(), "0.parquet"), None, 1)
    np.save(begun / "000000.npy", known)
    missing = [ENDS[2] - ENDS[1]] * (not (begun / "000001.npy").exists()) + [ENDS[3] - ENDS[2]]
    log.unlink()
    found = scan_with_ray(options(), Silent(), load=lambda: Letters(log))
    assert sorted(map(int, log.read_text().split())) == missing
    assert len(all_rows(found.folder)) == ROWS
    assert not begun.exists()


def texts_of(options, file):
    return read_table(Path(options.data) / file)["text"].tolist()


@pytest.mark.parametrize(
    ("more", "sentence"),
    [
        ({"group_column": "customer"}, "knows no --group-column: leave out that"),
        ({"verified": ["c.csv"], "label_separator": ";"}, "knows no --label-separator and --verified"),
        ({"label_column": "tag"}, "has no column 'tag'"),
        ({"data": "tickets.csv"}, "'tickets.csv' is no folder of Parquet files"),
    ],
)
def test_what_does_not_apply_is_refused(options, more, sentence):
    with pytest.raises(InputError, match=sentence):
        scan_with_ray(options(**more), Silent())


def test_an_output_in_the_table_or_of_others_is_refused(options, place, tmp_path):
    with pytest.raises(InputError, match=r"lies in .*, the table itself"):
        scan_with_ray(options(output=str(place / "data" / "scan")), Silent())
    with pytest.raises(InputError, match="holds something else"):
        scan_with_ray(options(output=str(place)), Silent())


def test_a_missing_label_is_refused_with_its_row(cluster, options, tmp_path):
    table = keyword_table(50, seed=1)
    table.loc[7, "label"] = None
    (tmp_path / "holed").mkdir()
    table.to_parquet(tmp_path / "holed" / "a.parquet")
    with pytest.raises(InputError, match=r"a.parquet', column 'label': the label is missing in 1 row \(7;"):
        scan_with_ray(options(data=str(tmp_path / "holed")), Silent())
    assert not (tmp_path / "scan").exists()
