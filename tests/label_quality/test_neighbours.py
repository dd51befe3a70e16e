"""Near duplicates and outliers, beside sklearn's neighbours and cleanlab's Datalab."""

import numpy as np
import pytest
from sklearn.neighbors import NearestNeighbors

from clear_peft.label_quality import neighbours as module
from clear_peft.label_quality.neighbours import neighbours


def _rows(size=400, seed=0):
    """Rows in clusters, of which the last five are nearly the first five, and three lie elsewhere."""
    rng = np.random.default_rng(seed)
    rows = 3 * rng.normal(size=(8, 24))[rng.integers(8, size=size)] + rng.normal(size=(size, 24))
    rows[-5:] = rows[:5] + 0.01 * rng.normal(size=(5, 24))
    rows[-8:-5] = -100 * rows.mean(axis=0) + 20 * rng.normal(size=(3, 24))
    return rows.astype(np.float32)


def test_neighbours_are_those_of_sklearn():
    rows = _rows()
    found = neighbours(rows)
    distances, places = NearestNeighbors(n_neighbors=11, metric="cosine").fit(rows).kneighbors(rows)
    np.testing.assert_allclose(found.distances, distances[:, 1:], atol=1e-6)
    assert (found.rows == places[:, 1:]).mean() > 0.99


def test_of_several_representations_the_last_counts():
    rows = _rows()
    several = np.stack([np.ones_like(rows), rows], axis=1)
    np.testing.assert_array_equal(neighbours(several).rows, neighbours(rows).rows)


def test_scores_and_thresholds_are_those_of_datalab():
    cleanlab = pytest.importorskip("cleanlab")
    pytest.importorskip("datasets")
    rows = _rows().astype(np.float64)
    lab = cleanlab.Datalab({"y": np.arange(len(rows)) % 2}, label_name="y", verbosity=0)
    lab.find_issues(features=rows, issue_types={"near_duplicate": {}, "outlier": {}})
    theirs, found = lab.get_issues(), neighbours(rows)
    for kind, (which, score) in (
        ("near_duplicate", found.near_duplicates()),
        ("outlier", found.outliers()),
    ):
        assert which.any()
        np.testing.assert_array_equal(which, theirs[f"is_{kind}_issue"])
        np.testing.assert_allclose(score, theirs[f"{kind}_score"], atol=1e-4)


def test_many_rows_are_compared_within_cells(monkeypatch):
    rows = _rows(3000)
    exact = neighbours(rows)
    monkeypatch.setattr(module, "_MOST_EXACT", 1000)
    monkeypatch.setattr(module, "_CELL", 50)
    monkeypatch.setattr(module, "_LOOKED_AT", 1000)
    found = neighbours(rows)
    assert found.near_duplicates()[0][:5].all()
    assert found.near_duplicates()[0][-5:].all()
    assert (found.distances[:, 0] <= exact.distances[:, 0] + 1e-6).mean() > 0.95
    assert (found.rows != np.arange(3000)[:, None]).all()
    assert all(len(np.unique(row)) == 10 for row in found.rows)


@pytest.mark.parametrize("most", [10, 10_000])
def test_rows_that_are_all_the_same(monkeypatch, most):
    monkeypatch.setattr(module, "_MOST_EXACT", most)
    monkeypatch.setattr(module, "_CELL", 4)
    found = neighbours(np.ones((40, 3)))
    assert found.near_duplicates()[0].all()
    assert not found.outliers()[0].any()


def test_two_rows_have_one_neighbour_each():
    assert neighbours(np.eye(2)).rows.tolist() == [[1], [0]]
