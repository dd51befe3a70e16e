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
        names: Names of the classes.

    Returns:
        One row per example: ``row`` (its position, from 0), ``given_label``, ``predicted_label``,
        ``clean_probability``, ``label_quality`` (exp(−ℓ), the model's belief in the given label; lower is
        worse) and ``is_label_issue`` (p < 0.5). Ties stay in the order of the input.
    """
    order = np.lexsort((-np.asarray(losses), clean_probability))
    label = np.asarray(names, dtype=object)
    return pd.DataFrame(
        {
            "row": order,
            "given_label": label[given[order]],
            "predicted_label": label[predicted[order]],
            "clean_probability": clean_probability[order],
            "label_quality": np.exp(-np.asarray(losses, np.float64))[order],
            "is_label_issue": clean_probability[order] < 0.5,
        }
    )
