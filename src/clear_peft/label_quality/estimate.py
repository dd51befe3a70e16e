"""What every estimator of label cleanliness takes and gives."""

from dataclasses import dataclass
from typing import Any, Literal, Protocol

import numpy as np
import numpy.typing as npt


@dataclass(frozen=True, eq=False)
class CleanlinessEstimate:
    """How believable each label is.

    Attributes:
        clean_probability: p, (N,) float32 in [0, 1]. An example without a loss (NaN) has p = 1: nothing
            speaks against its label.
        components: 2, or 1 where the losses are all alike and every p is 1.
        parameters: What was fitted, JSON-able, enough to draw the fitted curve over the losses.
    """

    clean_probability: npt.NDArray[np.float32]
    components: Literal[1, 2]
    parameters: dict[str, Any]

    @property
    def noise_rate(self) -> float:
        """The estimated share of wrong labels, mean(1 − p)."""
        return float(1 - self.clean_probability.mean(dtype=np.float64))


class CleanlinessEstimator(Protocol):
    """Turns per-example losses into clean probabilities. A new estimator is one class with this method."""

    def estimate(self, losses: npt.ArrayLike, labels: npt.ArrayLike | None = None) -> CleanlinessEstimate:
        """Estimate how believable each label is.

        Args:
            losses: Per-example losses under the given labels, (N,) float, N ≥ 1; NaN where an example has
                not been scored.
            labels: The given labels, (N,) int; only estimators that treat classes apart need them.

        Returns:
            The estimate, in the order of ``losses``.
        """
        ...
