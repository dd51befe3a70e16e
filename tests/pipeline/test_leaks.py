"""Rows of other tables that the training table holds too."""

import json
import warnings

import pytest

from clear_peft.errors import ClearWarning
from clear_peft.pipeline import train
from clear_peft.pipeline.splits import read_tables
from clear_peft.run_folder import RunConfig
from tiny_text import keyword_table, tiny_checkpoint


@pytest.fixture
def config(tmp_path):
    """Makes a configuration; copies of training rows are put into the other tables, one with another case."""
    rows = keyword_table(30, seed=0)
    rows.to_csv(tmp_path / "train.csv", index=False)

    def make(*tables, copies=2, **more):
        for i, name in enumerate(tables):
            other = keyword_table(20, seed=1 + i)
            other["text"] = [f"{text} {name}" for text in other["text"]]
            other.loc[: copies - 1, "text"] = rows["text"].str.upper().tolist()[:copies]
            other.to_csv(tmp_path / f"{name}.csv", index=False)
        paths = {name: str(tmp_path / f"{name}.csv") for name in tables}
        return RunConfig(
            model=str(tmp_path / "model"),
            data=str(tmp_path / "train.csv"),
            output=str(tmp_path / "run"),
            **paths,
            **more,
        )

    return make


def test_copies_across_tables_are_told(config, tmp_path):
    with pytest.warns(ClearWarning) as said:
        tables = read_tables(config("validation", "test"))
    assert tables.leaks == {"validation": 2, "test": 2}
    for one, name in zip(said, ("validation", "test"), strict=True):
        assert f"Leak: the {name} table {str(tmp_path / name) + '.csv'!r} has copies" in str(one.message)
        assert "in 2 rows (0, 1;" in str(one.message)


def test_tables_without_copies_are_silent(config):
    with warnings.catch_warnings():
        warnings.simplefilter("error", ClearWarning)
        assert read_tables(config("test", copies=0)).leaks == {"test": 0}
        assert read_tables(config()).leaks == {}


@pytest.mark.filterwarnings("ignore::clear_peft.errors.ClearWarning")
def test_a_run_writes_down_its_leaks(config, tmp_path):
    tiny_checkpoint(tmp_path / "model")
    train(config("test", epochs=1, max_length=16))
    assert json.loads((tmp_path / "run" / "metrics.json").read_text())["leaks"] == {"test": 2}
    assert "2 test" in (tmp_path / "run" / "report.html").read_text(encoding="utf-8")
