"""The share of wrong labels, with an interval."""

import numpy as np

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
    """A 95 % interval for the share of wrong labels among these rows.

    It covers what would be left open if the clean probabilities were right: each label is right with
    probability p, and p itself comes from a mixture fitted to finitely many losses. In each of 100 draws the
    rows are resampled, the mixture fitted anew to their log-odds, and a label drawn right or wrong for every
    row by the p that follows; the interval holds the middle 95 % of the shares. Where p did not come from
    that mixture (another estimator, doubts of an earlier model), it is taken as it is.

    It does not cover that the model may be wrong: labels that it has learnt by heart, hard examples with the
    losses of wrong labels, or a shape of the losses that two Gaussians do not have. Where every p is 1, no
    label was doubted and nothing estimated: the interval then reaches from 0 to the share of labels that
    the predictions contradict.

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
    if rate == 0:
        return 0.0, float(contradicted.mean())
    rng = np.random.default_rng(seed)
    rates = _refitted(clean_probability, log_odds(cross_entropies(quality)), fitted, rng)
    if rates is None:
        counts, edges = np.histogram(clean_probability, _BINS, (0, 1))
        sums = np.histogram(clean_probability, edges, weights=clean_probability)[0]
        wrong = np.clip(1 - sums / np.maximum(counts, 1), 0, 1)
        rates = rng.binomial(counts, wrong, (_DRAWS, _BINS)).sum(axis=1) / counts.sum()
    low, high = np.quantile(rates, [(1 - _LEVEL) / 2, (1 + _LEVEL) / 2])
    return min(float(low), rate), max(float(high), rate)


def _refitted(
    clean_probability: np.ndarray, values: np.ndarray, fitted: np.ndarray, rng: np.random.Generator
) -> np.ndarray | None:
    """Shares of wrong labels by mixtures refitted to resampled rows; None where p is not from one."""
    edges = np.histogram_bin_edges(values, _BINS)
    middles = (edges[:-1] + edges[1:]) / 2
    counts = np.histogram(values, edges)[0]
    seen = np.histogram(values[fitted], edges)[0]
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
    return np.array(
        [
            rng.binomial(counts, np.clip(wrong(draw), 0, 1)).sum() / counts.sum()
            for draw in draws
            if np.count_nonzero(draw) > 1
        ]
    )
