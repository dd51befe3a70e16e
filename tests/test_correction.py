"""From suspicion to correction: labels corrected from the top of the list make a better model."""

import pytest

from correcting import CORRECTED, correct_and_train_again

pytestmark = pytest.mark.slow


def test_correcting_the_rows_ranked_first_raises_accuracy(tmp_path):
    found = correct_and_train_again(tmp_path, seed=0)
    assert found.wrong > 0.85  # by chance 0.4
    assert found.changed == round(found.wrong * CORRECTED)
    assert found.after > found.before
    low, high = found.audits[0]["noise_rate_interval"]
    assert low - 0.05 < found.noise_rate < high + 0.05
