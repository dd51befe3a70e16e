"""To and from cleanlab."""

from collections.abc import Sequence
from contextlib import redirect_stdout
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from clear_peft.errors import InputError
from clear_peft.label_quality import label_quality_from_pred_probs

_ISSUE = "clear_label"


def from_pred_probs(
    labels: npt.ArrayLike,
    pred_probs: npt.ArrayLike,
    *,
    names: Sequence[str] | None = None,
    groups: npt.ArrayLike | None = None,
) -> pd.DataFrame:
    """Rank label issues from what cleanlab takes: labels and out-of-sample class probabilities.

    Args:
        labels: Given labels, (N,) class ids from 0.
        pred_probs: By models that have not seen the row, (N, C) in [0, 1], rows sum to 1.
        names: Names of the classes; by default their ids as text.
        groups: As for ``clear_peft.label_quality.label_quality_from_pred_probs``.

    Returns:
        ``LabelQuality.issues`` of what that function finds.

    Raises:
        InputError: If the shapes or values are not as above.
    """
    quality = label_quality_from_pred_probs(pred_probs, labels, groups=groups)
    classes = quality.pred_probs.num_classes
    if names is not None and not len(names) == len(set(names)) == classes:
        raise InputError(
            f"There are {len(set(names))} different names and {classes} classes: give each class its own."
        )
    return quality.issues(names)


def add_to_datalab(lab: Any, issues: pd.DataFrame) -> None:
    """Add our verdict on every label to a cleanlab ``Datalab``, as the issue type ``clear_label``.

    It then stands beside what Datalab finds by itself, in its report, summary and ``get_issues()``:
    ``clear_label_score`` is the clean probability, ``is_clear_label_issue`` whether the row is listed. Done
    by a custom issue manager, cleanlab's way to add issue types.

    Args:
        lab: ``cleanlab.Datalab`` of the same rows, for classification.
        issues: ``Audit.issues``, or any list with ``row``, ``clean_probability`` and ``is_label_issue``.

    Raises:
        InputError: If the list is about another number of rows.
    """
    from cleanlab import IssueManager  # an extra
    from cleanlab.datalab.internal.issue_manager_factory import register

    if len(issues) != len(lab.labels):
        raise InputError(
            f"The list has {len(issues)} rows and the Datalab {len(lab.labels)}: give those of one table."
        )
    by_row = issues.set_index("row").sort_index()

    class ClearLabelIssueManager(IssueManager):
        issue_name = _ISSUE
        description = "Labels that are more likely wrong than right, by the model trained with clear-peft."

        def find_issues(self, **_: Any) -> None:
            score = by_row["clean_probability"].to_numpy(np.float64)
            self.issues = pd.DataFrame(
                {f"is_{_ISSUE}_issue": by_row["is_label_issue"].to_numpy(), f"{_ISSUE}_score": score}
            )
            self.summary = self.make_summary(score=float(score.mean()))

    with redirect_stdout(None):  # cleanlab prints that the list of another Datalab is replaced
        register(ClearLabelIssueManager)
        lab.find_issues(issue_types={_ISSUE: {}})
