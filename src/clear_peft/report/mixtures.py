"""The mixture that was fitted to an epoch's losses, as its record describes it."""

from collections.abc import Mapping
from typing import Any

import numpy as np

from clear_peft.label_quality.mixture import BetaMixture, GaussianMixture


def densities(parameters: Mapping[str, Any], places: np.ndarray) -> np.ndarray:
    """Weight times density of either component.

    Args:
        parameters: ``family`` (gaussian or beta), ``weights``, ``means`` and ``variances`` (two each); of a
            beta, ``low`` and ``high``, the ends of its support.
        places: (N,), on the scale of the estimator.

    Returns:
        (2, N) float64; the component of right labels first.
    """
    moments = [np.array(parameters[name]) for name in ("weights", "means", "variances")]
    with np.errstate(all="ignore"):  # a component may have lost all its weight
        if parameters["family"] == "gaussian":
            return np.exp(GaussianMixture(*moments).log_density(places))
        low, high = parameters["low"], parameters["high"]
        # at its ends a beta's density may be infinite
        inside = np.clip((places - low) / (high - low), 1e-3, 1 - 1e-3)
        return np.exp(BetaMixture(*moments).log_density(inside)) / (high - low)
