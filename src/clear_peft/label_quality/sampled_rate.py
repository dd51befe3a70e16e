"""The noise rate by a random sample of verified rows, without any assumption about the noise."""

import numpy as np
import numpy.typing as npt
from scipy.special import betaincinv

from clear_peft.errors import InputError
from clear_peft.label_quality.types import Array

_COVERAGE = 0.95
_ROWS_OF_STRATUM, _MOST_STRATA = 15, 5


def noise_rate_from_sample(
    p: npt.ArrayLike,
    verified: npt.ArrayLike,
    given: npt.ArrayLike,
    sampled_at_random: npt.ArrayLike,
) -> tuple[float, tuple[float, float]]:
    """Estimate the noise rate, and a 95 % interval for it, by rows that were drawn at random and verified.

    Rows are stratified by p at quantiles of it, with 15 sampled rows or more in each of at most five strata,
    and each stratum counts by its rows. The interval is that of Clopper and Pearson for the number of rows
    that would say as much if they were not stratified (Korn and Graubard 1998). So that no stratum looks
    certain, half a wrong and half a right row more are assumed in each.

    Args:
        p: Clean probabilities, (N,), by judges that have not seen the answers:
            ``LabelQuality.blind_probability``, or those of the run before.
        verified: True classes of verified rows, -1 elsewhere, (N,).
        given: Given labels, (N,).
        sampled_at_random: Which rows were drawn at random, (N,) bool; or numbers, 0 for a row that was not,
            else one over the probability with which it was drawn. Rows that are not verified do not count.

    Returns:
        The estimate, and lower and upper end of the interval.

    Raises:
        InputError: If shapes differ, or no row was drawn at random and verified.
    """
    values, answers, labels = np.asarray(p, float), np.asarray(verified), np.asarray(given)
    weights = np.where(answers >= 0, np.asarray(sampled_at_random, float), 0.0)
    if not values.shape == answers.shape == labels.shape == weights.shape or values.ndim != 1:
        raise InputError("p, verified, given and sampled_at_random are not of one shape: give (N,) of each.")
    if not (weights > 0).any():
        raise InputError("No row was drawn at random and verified: verify some random rows first.")
    rate, effective = _stratified(values, answers != labels, weights)
    low, high = _clopper_pearson(rate, effective)
    return rate, (min(low, rate), max(high, rate))


def rate_interval(
    blind: npt.NDArray[np.floating],
    verified: npt.NDArray[np.integer],
    given: npt.NDArray[np.integer],
    rate: float,
) -> tuple[float, float]:
    """A 95 % interval around an estimate, where it is not known how the verified rows were drawn.

    Given p, whether a row was verified is taken not to depend on whether its label is right. The interval is
    ``noise_rate_from_sample``'s, and as far as the estimate.
    """
    _, (low, high) = noise_rate_from_sample(blind, verified, given, verified >= 0)
    return min(low, rate), max(high, rate)


def _stratified(p: Array, wrong: npt.NDArray[np.bool_], weights: Array) -> tuple[float, float]:
    """The rate, and the number of unstratified rows that would say as much."""
    drawn = np.flatnonzero(weights > 0)
    count = int(np.clip(len(drawn) // _ROWS_OF_STRATUM, 1, _MOST_STRATA))
    edges = np.quantile(p[drawn], np.arange(1, count) / count)
    stratum = np.searchsorted(np.unique(edges), p, side="right")
    _, stratum = np.unique(stratum, return_inverse=True)
    seen = np.unique(stratum[drawn])
    # a stratum without a sampled row joins the next
    stratum = np.minimum(np.searchsorted(seen, stratum), len(seen) - 1)
    shares = np.bincount(stratum) / len(p)
    own, of = weights[drawn], stratum[drawn]
    totals = np.bincount(of, own)
    effective = totals**2 / np.bincount(of, own**2)
    rates = np.bincount(of, own * wrong[drawn]) / totals
    rate = float(shares @ rates)
    smooth = (rates * effective + 0.5) / (effective + 1)
    variance = float(shares**2 @ (smooth * (1 - smooth) / effective))
    whole = float(effective.sum())
    even = (rate * whole + 0.5) / (whole + 1)
    # strata in proportion lose nothing
    return rate, max(even * (1 - even) / variance, float(own.sum() ** 2 / (own**2).sum()))


def _clopper_pearson(rate: float, count: float) -> tuple[float, float]:
    wrong, tail = rate * count, (1 - _COVERAGE) / 2
    low = float(betaincinv(wrong, count - wrong + 1, tail)) if wrong > 0 else 0.0
    high = float(betaincinv(wrong + 1, count - wrong, 1 - tail)) if wrong < count else 1.0
    return low, high
