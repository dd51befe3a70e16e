"""``MultilabelQuality``: of rows with several labels or none, which are wrongly given, and which missing."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, get_args

import numpy as np
import numpy.typing as npt
import pandas as pd

from clear_peft.errors import InputError
from clear_peft.label_quality.groups import as_groups, copy_weights
from clear_peft.label_quality.logistic import Regressions
from clear_peft.label_quality.pooled_noise import PooledNoise, fit_pooled_noise
from clear_peft.label_quality.probe import sampled
from clear_peft.label_quality.ridge import Features
from clear_peft.label_quality.types import Array

# labels that are missing, and surely so, are not listed
_SURE = 0.99
# classifiers that count neighbours or trees say 0 and 1
_SMALLEST = 1e-4
_FIT_CELLS = 1 << 21
_SEED = 0
_TINY = np.finfo(np.float32).tiny

Source = Literal["probe", "out_of_sample"]


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
        row: Position of each row in the table that it comes from, (N,). Default: 0, 1, ….
    """

    given: npt.NDArray[np.bool_]
    pred_probs: npt.NDArray[np.float32]
    clean_probability: npt.NDArray[np.float32]
    confusion: npt.NDArray[np.float64]
    groups: npt.NDArray[np.integer]
    source: Source = "probe"
    row: npt.NDArray[np.integer] | None = None

    def __len__(self) -> int:
        return len(self.given)

    @property
    def rows(self) -> npt.NDArray[np.integer]:
        """Position of each row in the table that it comes from, (N,)."""
        return np.arange(len(self)) if self.row is None else self.row

    @property
    def num_classes(self) -> int:
        """C, the number of labels."""
        return self.given.shape[1]

    @property
    def posterior(self) -> npt.NDArray[np.float32]:
        """P(the label applies | row, given labels), (N, C): p where it is given, 1 − p where it is not."""
        return np.where(self.given, self.clean_probability, 1 - self.clean_probability)

    @property
    def trust(self) -> npt.NDArray[np.float32]:
        """How far the given labels of each row are right, (N,): the mean of p over the labels that matter.

        A label matters as far as it is given or applies, by max(given, ``posterior``). Of hundreds of labels
        nearly all are rightly absent from a row, and would hide the one that is wrong. A row without any
        label is judged by all of them.
        """
        return self._of_rows(self.clean_probability)

    @property
    def certainty(self) -> npt.NDArray[np.float32]:
        """How sure the true labels of each row are, (N,): the mean of max(P, 1 − P) of P = ``posterior``.

        Over the labels that matter, as for ``trust``. A label that is surely wrong is certain, too.
        """
        return self._of_rows(np.maximum(self.posterior, 1 - self.posterior))

    def _of_rows(self, values: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
        matters = np.maximum(np.maximum(self.given, self.posterior), _TINY)
        return (matters * values).sum(axis=1) / matters.sum(axis=1)

    @property
    def noise_rate(self) -> float:
        """Estimated share of wrong and missing ones among all labels that are given or are missing."""
        doubt = float((1 - self.clean_probability.astype(np.float64)).sum())
        return doubt / max(float(self.given.sum() + self._expected()[0].sum()), 1.0)

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
                "row": self.rows[rows],
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

    @classmethod
    def concatenate(cls, parts: "Sequence[MultilabelQuality]") -> "MultilabelQuality":
        """Parts of one table, judged by the same regressions and noise, in the order of the table."""
        rows = np.concatenate([part.rows for part in parts])
        order = np.argsort(rows, kind="stable")
        names = ("given", "pred_probs", "clean_probability", "groups")
        joined = {name: np.concatenate([getattr(part, name) for part in parts])[order] for name in names}
        return cls(**joined, confusion=parts[0].confusion, source=parts[0].source, row=rows[order])

    def arrays(self) -> tuple[dict[str, npt.NDArray[Any]], dict[str, Any]]:
        """What a file has to hold: arrays, and the rest as JSON takes it; see ``from_arrays``."""
        names = ("given", "pred_probs", "clean_probability", "confusion", "groups")
        return {name: getattr(self, name) for name in names} | {"row": self.rows}, {"source": self.source}

    @classmethod
    def from_arrays(
        cls, arrays: Mapping[str, npt.NDArray[Any]], rest: Mapping[str, Any]
    ) -> "MultilabelQuality":
        """Make of what ``arrays`` gave, from a file that anybody may have written.

        Raises:
            KeyError, TypeError, ValueError: If it is none of that.
        """
        if arrays.keys() != {"given", "pred_probs", "clean_probability", "confusion", "groups", "row"}:
            raise ValueError("it holds other arrays than the quality of several labels a row")
        given = arrays["given"]
        if given.ndim != 2 or given.dtype != bool:
            raise ValueError("its labels are not present or absent")
        size, labels = given.shape
        for name in ("pred_probs", "clean_probability"):
            values = arrays[name]
            in_range = values.dtype == np.float32 and ((values >= 0) & (values <= 1)).all()
            if values.shape != given.shape or not in_range:
                raise ValueError(f"its {name} is not between 0 and 1 for each label of {size} rows")
        if arrays["confusion"].shape != (labels, labels) or not np.isfinite(arrays["confusion"]).all():
            raise ValueError(f"it does not hold confusions of {labels} labels")
        for name in ("groups", "row"):
            if arrays[name].shape != (size,) or not np.issubdtype(arrays[name].dtype, np.integer):
                raise ValueError(f"its {name} is not a whole number for each of {size} rows")
        if rest["source"] not in get_args(Source):
            raise ValueError("it names predictions of no known kind")
        return cls(**arrays, source=rest["source"])


@dataclass(frozen=True, eq=False)
class MultilabelProbe:
    """Regressions and noise of several labels a row, fitted to some rows: for rows that they have not seen.

    Attributes:
        regressions: Of all labels.
        noise: How given labels come from true ones.
    """

    regressions: Regressions
    noise: PooledNoise

    def judge(
        self, features: Features, given: npt.ArrayLike, groups: npt.NDArray[np.integer]
    ) -> MultilabelQuality:
        """Judge other rows by their features, (B, D) or (B, V, D), labels (B, C) and groups (B,)."""
        flags = as_flags(given, any_given=False)
        return _judged(self.noise, self.regressions.log_odds(features)[None], flags, groups, "probe")


def fit_multilabel_probe(
    features: Features,
    given: npt.ArrayLike,
    *,
    groups: npt.NDArray[np.integer],
    copies: npt.NDArray[np.integer],
) -> tuple[MultilabelProbe, MultilabelQuality]:
    """``fit_multilabel``, and what judges other rows by the same fit."""
    flags = as_flags(given)
    counted = copy_weights(as_groups(copies, len(flags)))
    regressions = Regressions(features, flags, counted, groups)
    scores = regressions.left_out[None]
    noise = _noise(scores, flags, counted, groups)
    return MultilabelProbe(regressions, noise), _judged(noise, scores, flags, groups, "probe")


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
    views = [Regressions(features, flags, counted, left_out).left_out]
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


def as_flags(given: npt.ArrayLike, *, any_given: bool = True) -> npt.NDArray[np.bool_]:
    """Labels (N, C) of 0 and 1, or of false and true, as bool.

    Args:
        given: The labels.
        any_given: Whether some row must have one. Default True.

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
    if any_given and not flags.any():
        raise InputError("No row has a label: there is nothing to judge.")
    return flags


def _quality(
    scores: npt.NDArray[np.floating],
    given: npt.NDArray[np.bool_],
    counted: Array,
    groups: npt.NDArray[np.integer] | None,
    source: Source,
) -> MultilabelQuality:
    noise = _noise(scores, given, counted, groups)
    return _judged(noise, scores, given, np.arange(len(given)) if groups is None else groups, source)


def _noise(
    scores: npt.NDArray[np.floating],
    given: npt.NDArray[np.bool_],
    counted: Array,
    groups: npt.NDArray[np.integer] | None,
) -> PooledNoise:
    size, labels = given.shape
    some = sampled(groups, size, max(_FIT_CELLS // labels, 1000), np.random.default_rng(_SEED))
    return fit_pooled_noise(scores[:, some], given[some], counted[some])


def _judged(
    noise: PooledNoise,
    scores: npt.NDArray[np.floating],
    given: npt.NDArray[np.bool_],
    groups: npt.NDArray[np.integer],
    source: Source,
) -> MultilabelQuality:
    size, labels = given.shape
    step = max(_FIT_CELLS // labels, 256)
    parts = [
        noise.judge(scores[:, start : start + step], given[start : start + step])
        for start in range(0, size, step)
    ]
    pred_probs, p = (np.concatenate(part).astype(np.float32) for part in zip(*parts, strict=True))
    return MultilabelQuality(given, pred_probs, p, noise.confusion, groups, source)
