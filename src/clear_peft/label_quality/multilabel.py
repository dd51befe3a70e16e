"""``MultilabelQuality``: of rows with several labels or none, which are wrongly given, and which missing."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt
import pandas as pd

from clear_peft.errors import InputError
from clear_peft.label_quality.groups import as_groups, copy_weights
from clear_peft.label_quality.logistic import left_out_log_odds
from clear_peft.label_quality.pooled_noise import fit_pooled_noise
from clear_peft.label_quality.probe import sampled
from clear_peft.label_quality.ridge import Array, Features

# labels that are missing, and surely so, are not listed
_SURE = 0.99
# classifiers that count neighbours or trees say 0 and 1
_SMALLEST = 1e-4
_FIT_CELLS = 1 << 21
_SEED = 0


@dataclass(frozen=True, eq=False)
class MultilabelQuality:
    """Which labels of N rows look right, each of C labels present or absent.

    Attributes:
        given: Whether the label is given, (N, C) bool.
        pred_probs: P(the label applies | row), (N, C) float32.
        clean_probability: p, the probability that the label is rightly given where it is given, and rightly
            missing where it is not, (N, C) float32.
        confusion: P(label j is wrongly given | label i is wrongly missing), (C, C); 0 where the table does
            not show that i is taken for j.
        groups: Group of each row (copies, or what the user has given), (N,).
        source: Whose predictions these are: of a ``probe``, or ``out_of_sample`` ones of others.
    """

    given: npt.NDArray[np.bool_]
    pred_probs: npt.NDArray[np.float32]
    clean_probability: npt.NDArray[np.float32]
    confusion: npt.NDArray[np.float64]
    groups: npt.NDArray[np.integer]
    source: Literal["probe", "out_of_sample"] = "probe"

    def __len__(self) -> int:
        return len(self.given)

    @property
    def wrongly_given(self) -> Array:
        """Of each label, the estimated share of its rows that it does not apply to, (C,); 0 without rows."""
        wrong = (1 - self.clean_probability.astype(np.float64)) * self.given
        return wrong.sum(axis=0) / np.maximum(self.given.sum(axis=0), 1)

    @property
    def wrongly_missing(self) -> Array:
        """Of each label, the estimated share of the rows that it applies to that lack it, (C,)."""
        missing, applies = self._expected()
        return missing / np.maximum(applies, np.finfo(np.float64).tiny)

    @property
    def wrong_rate(self) -> float:
        """Estimated share of all given labels that are wrong."""
        return float(self.wrongly_given @ self.given.sum(axis=0) / max(self.given.sum(), 1))

    @property
    def missing_rate(self) -> float:
        """Estimated share of all labels that apply that are missing."""
        missing, applies = self._expected()
        return float(missing.sum() / max(applies.sum(), np.finfo(np.float64).tiny))

    def _expected(self) -> tuple[Array, Array]:
        """Rows that lack each label, and rows that it applies to, (C,) each."""
        right = self.clean_probability.astype(np.float64)
        missing = ((1 - right) * ~self.given).sum(axis=0)
        return missing, missing + (right * self.given).sum(axis=0)

    @property
    def is_label_issue(self) -> npt.NDArray[np.bool_]:
        """Whether a label is more likely wrongly given, or wrongly missing, than rightly, (N, C)."""
        return self.clean_probability < 0.5

    @property
    def row_probability(self) -> Array:
        """Probability that all is right with a row's labels, the product of its p, (N,)."""
        return self.clean_probability.astype(np.float64).prod(axis=1)

    def issues(self, names: Sequence[str] | None = None) -> pd.DataFrame:
        """Given labels, and missing ones that may apply, most suspicious first.

        Args:
            names: Names of the C labels. Default: "0", "1", ….

        Returns:
            A line for each label that is given, and for each that is missing with a p below .99: ``row``
            (from 0), ``label`` (categorical), ``given``, ``suggested`` (whether the label is likelier to
            apply than not, by the predictions alone), ``clean_probability`` (p), ``label_quality`` (the
            predicted probability of what is given; it orders labels of equal p), ``is_label_issue`` (p < ½),
            ``row_clean_probability`` (of all labels of the row) and ``group``.
        """
        names = [str(i) for i in range(self.given.shape[1])] if names is None else list(names)
        rows, labels = np.nonzero(self.given | (self.clean_probability < _SURE))
        given, p = self.given[rows, labels], self.clean_probability[rows, labels]
        applies = self.pred_probs[rows, labels]
        quality = np.where(given, applies, 1 - applies)
        order = np.lexsort((quality, p))
        rows, labels = rows[order], labels[order]
        return pd.DataFrame(
            {
                "row": rows,
                "label": pd.Categorical.from_codes(labels, dtype=pd.CategoricalDtype(names)),
                "given": given[order],
                "suggested": applies[order] > 0.5,
                "clean_probability": p[order],
                "label_quality": quality[order],
                "is_label_issue": p[order] < 0.5,
                "row_clean_probability": self.row_probability[rows],
                "group": self.groups[rows],
            }
        )


