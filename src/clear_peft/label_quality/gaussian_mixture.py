"""Two Gaussians on the line, fitted to weighted values by expectation maximisation.

Many values are fitted as weighted bins, in the time of the bins. scikit-learn's mixture takes no weights.
"""

from dataclasses import dataclass
from typing import Any, Self

import numpy as np
from scipy.special import expit

from clear_peft.label_quality.types import Array

_MAX_STEPS = 500
_TOLERANCE = 1e-6
# Smallest variance of a component as a share of the variance of all values: a component that shrinks onto
# one repeated value would otherwise have infinite likelihood.
_VARIANCE_FLOOR = 1e-4
# More values than this are binned.
_MOST_VALUES = 100_000
_BINS = 4096


@dataclass(frozen=True, eq=False)
class GaussianMixture:
    """Two Gaussians; the first has the smaller mean.

    Attributes:
        weights: (2,) float64, sum 1.
        means: (2,) float64, ascending.
        variances: (2,) float64, positive.
    """

    weights: Array
    means: Array
    variances: Array

    @classmethod
    def fit(cls, values: Array, weights: Array | None = None) -> Self:
        """Fit to weighted values, deterministically.

        Starts from the split of the values into two groups with the least within-group variance. More than
        100,000 values without weights are fitted as the means of up to 8,192 bins, none wider than 1/4096 of
        the range and none with more than about 1/4096 of the values: a value moves by less than that width,
        and the variance that is lost is below 1/4 of its square.

        Args:
            values: (N,) float64 with at least two different values.
            weights: (N,) float64, positive: how often each value counts. Default: once.

        Returns:
            The mixture where the posteriors move by less than 1e-6 on average, or the one after 500 steps.
        """
        if weights is None:
            many = len(values) > _MOST_VALUES
            values, weights = _binned(values) if many else (values, np.ones(len(values)))
        floor = _VARIANCE_FLOOR * _moments(values, weights)[2]
        upper = (values > _least_squares_split(values, weights)).astype(np.float64)
        for _ in range(_MAX_STEPS):
            moments = zip(*(_moments(values, weights * share) for share in (1 - upper, upper)), strict=True)
            mass, means, variances = (np.array(moment) for moment in moments)
            mixture = cls(mass / mass.sum(), means, np.maximum(variances, floor))
            previous, upper = upper, mixture.upper_posterior(values)
            if np.average(np.abs(upper - previous), weights=weights) < _TOLERANCE:
                break
        order = np.argsort(mixture.means, kind="stable")
        return cls(mixture.weights[order], mixture.means[order], mixture.variances[order])

    def log_density(self, values: Array) -> Array:
        """Log of weight times density, (2, N), for values (N,)."""
        variances = self.variances[:, None]
        squares = (values - self.means[:, None]) ** 2 / variances
        return np.log(self.weights)[:, None] - 0.5 * (np.log(2 * np.pi * variances) + squares)

    def upper_posterior(self, values: Array) -> Array:
        """Posterior probability (N,) of the component with the larger mean, at values (N,)."""
        lower, upper = self.log_density(values)
        return expit(upper - lower)

    def lower_posterior(self, values: Array, *, monotone: bool) -> Array:
        """Posterior probability (N,) of the component with the smaller mean, at values (N,).

        Args:
            values: (N,) float64.
            monotone: Make it non-increasing in the value. The log-odds of the two components have one
                turning point, outside the interval between the means; beyond it the posterior keeps the
                value that it has there.
        """
        if monotone:
            low, high = self._falling_interval()
            values = np.clip(values, low, high)
        lower, upper = self.log_density(values)
        return expit(lower - upper)

    def describe(self) -> dict[str, Any]:
        """The mixture as a JSON-able dictionary."""
        moments = {"weights": self.weights, "means": self.means, "variances": self.variances}
        return {"family": "gaussian"} | {name: moment.tolist() for name, moment in moments.items()}

    def _falling_interval(self) -> tuple[float, float]:
        """The interval, around both means, where the log-odds of the lower component fall."""
        # The log-odds are a parabola: it turns where (x − μ₁)/σ₁² = (x − μ₂)/σ₂².
        precisions = 1 / self.variances
        gap = precisions[0] - precisions[1]
        if abs(gap) <= 1e-12 * precisions.max():
            return -np.inf, np.inf
        vertex = float((precisions * self.means) @ (1, -1) / gap)
        return (vertex, np.inf) if gap > 0 else (-np.inf, vertex)


def _binned(values: Array) -> tuple[Array, Array]:
    """Means and sizes of bins that are narrow in value, for the tails, and in rank, for the bulk."""
    ordered = np.sort(values)
    by_value = np.searchsorted(ordered, np.linspace(ordered[0], ordered[-1], _BINS + 1)[:-1])
    by_rank = np.arange(_BINS) * len(ordered) // _BINS
    starts = np.union1d(by_value, by_rank)
    sizes = np.diff(starts, append=len(ordered)).astype(np.float64)
    return np.add.reduceat(ordered, starts) / sizes, sizes


def _moments(values: Array, weights: Array) -> tuple[float, float, float]:
    """Sum of the weights, weighted mean and weighted variance; those of an empty component are finite."""
    mass = max(float(weights.sum()), np.finfo(np.float64).tiny)
    mean = float(weights @ values) / mass
    return mass, mean, float(weights @ (values - mean) ** 2) / mass


def _least_squares_split(values: Array, weights: Array) -> float:
    """The largest value of the lower group in the best split in two (1-D 2-means, found exactly)."""
    distinct, index = np.unique(values, return_inverse=True)
    mass = np.bincount(index, weights)
    below = np.cumsum(mass)[:-1]
    sum_below = np.cumsum(mass * distinct)[:-1]
    above, sum_above = mass.sum() - below, mass @ distinct - sum_below
    between = below * above * (sum_below / below - sum_above / above) ** 2
    return float(distinct[np.argmax(between)])
