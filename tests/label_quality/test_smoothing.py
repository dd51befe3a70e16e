"""Smoothing of losses over epochs."""

import numpy as np
import pytest

from clear_peft.errors import InputError
from clear_peft.label_quality import smooth


def test_smoothing_is_the_weighted_mean():
    np.testing.assert_allclose(smooth([1.0, 2.0], [3.0, 2.0], 0.9), [1.2, 2.0])


def test_beta_zero_keeps_the_current_losses():
    np.testing.assert_array_equal(smooth([9.0, np.nan], [3.0, 2.0], 0.0), [3.0, 2.0])


def test_a_loss_missing_on_one_side_leaves_the_other():
    smoothed = smooth([np.nan, 5.0, np.nan], [3.0, np.nan, np.nan], 0.5)
    np.testing.assert_array_equal(smoothed, [3.0, 5.0, np.nan])


def test_float32_stays_float32():
    losses = np.ones(3, np.float32)
    assert smooth(losses, losses, 0.5).dtype == np.float32


@pytest.mark.parametrize("beta", [-0.1, 1.0, float("nan")])
def test_beta_outside_its_range_is_refused(beta):
    with pytest.raises(InputError, match="beta is"):
        smooth([1.0], [1.0], beta)


def test_histories_of_different_length_are_refused():
    with pytest.raises(InputError, match="match them"):
        smooth([1.0], [1.0, 2.0], 0.5)
