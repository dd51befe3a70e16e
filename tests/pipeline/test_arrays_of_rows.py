"""Predictions and embeddings of one's own, beside tables with rows that have no label or no text."""

import numpy as np
import pandas as pd
import pytest

from clear_peft.errors import ClearWarning
from clear_peft.pipeline.progress import Silent
from clear_peft.pipeline.scan import scan
from clear_peft.pipeline.scan_options import ScanOptions

SET_APART = pytest.mark.filterwarnings("ignore:.*set apart, as they have no label")
LABELLED, UNLABELLED = 120, 80
NAMES = np.array(["no", "yes"])


@pytest.fixture
def place(tmp_path):
    """A table whose last rows have no label, its true labels, and numbers for all of its rows."""
    rng = np.random.default_rng(0)
    true = rng.integers(2, size=LABELLED + UNLABELLED)
    label = np.where(np.arange(len(true)) < LABELLED, NAMES[true], "")
    texts = [f"question {i} of {rng.integers(9**9)}" for i in range(len(true))]
    pd.DataFrame({"text": texts, "label": label}).to_csv(tmp_path / "table.csv", index=False)
    embeddings = np.eye(2)[true] + rng.normal(0, 0.2, (len(true), 2))
    return tmp_path, true, {"pred_probs": np.where(np.eye(2)[true] == 1, 0.9, 0.1), "embeddings": embeddings}


def scanned(folder, name, array):
    np.save(folder / "rows.npy", array)
    files = {name: str(folder / "rows.npy"), "output": str(folder / "scan")}
    return scan(ScanOptions(data=str(folder / "table.csv"), **files), Silent())


@SET_APART
@pytest.mark.parametrize("name", ["pred_probs", "embeddings"])
def test_rows_without_a_label_are_predicted_by_their_own_numbers(place, name):
    folder, true, arrays = place
    scanned(folder, name, arrays[name])
    found = pd.read_csv(folder / "scan" / "unlabelled.csv").set_index("row")
    assert sorted(found.index) == list(range(LABELLED, LABELLED + UNLABELLED))
    assert (found["predicted_label"] == NAMES[true[found.index]]).mean() > 0.95


@SET_APART
@pytest.mark.parametrize("name", ["pred_probs", "embeddings"])
def test_numbers_of_labelled_rows_say_nothing_of_the_others(place, name):
    folder, _, arrays = place
    with pytest.warns(
        ClearWarning, match="120 rows of numbers for the 200 rows.*those without a label are not"
    ):
        found = scanned(folder, name, arrays[name][:LABELLED])
    assert not (folder / "scan" / "unlabelled.csv").exists()
    assert len(found.quality) == LABELLED


@pytest.mark.parametrize("name", ["pred_probs", "embeddings"])
def test_several_labels_a_row_beside_a_row_without_a_text(tmp_path, name):
    rng = np.random.default_rng(0)
    true = rng.random((200, 3)) < [0.5, 0.4, 0.3]
    given = true ^ (rng.random(true.shape) < 0.05)
    labels = [";".join(np.array(["a", "b", "c"])[row]) for row in given]
    texts = [f"question {i} of {rng.integers(9**9)}" for i in range(200)]
    texts[7] = ""
    pd.DataFrame({"text": texts, "label": labels}).to_csv(tmp_path / "table.csv", index=False)
    numbers = np.where(true, 0.9, 0.1) if name == "pred_probs" else true + rng.normal(0, 0.1, true.shape)
    np.save(tmp_path / "rows.npy", numbers)
    files = {name: str(tmp_path / "rows.npy"), "output": str(tmp_path / "scan")}
    options = ScanOptions(data=str(tmp_path / "table.csv"), label_separator=";", **files)
    with pytest.warns(ClearWarning, match="left out, as their text is empty: 1 row"):
        issues = scan(options, Silent()).issues
    listed = issues[issues["is_label_issue"]]
    wrong = (given != true)[listed["row"], ["abc".index(label) for label in listed["label"]]]
    assert len(listed) > 10
    assert wrong.mean() > 0.9
