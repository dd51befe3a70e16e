"""The mixture that was fitted to an epoch's losses, as its record describes it."""

from collections.abc import Mapping
from typing import Any

import numpy as np

from clear_peft.label_quality.gaussian_mixture import GaussianMixture


def densities(parameters: Mapping[str, Any], places: np.ndarray) -> np.ndarray:
    """Weight times density of either component.

    Args:
        parameters: ``weights``, ``means`` and ``variances``, two each.
        places: (N,), on the scale of the estimator.

    Returns:
        (2, N) float64; the component of right labels first.
    """
    moments = [np.array(parameters[name]) for name in ("weights", "means", "variances")]
    with np.errstate(all="ignore"):  # a component may have lost all its weight
        return np.exp(GaussianMixture(*moments).log_density(places))
