"""A part of the training data held out for validation."""

import numpy as np

from clear_peft.errors import InputError


def hold_out(labels: np.ndarray, fraction: float, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Split stratified by label, so that each class keeps at least one row for training.

    Classes with a single row stay in training. Unlike scikit-learn's ``train_test_split``, this also works
    where there are more classes than rows to hold out: then a random choice of classes gives one row each.

    Args:
        labels: Class ids, integers of shape (N,).
        fraction: Part to hold out, above 0 and below 1.
        seed: The same seed gives the same split.

    Returns:
        Indices for training and for validation, both sorted and int64; about ``fraction`` times N and at
        least one are for validation.

    Raises:
        InputError: If the fraction is out of range, or no class has two rows.
    """
    if not 0 < fraction < 1:
        raise InputError(f"The fraction to hold out must be above 0 and below 1, but it is {fraction}.")
    _, classes, counts = np.unique(np.asarray(labels), return_inverse=True, return_counts=True)
    most = counts - 1
    if not most.any():
        raise InputError("Nothing can be held out for validation, as no class has two rows; give more rows.")
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
    return np.flatnonzero(~held), np.flatnonzero(held)