def fit_multilabel(
    features: Features,
    given: npt.ArrayLike,
    *,
    groups: npt.ArrayLike | None = None,
    copies: npt.ArrayLike | None = None,
    prior_scores: npt.NDArray[np.floating] | None = None,
) -> MultilabelQuality:
    """Judge several labels a row, each by a probe that has not seen the row's group.

    Logistic regressions (``logistic``) say what the features tell of each label. What this says of *true*
    labels, and how often each label is wrongly given or missing, is fitted for all labels together
    (``pooled_noise``), so that rare labels borrow from the others.

    Args:
        features: What a model makes of the rows, on any scale: (N, D), or (N, V, D) for V representations.
        given: Which labels are given, (N, C) of 0 and 1.
        groups: Of each row, (N,): rows of one group are left out together. Default: every row is alone.
        copies: Of each row, (N,): rows with the same text, which count together as one row. Default:
            ``groups``.
        prior_scores: Scores that no label has had a part in, such as the similarity of a text to the names of
            the labels, (N, C). Default: none.

    Raises:
        InputError: If arrays have other shapes, a feature is not finite, or labels are not 0 and 1.
    """
    flags = as_flags(given)
    size = len(flags)
    if len(features.shape) not in (2, 3) or features.shape[0] != size:
        raise InputError(
            f"features have shape {tuple(features.shape)} and labels {flags.shape}: give (N, D) or (N, V, D) "
            "and (N, C)."
        )
    left_out = None if groups is None else as_groups(groups, size)
    same = left_out if copies is None else as_groups(copies, size)
    counted = np.ones(size) if same is None else copy_weights(same)
    views = [left_out_log_odds(features, flags, counted, left_out)]
    if prior_scores is not None:
        off = np.asarray(prior_scores - prior_scores.mean(axis=0), np.float32)
        views.append(off / np.float32(np.sqrt((off**2).mean()) or 1))
    return _quality(np.stack(views), flags, counted, left_out, "probe")


def multilabel_quality_from_pred_probs(
    pred_probs: npt.ArrayLike, given: npt.ArrayLike, *, groups: npt.ArrayLike | None = None
) -> MultilabelQuality:
    """Judge several labels a row by predictions of models that have not seen them.

    Args:
        pred_probs: Out-of-sample probability of each label, (N, C); a row need not sum to 1.
        given: Which labels are given, (N, C) of 0 and 1.
        groups: Of each row, (N,): copies of one text, which count together as one. Default: every row is
            alone.

    Raises:
        InputError: If shapes differ, probabilities are not between 0 and 1, or labels are not 0 and 1.
    """
    flags, probabilities = as_flags(given), np.asarray(pred_probs)
    if probabilities.shape != flags.shape:
        raise InputError(
            f"pred_probs have shape {probabilities.shape} and labels {flags.shape}: give (N, C) of both."
        )
    if not (
        np.issubdtype(probabilities.dtype, np.number) and ((probabilities >= 0) & (probabilities <= 1)).all()
    ):
        raise InputError("pred_probs are not all numbers from 0 to 1: give the probability of each label.")
    together = None if groups is None else as_groups(groups, len(flags))
    counted = np.ones(len(flags)) if together is None else copy_weights(together)
    sure = np.clip(probabilities.astype(np.float64), _SMALLEST, 1 - _SMALLEST)
    return _quality(np.log(sure / (1 - sure))[None], flags, counted, together, "out_of_sample")


def as_flags(given: npt.ArrayLike) -> npt.NDArray[np.bool_]:
    """Labels (N, C) of 0 and 1, or of false and true, as bool.

    Raises:
        InputError: If they are not such, or there are no rows, no labels, or none that is given.
    """
    values = np.asarray(given)
    if values.ndim != 2 or not values.size:
        raise InputError(f"labels have shape {values.shape}: give (N, C), 0 or 1 for each label of each row.")
    if values.dtype == bool:
        flags = values
    elif np.issubdtype(values.dtype, np.number) and ((values == 0) | (values == 1)).all():
        flags = values == 1
    else:
        raise InputError("labels are not all 0 or 1: give 0 or 1 for each label of each row.")
    if not flags.any():
        raise InputError("No row has a label: there is nothing to judge.")
    return flags


def _quality(
    scores: npt.NDArray[np.floating],
    given: npt.NDArray[np.bool_],
    counted: Array,
    groups: npt.NDArray[np.integer] | None,
    source: Literal["probe", "out_of_sample"],
) -> MultilabelQuality:
    size, labels = given.shape
    some = sampled(groups, size, max(_FIT_CELLS // labels, 1000), np.random.default_rng(_SEED))
    noise = fit_pooled_noise(scores[:, some], given[some], counted[some])
    step = max(_FIT_CELLS // labels, 256)
    parts = [
        noise.judge(scores[:, start : start + step], given[start : start + step])
        for start in range(0, size, step)
    ]
    pred_probs, p = (np.concatenate(part).astype(np.float32) for part in zip(*parts, strict=True))
    every = np.arange(size) if groups is None else groups
    return MultilabelQuality(given, pred_probs, p, noise.confusion, every, source)
