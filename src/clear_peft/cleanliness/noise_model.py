"""How given labels come from true ones, and what follows for each label."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Literal

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[np.float64]

_SMALLEST = 1e-12
_STEPS = 200
_CHANGE = 1e-6
_MOST_FLIPS = 0.99
_LEAST_FLIPPED = 0.1
# nats
_LEAST_GAINED = 0.2


@dataclass(frozen=True, eq=False)
class NoiseModel:
    """A label is the true one or, with probability ε, drawn anew: evenly, or as its true class draws.

    Attributes:
        rate: ε. A label that is drawn anew may by chance be the true one.
        drawn: P(label j drawn anew | true class i), (C, C) float64, rows sum to 1; None where all classes
            draw evenly.
    """

    rate: float
    drawn: Array | None

    @property
    def kind(self) -> Literal["uniform", "flips", "class-conditional"]:
        """How labels are drawn anew: evenly, evenly but for one class that each flips to, or otherwise."""
        if self.drawn is None:
            return "uniform"
        others = np.sort(self.drawn, axis=1)[:, :-1]
        return "flips" if (others == others[:, :1]).all() else "class-conditional"

    def log_likelihood(self, predicted: npt.NDArray[np.floating], labels: npt.NDArray[np.integer]) -> float:
        """Of the given labels, in nats, their sum; arguments as for ``posterior``."""
        return float(np.log(self._joint(predicted, labels).sum(axis=1)).sum())

    def posterior(self, predicted: npt.NDArray[np.floating], labels: npt.NDArray[np.integer]) -> Array:
        """P(true class | row, given label), (N, C) float64.

        Args:
            predicted: P(true class | row) of who has not seen the row's label, (N, C).
            labels: Given labels, (N,).
        """
        joint = self._joint(predicted, labels)
        return joint / joint.sum(axis=1, keepdims=True)

    def clean_probability(
        self, predicted: npt.NDArray[np.floating], labels: npt.NDArray[np.integer]
    ) -> Array:
        """P(the given label is the true class | row, given label), (N,) float64; see ``posterior``."""
        return self.posterior(predicted, labels)[np.arange(len(labels)), labels]

    def _joint(self, predicted: npt.NDArray[np.floating], labels: npt.NDArray[np.integer]) -> Array:
        """P(true class, given label | row), (N, C)."""
        predicted, own = np.maximum(predicted, _SMALLEST), (np.arange(len(labels)), labels)
        even = 1 / predicted.shape[1]
        joint = self.rate * predicted * (even if self.drawn is None else self.drawn[:, labels].T)
        joint[own] += (1 - self.rate) * predicted[own]
        return joint


def fit_noise_model(predicted: npt.NDArray[np.floating], labels: npt.NDArray[np.integer]) -> NoiseModel:
    """The noise that makes given labels likeliest, by expectation maximisation (Dempster et al. 1977).

    Three kinds of noise are tried: all classes draw evenly; each class draws evenly or flips to one other
    class; each class draws in its own way, (C, C) numbers. More than even noise is believed only where it
    makes labels likelier by more than so many parameters do by chance (Schwarz 1978, BIC; which class each
    flips to costs the logarithm of the choices). What a probe confuses looks like flips: they are believed
    only where a tenth of all labels flipped, and each is likelier by .2 nats than as an even draw.

    Args:
        predicted: P(true class | row) of who has not seen the row's label, (N, C).
        labels: Given labels, (N,).
    """
    size, classes = predicted.shape
    likely: Array = np.maximum(predicted.astype(np.float64), _SMALLEST)
    believed, even = _fitted(likely, labels)
    most, highest = size * math.log(classes), 0.0  # more is not to be gained
    own_ways = partial(_fitted, redraw=_own_way)
    prices: dict[Callable[..., tuple[NoiseModel, float]], float] = {
        _fitted_flips: classes * math.log(classes) + math.log(size) / 2,
        own_ways: classes * (classes - 1) / 2 * math.log(size),
    }
    for fit, price in prices.items():
        if price < most:
            noise, likelihood = fit(likely, labels)
            gained = likelihood - even
            if gained - price > highest and (fit is own_ways or _are_real(noise, gained / size)):
                believed, highest = noise, gained - price
    return believed


def _fitted_flips(predicted: Array, labels: npt.NDArray[np.integer]) -> tuple[NoiseModel, float]:
    """As ``_fitted``, each class with one flip: where that rests, every other is tried.

    Among few rows or many classes expectation maximisation alone ends with wrong flips.
    """
    noise, likelihood = _fitted(predicted, labels, _one_flip)
    while True:
        again = _fitted(predicted, labels, _one_flip, start=_each_flip_tried(noise, predicted, labels))
        if again[1] <= likelihood + _CHANGE * len(labels):
            return noise, likelihood
        noise, likelihood = again


def _each_flip_tried(noise: NoiseModel, predicted: Array, labels: npt.NDArray[np.integer]) -> NoiseModel:
    """The same, but each class, in turn, with the flip that makes labels likeliest, others as they are."""
    assert noise.drawn is not None
    drawn, given = noise.drawn.copy(), np.eye(len(noise.drawn))[labels]
    least, flipped = drawn.min(), np.ptp(drawn)
    likelihoods = noise._joint(predicted, labels).sum(axis=1)
    for true in range(len(drawn)):
        more = noise.rate * flipped * predicted[:, true]
        without = np.maximum(likelihoods - more * given[:, drawn[true].argmax()], _SMALLEST)
        gains = np.log1p(more / without) @ given
        gains[true] = -math.inf
        drawn[true] = least
        drawn[true, gains.argmax()] += flipped
        likelihoods = without + more * given[:, gains.argmax()]
    return NoiseModel(noise.rate, drawn)


def _own_way(counts: Array) -> Array:
    """Each class as it drew; one label of each kind beforehand, so that none is impossible."""
    return (counts + 1) / (counts + 1).sum(axis=1, keepdims=True)


def _one_flip(counts: Array) -> Array:
    """Each class evenly or, with a probability that all share, its one flip."""
    classes = len(counts)
    others = np.where(np.eye(classes, dtype=bool), -1, counts)
    flips = np.eye(classes)[others.argmax(axis=1)]
    share = np.clip(_beyond_even((counts * flips).sum() / counts.sum(), classes), 0, _MOST_FLIPS)
    return (1 - share) / classes + share * flips


def _are_real(flips: NoiseModel, gained: float) -> bool:
    """Whether these are enough, and gain enough for each label over even noise; see ``fit_noise_model``."""
    assert flips.drawn is not None
    flipped = flips.rate * _beyond_even(flips.drawn.max(axis=1).mean(), len(flips.drawn))
    return flipped >= _LEAST_FLIPPED and gained >= _LEAST_GAINED * flipped


def _beyond_even(share: float, classes: int) -> float:
    """Of labels drawn anew those that flipped, where a share met the flips: even draws meet them as well."""
    return (share - 1 / classes) / (1 - 1 / classes)


def _fitted(
    predicted: Array,
    labels: npt.NDArray[np.integer],
    redraw: Callable[[Array], Array] | None = None,
    start: NoiseModel | None = None,
) -> tuple[NoiseModel, float]:
    """The model, and the log likelihood of the labels.

    Args:
        predicted: As for ``fit_noise_model``, nowhere zero.
        labels: The same.
        redraw: P(label | class) of what is drawn anew, (C, C), from how often it was; None leaves it even.
        start: Default: three labels of ten drawn anew, evenly.
    """
    classes = predicted.shape[1]
    start = start or NoiseModel(0.3, None)
    own, given = predicted[np.arange(len(labels)), labels], np.eye(classes)[labels]
    drawn = np.full((classes, classes), 1 / classes) if start.drawn is None else start.drawn
    rate, likelihood = start.rate, -math.inf
    for _ in range(_STEPS):
        anew = None if redraw is None else predicted * drawn[:, labels].T
        total = np.full(len(labels), 1 / classes) if anew is None else anew.sum(axis=1)
        likelihoods = (1 - rate) * own + rate * total
        noise = rate * total / likelihoods
        before, likelihood, rate = likelihood, float(np.log(likelihoods).sum()), float(noise.mean())
        if redraw is not None and anew is not None:
            drawn = redraw((anew * (noise / total)[:, None]).T @ given)
        if likelihood - before < _CHANGE * len(labels):
            break
    return NoiseModel(rate, None if redraw is None else drawn), likelihood
