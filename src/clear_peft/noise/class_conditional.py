"""Class-conditional label noise: the new label depends on the true class alone.

Every model here is a row-stochastic matrix T with T[a, b] = P(noisy label b | true label a), so there is
one sampler, `transition`, and the named models only build their matrix.
"""

from collections.abc import Mapping

import numpy as np
import numpy.typing as npt

from clear_peft.errors import InputError
from clear_peft.noise.checks import check_classes, check_labels, check_matrix, check_rate
from clear_peft.noise.corruption import Corruption


def symmetric(
    labels: npt.ArrayLike, num_classes: int, rate: float, seed: int, *, inclusive: bool = False
) -> Corruption:
    """Flip labels uniformly, whatever their class.

    Args:
        labels: True labels, (N,) integers in [0, num_classes).
        num_classes: C, at least 2.
        rate: η in [0, 1], the probability that a label is redrawn.
        seed: Seed of the random generator: the same arguments give the same labels.
        inclusive: False: redrawn from the C − 1 other classes, so that η is the expected share of wrong
            labels (Co-teaching; Han et al. 2018, arXiv 1804.06872). True: redrawn from all C classes, which
            makes it η·(C − 1)/C (DivideMix; Li et al. 2020, arXiv 2002.07394).

    Returns:
        The corrupted labels with the realised rate and transition matrix.

    Raises:
        InputError: If the labels are not integers in [0, num_classes) or the rate is outside [0, 1].
    """
    check_classes(num_classes)
    check_rate(rate)
    to_each = rate / num_classes if inclusive else rate / (num_classes - 1)
    matrix = np.full((num_classes, num_classes), to_each)
    np.fill_diagonal(matrix, 1 - rate + to_each if inclusive else 1 - rate)
    return transition(labels, matrix, seed)


def pair_flip(labels: npt.ArrayLike, num_classes: int, rate: float, seed: int) -> Corruption:
    """Flip each class to the next one, c → (c + 1) mod C (Han et al. 2018, arXiv 1804.06872).

    Args:
        labels: True labels, (N,) integers in [0, num_classes).
        num_classes: C, at least 2.
        rate: η in [0, 1], the probability of a flip.
        seed: Seed of the random generator: the same arguments give the same labels.

    Returns:
        The corrupted labels with the realised rate and transition matrix.

    Raises:
        InputError: If the labels are not integers in [0, num_classes) or the rate is outside [0, 1].
    """
    check_classes(num_classes)
    check_rate(rate)
    identity = np.eye(num_classes)
    return transition(labels, (1 - rate) * identity + rate * np.roll(identity, 1, axis=1), seed)


def class_map(
    labels: npt.ArrayLike, num_classes: int, mapping: Mapping[int, int], rate: float, seed: int
) -> Corruption:
    """Flip some classes to one other class each, as annotators confuse a cat with a lynx.

    Args:
        labels: True labels, (N,) integers in [0, num_classes).
        num_classes: C, at least 2.
        mapping: Class → the class that its labels flip to; labels of other classes are kept.
        rate: η in [0, 1], the probability that a label of a class in the mapping flips.
        seed: Seed of the random generator: the same arguments give the same labels.

    Returns:
        The corrupted labels with the realised rate and transition matrix.

    Raises:
        InputError: If the labels or the mapping hold anything but integers in [0, num_classes), or the rate
            is outside [0, 1].
    """
    check_classes(num_classes)
    check_rate(rate)
    strange = [c for pair in mapping.items() for c in pair if c not in range(num_classes)]
    if strange:
        raise InputError(
            f"The class map names {strange[0]!r}: give class numbers from 0 to {num_classes - 1}."
        )
    matrix = np.eye(num_classes)
    for given, flipped in mapping.items():
        matrix[given, given] -= rate
        matrix[given, flipped] += rate
    return transition(labels, matrix, seed)


def transition(labels: npt.ArrayLike, matrix: npt.ArrayLike, seed: int) -> Corruption:
    """Draw every label anew from its class's row of a transition matrix.

    Args:
        labels: True labels, (N,) integers in [0, C).
        matrix: Row-stochastic, (C, C): row ``a``, column ``b`` is P(noisy label b | true label a).
        seed: Seed of the random generator: the same arguments give the same labels.

    Returns:
        The corrupted labels with the realised rate and transition matrix.

    Raises:
        InputError: If the matrix is not square and row-stochastic (to 1e-6), or a label is not one of its
            rows.
    """
    rows = check_matrix(matrix)
    before = check_labels(labels, len(rows))

    # Dividing by the row's last entry makes it exactly 1, so that a draw below 1 always finds a class.
    cumulative = np.cumsum(rows, axis=1)
    cumulative /= cumulative[:, -1:]
    draws = np.random.default_rng(seed).random(len(before))
    after = np.empty_like(before)
    for label, row in enumerate(cumulative):
        members = before == label
        after[members] = np.searchsorted(row, draws[members], side="right")
    return Corruption.between(before, after, len(rows))
