"""The list of suspicious labels, in the words of cleanlab."""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import pandas as pd


def rank_label_issues(
    clean_probability: npt.NDArray[np.floating],
    losses: npt.NDArray[np.floating],
    *,
    given: npt.NDArray[np.integer],
    predicted: npt.NDArray[np.integer],
    names: Sequence[str],
) -> pd.DataFrame:
    """All examples, most suspicious first.

    Args:
        clean_probability: p, (N,) in [0, 1].
        losses: ℓ, (N,), the cross entropies that p comes from; they order examples of equal p.
        given: Given labels, (N,) class indices.
        predicted: Predicted labels, (N,) class indices.
        names: Names of the classes, all different.

    Returns:
        One row per example: ``row`` (its position, from 0), ``given_label`` and ``predicted_label``
        (categorical), ``clean_probability``, ``label_quality`` (exp(−ℓ), the model's belief in the given
        label; lower is worse) and ``is_label_issue`` (p < 0.5). Ties stay in the order of the input.
    """
    losses = np.asarray(losses)
    order = np.lexsort((-losses, clean_probability))
    label = pd.CategoricalDtype(list(names))  # millions of rows need not hold their names
    return pd.DataFrame(
        {
            "row": order,
            "given_label": pd.Categorical.from_codes(given[order], dtype=label),
            "predicted_label": pd.Categorical.from_codes(predicted[order], dtype=label),
            "clean_probability": clean_probability[order],
            "label_quality": np.exp(-losses[order].astype(np.float64)),
            "is_label_issue": clean_probability[order] < 0.5,
        },
        copy=False,
    )
