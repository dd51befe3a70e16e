"""Instance-dependent label noise: the new label depends on the example itself."""

import numpy as np
import numpy.typing as npt
from scipy.special import softmax

from clear_peft.errors import InputError
from clear_peft.noise.checks import check_classes, check_labels, check_rate
from clear_peft.noise.corruption import Corruption

_RATE_SPREAD = 0.1  # standard deviation of the flip rates before truncation


def instance_dependent(
    labels: npt.ArrayLike, features: npt.ArrayLike, num_classes: int, rate: float, seed: int
) -> Corruption:
    """Flip each label by a rate of its example's own, to classes that its features suggest.

    Example i of class a flips with probability q_i ~ TruncNormal(η, 0.1, [0, 1]), to another class b in
    proportion to exp((x_i W_a)_b), where each class has its own W_a ~ N(0, 1) of shape (S, C) (Xia et al.
    2020, arXiv 2006.07836). The mean of q_i, the expected share of wrong labels, is η except near the ends,
    where truncation draws it inwards: 0.13 at η = 0.1 and 0.92 at η = 1. At η = 0 nothing flips.

    Rows of features are scaled to unit length here, so that scores have standard deviation 1 whatever S is.
    Where this noise is put into images, they are commonly left at lengths around √S: a softmax of scores as
    large leaves each image one likely wrong class, where ours leaves several.

    Args:
        labels: True labels, (N,) integers in [0, num_classes).
        features: What is known of the examples, (N, S) floats, such as a frozen sentence embedding.
        num_classes: C, at least 2.
        rate: η in [0, 1].
        seed: Seed of the random generator: the same arguments give the same labels.

    Returns:
        The corrupted labels with the realised rate and transition matrix.

    Raises:
        InputError: If the labels are not integers in [0, num_classes), the rate is outside [0, 1], or the
            features are not one finite row for each label, none of them zero.
    """
    check_classes(num_classes)
    check_rate(rate)
    before = check_labels(labels, num_classes)
    rows = np.asarray(features)
    if rows.ndim != 2 or len(rows) != len(before) or not np.issubdtype(rows.dtype, np.floating):
        raise InputError(
            f"features have shape {rows.shape} and dtype {rows.dtype}: give floats (N, S), "
            f"one row for each of the {len(before)} labels."
        )
    lengths = np.linalg.norm(rows, axis=1)
    if not (np.isfinite(lengths).all() and lengths.all()):
        raise InputError("A row of the features is zero or not finite: give every example a direction.")

    rng = np.random.default_rng(seed)
    flip = np.zeros(len(before))
    if rate:
        from scipy.stats import truncnorm  # a second to load

        ends = (0 - rate) / _RATE_SPREAD, (1 - rate) / _RATE_SPREAD
        flip = truncnorm.rvs(*ends, loc=rate, scale=_RATE_SPREAD, size=len(before), random_state=rng)
    draws = rng.random(len(before))
    after = np.empty_like(before)
    # a generator for each class: what it draws does not depend on which other classes occur
    for label, own in enumerate(rng.spawn(num_classes)):
        members = np.flatnonzero(before == label)
        directions = rows[members] / lengths[members, None]
        scores = directions @ own.standard_normal((rows.shape[1], num_classes))
        scores[:, label] = -np.inf
        chances = flip[members, None] * softmax(scores, axis=1)
        chances[:, label] = 1 - flip[members]
        # Dividing by the row's last entry makes it exactly 1, so that a draw below 1 always finds a class.
        cumulative = np.cumsum(chances, axis=1)
        cumulative /= cumulative[:, -1:]
        after[members] = (draws[members, None] >= cumulative).sum(axis=1)
    return Corruption.between(before, after, num_classes)
