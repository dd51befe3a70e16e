"""A part of the training data held out for validation."""

import numpy as np

from clear_peft.errors import InputError


def hold_out(
    labels: np.ndarray, fraction: float, seed: int, groups: np.ndarray | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """Split stratified by label, so that each class keeps at least one row for training.

    Classes with a single row stay in training. Unlike scikit-learn's ``train_test_split``, this also works
    where there are more classes than rows to hold out: then a random choice of classes gives one row each.
    Groups are held out whole, each by the label of its first row; one with more rows than are to be held out
    stays in training. Where that leaves nothing to hold out, as of a table of one text, groups do not count.

    Args:
        labels: Class ids, integers of shape (N,).
        fraction: Part to hold out, above 0 and below 1.
        seed: The same seed gives the same split.
        groups: Group of each row, (N,): copies of a text, or what else must not be on both sides. Default:
            every row is alone.

    Returns:
        Indices for training and for validation, both sorted and int64; about ``fraction`` times N and at
        least one are for validation.

    Raises:
        InputError: If the fraction is out of range, or no class has two rows.
    """
    if not 0 < fraction < 1:
        raise InputError(f"The fraction to hold out must be above 0 and below 1, but it is {fraction}.")
    _, classes = np.unique(np.asarray(labels), return_inverse=True)
    if groups is None:
        held = _held(classes, fraction, seed)
    else:
        _, first, unit, size = np.unique(groups, return_index=True, return_inverse=True, return_counts=True)
        small = size <= max(1, fraction * len(classes))
        held = np.zeros(len(first), bool)
        if small.any():
            held[small] = _held(classes[first[small]], fraction, seed, kept=classes[first[~small]])
        # a class that only stands in groups of others must not go with them
        kept = np.bincount(classes, weights=~held[unit], minlength=classes.max() + 1)
        lost = np.flatnonzero(kept == 0)
        held[unit[np.isin(classes, lost)]] = False
        held = held[unit]
        if not held.any():
            return hold_out(labels, fraction, seed)
    if not held.any():
        raise InputError(
            "Nothing can be held out for validation, as no class has two rows; give more rows, or a "
            "validation table."
        )
    return np.flatnonzero(~held), np.flatnonzero(held)


def _held(classes: np.ndarray, fraction: float, seed: int, kept: np.ndarray | None = None) -> np.ndarray:
    """Which of M units are held out, (M,) bool, by their classes; ``kept`` are classes that stay anyway."""
    counts = np.bincount(classes)
    safe = np.zeros(len(counts), bool)
    if kept is not None:
        safe[kept[kept < len(counts)]] = True
    most = np.maximum(counts - ~safe, 0)
    rng = np.random.default_rng(seed)
    wanted = np.minimum(fraction * counts, most)
    taken = np.floor(wanted).astype(np.int64)
    total = min(max(1, round(fraction * len(classes))), int(most.sum()))
    # Largest remainder first, ties at random.
    order = np.lexsort((rng.random(len(counts)), taken - wanted))
    while taken.sum() < total:
        open_classes = order[taken[order] < most[order]]
        taken[open_classes[: total - taken.sum()]] += 1
    held = np.zeros(len(classes), dtype=bool)
    for class_id, count in enumerate(taken):
        held[rng.permutation(np.flatnonzero(classes == class_id))[:count]] = True
    return held
