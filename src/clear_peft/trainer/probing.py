"""A probe for as many rows as there are: fitted to some, asked of all, block by block."""

from collections.abc import Callable, Iterator

import numpy as np
import pandas as pd
from torch import Tensor

from clear_peft.label_quality import Judgement, fit_probe
from clear_peft.trainer.config import CleaRConfig
from clear_peft.trainer.judging import check_finite, judged_by_probe
from clear_peft.trainer.state import CleanlinessState

# more rows tell a linear probe next to nothing, and their features have to be in memory together
MOST_ROWS = 1 << 16
# of each class, as far as there are so many, however rare it is
_LEAST_OF_CLASS = 50


def probed(
    features_of: Callable[[np.ndarray | None], Tensor | None],
    labels: np.ndarray,
    held_out_labels: np.ndarray,
    num_classes: int,
    args: CleaRConfig,
    *,
    epoch: int,
    groups: np.ndarray,
    copies: np.ndarray,
) -> CleanlinessState | None:
    """What a probe on a model's features makes of the labels; None where the model has no features.

    Args:
        features_of: Gives the features of training rows, (B,) → (B, V, D), and of all validation rows,
            None → (M, V, D), or None where there are none.
        labels: Given labels of the training rows, (N,).
        held_out_labels: Of the validation rows, (M,).
        num_classes: C.
        args: For ``seed`` and ``doubt_above``.
        epoch: Number of epochs that the model has been trained for.
        groups: Group of each training row, (N,): rows of one are left out together.
        copies: Rows with one number have the same text, and count together as one, (N,).

    Raises:
        InputError: If a feature is not finite.
    """
    first, *others = blocks(labels, args.seed)
    features, validation = features_of(first), features_of(None)
    if features is None:
        return None
    fitted, quality = fit_probe(
        finite(features), labels[first], num_classes, groups=groups[first], copies=copies[first]
    )

    def judgements() -> Iterator[tuple[np.ndarray, Judgement]]:
        yield first, Judgement(quality.pred_probs.dense(), quality.clean_probability)
        for rows in others:
            read = features_of(rows)
            assert read is not None  # as of the first
            yield rows, fitted.judge(finite(read), labels[rows])

    unseen = finite(features[:0] if validation is None else validation)
    held_out = fitted.judge(unseen, held_out_labels), held_out_labels
    return judged_by_probe(
        quality.noise,
        quality.noise_rate_interval,
        judgements(),
        labels,
        held_out,
        args,
        epoch=epoch,
    )


def blocks(labels: np.ndarray, seed: int, most: int = MOST_ROWS) -> list[np.ndarray]:
    """Positions of all rows, in order; of more than fit into a block, in random blocks of that size.

    The first has at least 50 rows of every class, or all that there are.

    Args:
        labels: (N,).
        seed: Of the draw.
        most: Rows of a block. Default 65,536.
    """
    drawn = np.arange(len(labels))
    if len(labels) > most:
        drawn = np.random.default_rng(seed).permutation(drawn)
        place_in_class = pd.Series(drawn).groupby(labels[drawn]).cumcount().to_numpy()
        drawn = drawn[np.argsort(place_in_class >= _LEAST_OF_CLASS, kind="stable")]
    return [np.sort(drawn[start : start + most]) for start in range(0, len(drawn), most)]


def finite(features: Tensor) -> np.ndarray:
    """Features of a pass, (N, …), as numpy takes them.

    Raises:
        InputError: If one is not finite.
    """
    values = features.numpy()
    check_finite("features", values)
    return values
