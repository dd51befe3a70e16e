"""``predict --engine ray`` beside ``predict``."""

import pandas as pd
import pytest

from clear_peft.data import read_table

# of Ray's own
pytestmark = [pytest.mark.filterwarnings("ignore"), pytest.mark.slow]


def test_it_predicts_as_predict_does(cluster, cli, finished, place, tmp_path):
    run = finished("plain", "lora")
    table = read_table(place.test)
    table.loc[4, "text"] = ""
    # in each file that has texts: in half precision, what a text is padded to changes the third decimal
    table.loc[[5, 20], "text"] = "the old " * 40
    (tmp_path / "data").mkdir()
    table[:10].to_parquet(tmp_path / "data" / "a.parquet", index=False)
    table.loc[10:14, "text"] = ""
    table[10:15].to_parquet(tmp_path / "data" / "b.parquet", index=False)
    table[15:].to_parquet(tmp_path / "data" / "c.parquet", index=False)
    words = ["predict", "--run", run, "--data", tmp_path / "data", "--top", 2]
    assert cli(*words, "--output", tmp_path / "whole.parquet").status == 0
    out = tmp_path / "out"
    done = cli(*words, "--output", out, "--engine", "ray")
    assert done.status == 0
    assert "the text is empty in 6 rows" in done.err
    assert "2 of 24 texts are longer than --max-length" in done.err
    assert {path.name for path in out.iterdir()} == {
        "part-000000.parquet",
        "part-000001.parquet",
        "part-000002.parquet",
        "summary.json",
    }
    found = pd.concat([read_table(path) for path in sorted(out.glob("*.parquet"))], ignore_index=True)
    pd.testing.assert_frame_equal(found, read_table(tmp_path / "whole.parquet"), atol=1e-4)
    refused = cli(*words, "--output", out, "--engine", "ray")
    assert refused.status == 2
    assert "is finished already" in refused.err
