"""How given labels come from true ones, and what follows for each label."""

from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt

from clear_peft.label_quality.types import Array

NoiseKind = Literal["none", "symmetric", "pair_flip", "class_conditional"]

TINY = 1e-300


@dataclass(frozen=True, eq=False)
class NoiseModel:
    """A transition matrix between true and given labels.

    Attributes:
        kind: ``none`` (none was found: one label in a thousand may be wrong), ``symmetric`` (a wrong label
            may be any other class), ``pair_flip`` (each class mostly flips to one other) or
            ``class_conditional`` (each class in its own way).
        transition: T, P(given label j | true class i), (C, C) float64, rows sum to 1.
    """

    kind: NoiseKind
    transition: Array

    def joint(self, pred_probs: npt.NDArray[np.floating], labels: npt.NDArray[np.integer]) -> Array:
        """P(true class, given label | row), (N, C); arguments as for ``posterior``."""
        return pred_probs * self.transition[:, labels].T

    def posterior(self, pred_probs: npt.NDArray[np.floating], labels: npt.NDArray[np.integer]) -> Array:
        """P(true class | row, given label), (N, C) float64.

        Args:
            pred_probs: P(true class | row) by a model that has not seen the row's label, (N, C).
            labels: Given labels, (N,).
        """
        joint = self.joint(pred_probs, labels)
        return joint / np.maximum(joint.sum(axis=1, keepdims=True), TINY)

    def clean_probability(
        self, pred_probs: npt.NDArray[np.floating], labels: npt.NDArray[np.integer]
    ) -> Array:
        """P(the given label is the true class | row, given label), (N,) float64; see ``posterior``."""
        joint = self.joint(pred_probs, labels)
        return joint[np.arange(len(labels)), labels] / np.maximum(joint.sum(axis=1), TINY)
