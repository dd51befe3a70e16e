"""The audit of a table's labels: everything that a trained model says about them."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from clear_peft.audit.joint import estimated_joint
from clear_peft.errors import InputError
from clear_peft.label_quality import LabelQuality, duplicate_groups

_HELD_OUT = "Rows held out for validation were never trained on."
_UNSEEN = (
    "Each row was predicted by a model that has not seen it: the training rows by models trained on the "
    "other folds, rows held out for validation by the final model. None could have learnt the given label "
    "of the row by heart. The clean probability weighs these predictions against how labels go wrong in this "
    "table."
)
_PROBE = (
    "The predictions are those of linear probes on the features of the model, fitted without the row and its "
    "copies. The clean probability weighs them against how labels go wrong in this table. " + _HELD_OUT
)
_VOTES = (
    "The predictions are those of linear probes on the features of the model, fitted without the row and its "
    "copies, and of all sources of labels: how often each errs was fitted along with the probes. " + _HELD_OUT
)
_SEVERAL = "it assumes that the sources of labels err independently of each other"
_PREDICTIONS = {
    ("final_model", True): (
        "The predictions are the final model's. It was not trained to repeat the given labels: each "
        "counted only as far as it was believed, by its clean probability, and for the rest of the target "
        "stood what an earlier model had predicted, so of the rows listed here it has mostly learnt "
        "something else. " + _HELD_OUT
    ),
    ("final_model", False): (
        "The predictions are those of the final model. It was trained on the given labels, as far as its "
        "method does not leave some out or replace them: wrong labels that it has learnt by heart look "
        "right, and right ones that it has not learnt look wrong. So read the list as a ranking, and trust "
        "no rate. " + _HELD_OUT
    ),
    **{("probe", doubted): _PROBE for doubted in (True, False)},
    **{("votes", doubted): _VOTES for doubted in (True, False)},
    **{("out_of_sample", doubted): _UNSEEN for doubted in (True, False)},
}


@dataclass(frozen=True, eq=False)
class Audit:
    """What is known of the labels of N rows and C classes.

    Attributes:
        issues: Every row, most suspicious first: the columns of ``label_issues.csv`` and
            ``duplicate_group`` (int64, -1 where no text is like this one) and ``duplicate_conflict`` (bool:
            a text like this one has another given label).
        labels: Names of the classes, in the order of their ids.
        noise_rate: Estimated share of wrong labels, mean(1 − p).
        noise_rate_interval: Its 95 % interval (``clear_peft.label_quality.interval``); None where no noise
            model was fitted, as to predictions of a model that was trained on the labels.
        joint: (C, C) float64, sum 1: estimated share of the rows of true class i (row) that are given class
            j (column).
        threshold: Rows with a clean probability below it are listed as label issues.
        expected_precision: Share of the listed rows that nobody has looked at (``to_check``) whose label is
            wrong, by their clean probabilities, mean(1 − p); None where there are none.
        predictions: Whose predictions these are, and how fair.
        votes: Whether several sources of labels were weighed.
        random_rows: Rows of a random sample that somebody has looked at, by which the noise rate and its
            interval were found; 0: by the model.
    """

    issues: pd.DataFrame
    labels: list[str]
    noise_rate: float
    noise_rate_interval: tuple[float, float] | None
    joint: np.ndarray
    threshold: float
    expected_precision: float | None
    predictions: str
    votes: bool = False
    random_rows: int = 0

    def said_interval(self, percent: Callable[[float], str]) -> str:
        """The interval and what it assumes, as follows the noise rate in brackets.

        Args:
            percent: Writes a share.
        """
        if self.noise_rate_interval is None:
            return f"no interval: {_SEVERAL if self.votes else 'the model was trained on these labels'}"
        low, high = self.noise_rate_interval
        if self.random_rows:
            looked_at = f"{self.random_rows} random rows that were looked at"
            return f"95 % interval {percent(low)} to {percent(high)}, by {looked_at}"
        return (
            f"95 % interval {percent(low)} to {percent(high)}; assumes that errors depend on the true class "
            "alone: systematic errors of people or rules are not counted"
        )

    @property
    def transition(self) -> np.ndarray:
        """P(given class | true class), (C, C) float64, rows sum to 1; of a class without rows, its own."""
        mass = self.joint.sum(axis=1, keepdims=True)
        return np.where(mass > 0, self.joint / np.where(mass > 0, mass, 1), np.eye(len(self.labels)))


def to_check(issues: pd.DataFrame) -> pd.DataFrame:
    """The rows of a list that no person has looked at yet: those without an entry in ``verified``."""
    if "verified" not in issues:
        return issues
    return issues[issues["verified"].fillna("").astype(str) == ""]


def audit(
    issues: pd.DataFrame,
    quality: LabelQuality,
    labels: Sequence[str],
    *,
    noise_found: bool,
    threshold: float = 0.5,
) -> Audit:
    """Audit the labels of a table.

    A row is listed as a label issue if its clean probability is below the threshold: at 0.5, the default, if
    its label is more likely wrong than right.

    Args:
        issues: What :func:`clear_peft.audit.read_issues` returns, N rows.
        quality: Of these rows, in the order of the table.
        labels: Names of the classes, C ≥ 2.
        noise_found: Whether labels counted in training only as far as they were believed.
        threshold: Above 0, at most 1. Default 0.5.

    Returns:
        The audit.

    Raises:
        InputError: If the threshold is out of range, or the list is about other rows.
    """
    if not 0 < threshold <= 1:
        raise InputError(f"The threshold is {threshold}: give a number above 0 and at most 1.")
    if sorted(issues["row"]) != quality.rows.tolist():
        raise InputError(
            f"The list is not about the {len(quality)} rows of the label quality: give those of one run."
        )
    p, confidence = quality.clean_probability.astype(np.float64), quality.self_confidence.astype(np.float64)
    # what has been looked at is not to be looked at again
    looked_at = np.zeros(len(p), bool) if quality.verified is None else quality.verified >= 0
    row = np.lexsort((confidence, p, looked_at))
    ranked = issues.sort_values("row").iloc[row].reset_index(drop=True)
    listed = p[row] < threshold
    unseen = listed & ~looked_at[row]
    ranked["clean_probability"], ranked["label_quality"] = p[row], confidence[row]
    ranked["is_label_issue"] = listed

    ranked["duplicate_group"] = duplicate_groups(ranked.sort_values("row")["text"].tolist())[row]
    given, predicted = quality.given, quality.predicted
    different = pd.Series(given[row]).groupby(ranked["duplicate_group"]).transform("nunique") > 1
    ranked["duplicate_conflict"] = (ranked["duplicate_group"] >= 0) & different

    return Audit(
        issues=ranked,
        labels=list(labels),
        noise_rate=quality.noise_rate,
        noise_rate_interval=quality.noise_rate_interval,
        joint=estimated_joint(p, given, predicted, quality.pred_probs, len(labels)),
        threshold=threshold,
        expected_precision=float(np.mean(1 - p[row][unseen])) if unseen.any() else None,
        predictions=_PREDICTIONS[quality.source, noise_found],
        votes=quality.source == "votes",
    )
