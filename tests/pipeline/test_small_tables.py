"""Tables at the edge of what can be trained on."""

import pandas as pd
import pytest

from clear_peft.pipeline import evaluate, train
from clear_peft.run_folder import RunConfig
from tiny_text import keyword_table, tiny_checkpoint


@pytest.mark.parametrize("method", ["clear", "plain"])
@pytest.mark.parametrize(("rows", "fraction"), [(6, 0.1), (6, 0.99), (7, 0.5)])
def test_two_rows_a_class(tmp_path, method, rows, fraction):
    tiny_checkpoint(tmp_path / "model")
    keyword_table(rows, seed=0).to_csv(tmp_path / "train.csv", index=False)
    config = RunConfig(
        model=str(tmp_path / "model"),
        data=str(tmp_path / "train.csv"),
        output=str(tmp_path / "run"),
        method=method,
        validation_fraction=fraction,
        epochs=5,
        max_length=16,
    )
    metrics = train(config)
    assert 0 <= metrics["noise_rate_estimate"] <= 1
    issues = pd.read_csv(tmp_path / "run" / "label_issues.csv")
    assert sorted(issues["row"]) == list(range(rows))
    assert evaluate(tmp_path / "run", str(tmp_path / "train.csv"))["examples"] == rows
