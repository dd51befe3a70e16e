"""What a noise model returns: the noisy labels, and how much noise was really put in."""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt


@dataclass(frozen=True, eq=False)
class Corruption:
    """Corrupted labels with the noise that was realised, which differs from the noise that was asked for.

    Attributes:
        labels: The labels after corruption, (N,) int64.
        changed: True where the label is no longer the one that came in, (N,) bool.
        rate: The share of changed labels.
        matrix: The realised transition matrix, (C, C) float64: row ``a``, column ``b`` is the share of the
            examples of class ``a`` that now carry label ``b``. Rows sum to 1; a class without examples
            has its row of the identity.
    """

    labels: npt.NDArray[np.int64]
    changed: npt.NDArray[np.bool_]
    rate: float
    matrix: npt.NDArray[np.float64]

    @classmethod
    def between(
        cls, before: npt.NDArray[np.int64], after: npt.NDArray[np.int64], num_classes: int
    ) -> "Corruption":
        """Compare the labels ``before`` and ``after``, both (N,) int64 in [0, num_classes) with N ≥ 1."""
        pairs = np.bincount(before * num_classes + after, minlength=num_classes**2)
        counts = pairs.reshape(num_classes, num_classes).astype(np.float64)
        counts[np.diag_indices(num_classes)] += counts.sum(axis=1) == 0
        changed = before != after
        return cls(after, changed, float(changed.mean()), counts / counts.sum(axis=1, keepdims=True))
