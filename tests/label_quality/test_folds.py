import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from clear_peft.label_quality import stratified_folds


@given(st.lists(st.integers(0, 4), min_size=2, max_size=60), st.integers(2, 6), st.integers(0, 99))
def test_folds_are_even_and_stratified(labels, folds, seed):
    labels = np.array(labels)
    fold = stratified_folds(labels, folds, seed)
    for part in (labels >= 0, *(labels == label for label in np.unique(labels))):
        counts = np.bincount(fold[part], minlength=min(folds, len(labels)))
        assert np.ptp(counts) <= 1
    assert np.array_equal(fold, stratified_folds(labels, folds, seed))
