"""``LabelQuality``: the one answer to which labels are right, made by one pipeline and read by everybody."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from clear_peft.label_quality.noise_model import NoiseModel
from clear_peft.label_quality.ranking import rank_label_issues

# of more than twice as many classes, so many probabilities of a row are kept
TOP_CLASSES = 32


def class_dtype(num_classes: int) -> type[np.signedinteger]:
    """The smallest integers that hold class ids."""
    return np.int16 if num_classes <= 1 << 15 else np.int32


@dataclass(frozen=True, eq=False)
class TopProbs:
    """Class probabilities of N rows: all of up to 64 classes, of more the 32 largest.

    The remaining probability is spread evenly over the other classes.

    Attributes:
        classes: Class ids by falling probability, (N, K) int16, or int32 beyond 32,768 classes.
        values: Their probabilities, (N, K) float32.
        num_classes: C.
    """

    classes: npt.NDArray[np.signedinteger]
    values: npt.NDArray[np.float32]
    num_classes: int

    @classmethod
    def of(cls, pred_probs: npt.NDArray[np.floating]) -> "TopProbs":
        """Keep the largest of dense probabilities, (N, C)."""
        classes = pred_probs.shape[1]
        kept = classes if classes <= 2 * TOP_CLASSES else TOP_CLASSES
        top = np.argpartition(-pred_probs, kept - 1, axis=1)[:, :kept]
        values = np.take_along_axis(pred_probs, top, axis=1)
        order = np.argsort(-values, axis=1, kind="stable")
        return cls(
            np.take_along_axis(top, order, axis=1).astype(class_dtype(classes)),
            np.take_along_axis(values, order, axis=1).astype(np.float32),
            classes,
        )

    @classmethod
    def concatenate(cls, parts: Sequence["TopProbs"]) -> "TopProbs":
        """The rows of several, one after the other."""
        classes, values = zip(*((part.classes, part.values) for part in parts), strict=True)
        return cls(np.concatenate(classes), np.concatenate(values), parts[0].num_classes)

    def arrays(self) -> dict[str, npt.NDArray[Any]]:
        """What a file has to hold; probabilities in float16."""
        return {"classes": self.classes, "probabilities": self.values.astype(np.float16)}

    @classmethod
    def from_arrays(cls, arrays: Mapping[str, npt.NDArray[Any]], num_classes: int) -> "TopProbs":
        """Make of what ``arrays`` gave.

        Raises:
            ValueError: If it is none of that.
        """
        classes, values = arrays["classes"], arrays["probabilities"]
        kept = cls.of(np.ones((1, num_classes))).classes
        if classes.shape != values.shape or classes.shape[1:] != kept.shape[1:]:
            raise ValueError(f"it does not hold probabilities of {num_classes} classes")
        if classes.dtype != kept.dtype or not ((classes >= 0) & (classes < num_classes)).all():
            raise ValueError("it names classes that there are not")
        if values.dtype != np.float16 or not ((values >= 0) & (values <= 1)).all():
            raise ValueError("its probabilities are not all between 0 and 1")
        return cls(classes, values.astype(np.float32), num_classes)

    def __len__(self) -> int:
        return len(self.classes)

    def __getitem__(self, rows: slice | npt.NDArray[np.integer]) -> "TopProbs":
        return TopProbs(self.classes[rows], self.values[rows], self.num_classes)

    @property
    def predicted(self) -> npt.NDArray[np.int64]:
        """The likeliest class of each row, (N,)."""
        return self.classes[:, 0].astype(np.int64)

    def dense(self) -> npt.NDArray[np.float32]:
        """All probabilities, (N, C) float32: for a part of the rows where classes are many."""
        others = self.num_classes - self.classes.shape[1]
        rest = np.clip(1 - self.values.sum(axis=1, dtype=np.float64), 0, 1) / max(others, 1)
        probabilities = np.repeat(rest.astype(np.float32)[:, None], self.num_classes, axis=1)
        np.put_along_axis(probabilities, self.classes.astype(np.int64), self.values, axis=1)
        return probabilities


@dataclass(frozen=True, eq=False)
class LabelQuality:
    """Which labels of N rows look right.

    Attributes:
        given: Given labels, (N,) class ids.
        pred_probs: P(true class | row) by a model that has not seen the row's label, nor its group's.
        self_confidence: Of these, that of the given label, (N,) float32.
        clean_probability: p, the posterior probability that the given label is the true class, (N,) float32:
            what ``pred_probs`` and the noise model make of the label.
        noise: How given labels come from true ones.
        noise_rate_interval: A 95 % interval for the noise rate; ``clear_peft.label_quality.interval`` says
            what it covers.
        groups: Group of each row (copies, or what the user has given), (N,).
    """

    given: npt.NDArray[np.integer]
    pred_probs: TopProbs
    self_confidence: npt.NDArray[np.float32]
    clean_probability: npt.NDArray[np.float32]
    noise: NoiseModel
    noise_rate_interval: tuple[float, float]
    groups: npt.NDArray[np.integer]

    def __len__(self) -> int:
        return len(self.given)

    @property
    def noise_rate(self) -> float:
        """The estimated share of wrong labels, the mean of 1 − p."""
        return float(1 - self.clean_probability.mean(dtype=np.float64))

    @property
    def is_label_issue(self) -> npt.NDArray[np.bool_]:
        """Whether a label is more likely wrong than right, p < ½, (N,)."""
        return self.clean_probability < 0.5

    @property
    def predicted(self) -> npt.NDArray[np.int64]:
        """The likeliest true class by the predictions alone, (N,)."""
        return self.pred_probs.predicted

    def issues(self, names: Sequence[str] | None = None) -> pd.DataFrame:
        """All rows, most suspicious first.

        Args:
            names: Names of the C classes. Default: "0", "1", ….

        Returns:
            ``row`` (position, from 0), ``given_label`` and ``predicted_label`` (categorical),
            ``clean_probability`` (p), ``label_quality`` (the predicted probability of the given label,
            cleanlab's self-confidence; it orders rows of equal p), ``is_label_issue`` (p < ½) and ``group``.
        """
        classes = self.pred_probs.num_classes
        losses = -np.log(np.maximum(self.self_confidence, np.finfo(np.float32).tiny))
        issues = rank_label_issues(
            self.clean_probability,
            losses,
            given=self.given,
            predicted=self.predicted,
            names=[str(i) for i in range(classes)] if names is None else names,
        )
        return issues.assign(group=self.groups[issues["row"]])
