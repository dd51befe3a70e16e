"""How given labels come from true ones, and what follows for each label."""

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[np.float64]

_SMALLEST = 1e-12
_STEPS = 200
_CHANGE = 1e-6


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

    def posterior(self, predicted: npt.NDArray[np.floating], labels: npt.NDArray[np.integer]) -> Array:
        """P(true class | row, given label), (N, C) float64.

        Args:
            predicted: P(true class | row) of who has not seen the row's label, (N, C).
            labels: Given labels, (N,).
        """
        predicted, own = np.maximum(predicted, _SMALLEST), (np.arange(len(labels)), labels)
        even = 1 / predicted.shape[1]
        joint = self.rate * predicted * (even if self.drawn is None else self.drawn[:, labels].T)
        joint[own] += (1 - self.rate) * predicted[own]
        return joint / joint.sum(axis=1, keepdims=True)

    def clean_probability(
        self, predicted: npt.NDArray[np.floating], labels: npt.NDArray[np.integer]
    ) -> Array:
        """P(the given label is the true class | row, given label), (N,) float64; see ``posterior``."""
        return self.posterior(predicted, labels)[np.arange(len(labels)), labels]


def fit_noise_model(predicted: npt.NDArray[np.floating], labels: npt.NDArray[np.integer]) -> NoiseModel:
    """The noise that makes given labels likeliest, by expectation maximisation (Dempster et al. 1977).

    That each class draws labels in its own way, (C, C) numbers, is believed only where it makes them likelier
    by more than so many parameters do by chance (Schwarz 1978, BIC).

    Args:
        predicted: P(true class | row) of who has not seen the row's label, (N, C).
        labels: Given labels, (N,).
    """
    size, classes = predicted.shape
    predicted = np.maximum(predicted.astype(np.float64), _SMALLEST)
    chosen, likelihood = _fitted(predicted, labels, class_conditional=False)
    price = classes * (classes - 1) / 2 * math.log(size)
    if price < size * math.log(classes):  # more is not to be gained
        other, reached = _fitted(predicted, labels, class_conditional=True)
        if reached - likelihood > price:
            chosen = other
    return chosen


def _fitted(
    predicted: npt.NDArray[np.floating], labels: npt.NDArray[np.integer], *, class_conditional: bool
) -> tuple[NoiseModel, float]:
    """The model, and the log likelihood of the labels."""
    classes = predicted.shape[1]
    own, given = predicted[np.arange(len(labels)), labels], np.eye(classes)[labels]
    drawn, rate, likelihood = np.full((classes, classes), 1 / classes), 0.3, -math.inf
    for _ in range(_STEPS):
        anew = predicted * drawn[:, labels].T if class_conditional else None
        total = np.full(len(labels), 1 / classes) if anew is None else anew.sum(axis=1)
        likelihoods = (1 - rate) * own + rate * total
        noise = rate * total / likelihoods
        before, likelihood, rate = likelihood, float(np.log(likelihoods).sum()), float(noise.mean())
        if anew is not None:  # one label of each kind beforehand, so that none is impossible
            counts = (anew * (noise / total)[:, None]).T @ given + 1
            drawn = counts / counts.sum(axis=1, keepdims=True)
        if likelihood - before < _CHANGE * len(labels):
            break
    return NoiseModel(rate, drawn if class_conditional else None), likelihood
