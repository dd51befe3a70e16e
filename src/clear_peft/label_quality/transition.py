"""Transition matrices by few parameters: what is fitted of one, and its gradient."""

from dataclasses import dataclass

import numpy as np
from scipy.special import softmax

from clear_peft.label_quality.noise_model import TINY, NoiseKind
from clear_peft.label_quality.types import Array, Labels

# where no noise is found, a label can still be wrong
_LEAST_NOISE = 1e-3
# a class-conditional T begins with one label for each class: .7 of it right, the rest even
_PRIOR_RIGHT = 0.7


@dataclass(frozen=True, eq=False)
class Shape:
    """What is not fitted of a transition matrix T.

    Attributes:
        kind: Of the noise.
        spread: How wrong labels that flip to no class in particular spread over the classes, (C,), sum 1.
        targets: The class that each class flips to, (C,); of pair flips alone.
        fixed: All of T, where nothing of it is fitted.
    """

    kind: NoiseKind
    spread: Array
    targets: Labels | None = None
    fixed: Array | None = None

    @property
    def size(self) -> int:
        """Number of parameters."""
        if self.fixed is not None:
            return 0
        return {"none": 0, "symmetric": 1, "pair_flip": 2, "class_conditional": len(self.spread) ** 2}[
            self.kind
        ]

    def transition(self, parameters: Array) -> Array:
        """T from unconstrained parameters: logits of its rows, or of its shares against "kept"."""
        classes = len(self.spread)
        if self.fixed is not None:
            return self.fixed
        if self.kind == "class_conditional":
            return softmax(parameters.reshape(classes, classes), axis=1)
        kept, spread, *flipped = self._shares(parameters)
        transition = np.repeat(spread * self.spread[None], classes, axis=0)
        transition[np.diag_indices(classes)] += kept
        if flipped:
            transition[np.arange(classes), self.targets] += flipped[0]
        return transition

    def gradient(self, parameters: Array, counts: Array, transition: Array) -> tuple[Array, float]:
        """Of the log likelihood and the prior of T in the parameters, and the log prior.

        Args:
            parameters: As for ``transition``.
            counts: Expected numbers of rows by true and given class, (C, C).
            transition: T.
        """
        if not self.size:
            return np.zeros(0), 0.0
        if self.kind == "class_conditional":
            prior = prior_counts(len(counts))
            full = counts + prior
            slopes = full - full.sum(axis=1, keepdims=True) * transition
            return slopes.ravel(), float((prior * np.log(np.maximum(transition, TINY))).sum())
        slopes = counts / np.maximum(transition, TINY)  # derivative in each entry of T
        parts = [np.trace(slopes), (slopes @ self.spread).sum()]
        if self.kind == "pair_flip":
            parts.append(slopes[np.arange(len(counts)), self.targets].sum())
        shares, values = self._shares(parameters), np.array(parts)
        return (shares * (values - shares @ values))[1:], 0.0

    def _shares(self, parameters: Array) -> Array:
        """Shares of labels that are kept, spread and flipped."""
        if self.kind == "none":
            return np.array([1 - _LEAST_NOISE, _LEAST_NOISE])
        return softmax(np.append(0.0, parameters))


def prior_counts(classes: int) -> Array:
    """The labels that a class-conditional T begins with, (C, C), one of each class."""
    return np.full((classes, classes), (1 - _PRIOR_RIGHT) / classes) + _PRIOR_RIGHT * np.eye(classes)
