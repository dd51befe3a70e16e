"""Which rows of a table somebody should look at next, and what is known by those of them that are random."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import pandas as pd

from clear_peft.label_quality import LabelQuality, Proposed, noise_rate_from_sample, rows_to_verify

# the sample of random rows says more than the model from here on
_FEWEST_SAMPLED = 10
# the same random rows in every round, and in a scan and a review of the same table
_SEED = 0


class NoiseRate(NamedTuple):
    """The estimated share of wrong labels.

    Attributes:
        rate: The share.
        interval: Of 95 %; None where there is none.
        random_rows: Verified rows of the random sample that it follows from; 0: it is the model's.
    """

    rate: float
    interval: tuple[float, float] | None
    random_rows: int


def propose(texts: Sequence[str], count: int, seen: npt.NDArray[np.bool_] | None = None) -> Proposed:
    """Rows to look at next: ``rows_to_verify``, of rows with the same text one.

    Args:
        texts: (N,).
        count: How many rows.
        seen: Rows that somebody has looked at, (N,). Default: none.
    """
    # rows with the same text have one answer; others of a group, and near copies, have their own
    groups = pd.factorize(np.array(texts, dtype=object))[0]
    return rows_to_verify(len(texts), count, verified=seen, groups=groups, seed=_SEED)


def noise_rate(quality: LabelQuality, sampled: npt.NDArray[np.float64]) -> NoiseRate:
    """By the random sample where it is large enough, else by the model.

    Args:
        quality: Of N labels.
        sampled: ``Proposed.sampled``, (N,).
    """
    verified = quality.verified
    drawn = 0 if verified is None else int(((sampled > 0) & (verified >= 0)).sum())
    if verified is None or drawn < _FEWEST_SAMPLED:
        return NoiseRate(quality.noise_rate, quality.noise_rate_interval, 0)
    p = quality.clean_probability if quality.blind_probability is None else quality.blind_probability
    return NoiseRate(*noise_rate_from_sample(p, verified, quality.given, sampled), drawn)
