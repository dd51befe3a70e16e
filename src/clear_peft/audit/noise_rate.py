"""The share of wrong labels, with an interval."""

import numpy as np
from scipy.stats import beta

from clear_peft.cleanliness import log_odds
from clear_peft.cleanliness.mixture import GaussianMixture

_DRAWS = 100
_BINS = 256
_LEVEL = 0.95
# A refit that differs more, on average over rows, was not what the clean probabilities come from.
_SAME_FIT = 0.01


def cross_entropies(quality: np.ndarray) -> np.ndarray:
    """−log of the label quality, (N,) float64, finite also where that is 0."""
    return -np.log(np.clip(quality, np.finfo(np.float64).tiny, 1))


def noise_rate_interval(
    clean_probability: np.ndarray,
    quality: np.ndarray,
    fitted: np.ndarray,
    contradicted: np.ndarray,
    seed: int,
) -> tuple[float, float]:
    """A 95 % interval for the share of wrong labels where these rows come from, and so among them.

    It is never narrower than if every label had been checked: then the number of wrong ones would be a
    binomial draw, and the interval that of Jeffreys (Brown, Cai & DasGupta 2001, Statistical Science 16,
    101-133), which is no point even where all labels are right or wrong. What the fit leaves open comes on
    top: the rows are resampled 100 times, the mixture fitted anew to their log-odds, and the middle 95 % of
    the estimates that follow belong to the interval. Where p did not come from that mixture (another
    estimator, doubts of an earlier model), it is taken as it is.

    It does not cover that the model may be wrong: labels that it has learnt by heart, hard examples with the
    losses of wrong labels, or a shape of the losses that two Gaussians do not have. Where every p is 1, no
    label was doubted and nothing estimated: the interval then begins at 0 and reaches at least to the share
    of labels that the predictions contradict.

    Args:
        clean_probability: p, (N,) in [0, 1].
        quality: exp(−loss), (N,) in [0, 1].
        fitted: Whether a row was among those that the mixture was fitted to, (N,) bool.
        contradicted: Whether the prediction is another than the given label, (N,) bool.
        seed: Of the draws.

    Returns:
        Lower and upper end; the estimate mean(1 − p) lies between them.
    """
    rate = float(np.mean(1 - clean_probability))
    low, high = _jeffreys(rate, len(clean_probability))
    if rate == 0:
        return 0.0, max(high, float(contradicted.mean()))
    values = log_odds(cross_entropies(quality))
    rates = _refitted(clean_probability, values, fitted, np.random.default_rng(seed))
    if rates is None:
        return low, high
    lowest, highest = np.quantile(rates, [(1 - _LEVEL) / 2, (1 + _LEVEL) / 2])
    return min(float(lowest), low), max(float(highest), high)


def _jeffreys(rate: float, count: int) -> tuple[float, float]:
    """The interval for the probability of an event that has been seen at this rate."""
    wrong = rate * count
    low, high = beta.ppf([(1 - _LEVEL) / 2, (1 + _LEVEL) / 2], wrong + 0.5, count - wrong + 0.5)
    return min(float(low), rate), max(float(high), rate)


def _refitted(
    clean_probability: np.ndarray, values: np.ndarray, fitted: np.ndarray, rng: np.random.Generator
) -> np.ndarray | None:
    """Shares of wrong labels by mixtures refitted to resampled rows; None where p is not from one."""
    edges = np.histogram_bin_edges(values, _BINS)
    middles = (edges[:-1] + edges[1:]) / 2
    seen, unseen = (np.histogram(values[rows], edges)[0] for rows in (fitted, ~fitted))
    if np.count_nonzero(seen) < 2:
        return None

    def wrong(counted: np.ndarray) -> np.ndarray:
        kept = counted > 0
        mixture = GaussianMixture.fit(middles[kept], counted[kept].astype(np.float64))
        return 1 - mixture.lower_posterior(middles, monotone=True)

    bins = np.clip(np.searchsorted(edges, values, side="right") - 1, 0, _BINS - 1)
    if np.abs(1 - wrong(seen)[bins] - clean_probability)[fitted].mean() > _SAME_FIT:
        return None
    draws = rng.multinomial(seen.sum(), seen / seen.sum(), _DRAWS)
    others = rng.multinomial(unseen.sum(), unseen / max(unseen.sum(), 1), _DRAWS)
    return np.array(
        [
            np.average(wrong(draw), weights=draw + other)
            for draw, other in zip(draws, others, strict=True)
            if np.count_nonzero(draw) > 1
        ]
    )
