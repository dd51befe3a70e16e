"""``LabelQuality``: the one answer to which labels are right, made by one pipeline and read by everybody."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, get_args

import numpy as np
import numpy.typing as npt
import pandas as pd

from clear_peft.label_quality.noise_model import NoiseKind, NoiseModel
from clear_peft.label_quality.ranking import rank_label_issues

Source = Literal["probe", "votes", "out_of_sample", "final_model"]

# of more than twice as many classes, so many probabilities of a row are kept
TOP_CLASSES = 32
_OF_VERIFIED = ("verified", "blind_probability")


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

    @classmethod
    def from_arrays(cls, classes: npt.NDArray[Any], values: npt.NDArray[Any], num_classes: int) -> "TopProbs":
        """Make of its arrays, from a file that anybody may have written.

        Raises:
            ValueError: If they are none of that.
        """
        kept = num_classes if num_classes <= 2 * TOP_CLASSES else TOP_CLASSES
        if classes.shape != values.shape or classes.shape[1:] != (kept,):
            raise ValueError(f"it does not hold probabilities of {num_classes} classes")
        if classes.dtype != class_dtype(num_classes) or not ((classes >= 0) & (classes < num_classes)).all():
            raise ValueError("it names classes that there are not")
        if values.dtype != np.float32 or not ((values >= 0) & (values <= 1)).all():
            raise ValueError("its probabilities are not all between 0 and 1")
        return cls(classes, values, num_classes)

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


@dataclass(frozen=True, eq=False, repr=False)
class LabelQuality:
    """Which labels of N rows look right.

    Attributes:
        given: Given labels, (N,) class ids.
        pred_probs: P(true class | row).
        self_confidence: Of these, that of the given label, (N,) float32.
        clean_probability: p, the probability that the given label is the true class, (N,) float32: what
            ``pred_probs`` and the noise model make of the label.
        noise: How given labels come from true ones; None where no noise model was fitted.
        noise_rate_interval: A 95 % interval for the noise rate; ``clear_peft.label_quality.interval`` says
            what it covers. None where no noise model was fitted.
        groups: Group of each row (copies, or what the user has given), (N,).
        source: Whose predictions these are: those of a ``probe``, or ``out_of_sample`` ones of others, that
            have not seen the row's label nor its group's; or those of the ``final_model``, trained on them.
        row: Position of each row in the table that it comes from, (N,). Default: 0, 1, ….
        verified: The true class of each row that a person has looked at and -1 elsewhere, (N,); p is then
            exactly 1 or 0. None where no row is verified.
        blind_probability: p of every row by what is known without its own answer, (N,) float32: of a sample
            of verified rows, this is what the noise rate can be stratified by. None where no row is verified.
    """

    given: npt.NDArray[np.integer]
    pred_probs: TopProbs
    self_confidence: npt.NDArray[np.float32]
    clean_probability: npt.NDArray[np.float32]
    noise: NoiseModel | None
    noise_rate_interval: tuple[float, float] | None
    groups: npt.NDArray[np.integer]
    source: Source = "probe"
    row: npt.NDArray[np.integer] | None = None
    verified: npt.NDArray[np.integer] | None = None
    blind_probability: npt.NDArray[np.float32] | None = None

    def __len__(self) -> int:
        return len(self.given)

    @property
    def rows(self) -> npt.NDArray[np.integer]:
        """Position of each row in the table that it comes from, (N,)."""
        return np.arange(len(self)) if self.row is None else self.row

    @classmethod
    def concatenate(cls, parts: "Sequence[LabelQuality]") -> "LabelQuality":
        """Parts of one table, judged by the same predictions and noise model, in the order of the table."""
        first, rows = parts[0], np.concatenate([part.rows for part in parts])
        order = np.argsort(rows, kind="stable")

        def joined(name: str) -> npt.NDArray[Any]:
            return np.concatenate([getattr(part, name) for part in parts])[order]

        return cls(
            joined("given"),
            TopProbs.concatenate([part.pred_probs for part in parts])[order],
            joined("self_confidence"),
            joined("clean_probability"),
            first.noise,
            first.noise_rate_interval,
            joined("groups"),
            first.source,
            rows[order],
            *_verified_of(parts, order),
        )

    def arrays(self) -> tuple[dict[str, npt.NDArray[Any]], dict[str, Any]]:
        """What a file has to hold: arrays, and the rest as JSON takes it; see ``from_arrays``."""
        arrays = {
            "given": self.given,
            "classes": self.pred_probs.classes,
            "pred_probs": self.pred_probs.values,
            "self_confidence": self.self_confidence,
            "clean_probability": self.clean_probability,
            "groups": self.groups,
            "row": self.rows,
        }
        if self.noise is not None:
            arrays["transition"] = self.noise.transition
        if self.verified is not None and self.blind_probability is not None:
            arrays |= {"verified": self.verified, "blind_probability": self.blind_probability}
        rest = {
            "num_classes": self.pred_probs.num_classes,
            "noise": None if self.noise is None else self.noise.kind,
            "noise_rate_interval": self.noise_rate_interval,
            "source": self.source,
        }
        return arrays, rest

    @classmethod
    def from_arrays(cls, arrays: Mapping[str, npt.NDArray[Any]], rest: Mapping[str, Any]) -> "LabelQuality":
        """Make of what ``arrays`` gave, from a file that anybody may have written.

        Raises:
            KeyError, TypeError, ValueError: If it is none of that.
        """
        known = {"given", "classes", "pred_probs", "self_confidence", "clean_probability", "groups", "row"}
        more = _OF_VERIFIED if "verified" in arrays else ()
        if arrays.keys() != {*known, *more, *(() if rest["noise"] is None else ("transition",))}:
            raise ValueError("it holds other arrays than the quality of labels")
        classes, size = rest["num_classes"], len(arrays["given"])
        if type(classes) is not int:
            raise ValueError("it does not say how many classes there are")
        pred_probs = TopProbs.from_arrays(arrays["classes"], arrays["pred_probs"], classes)
        for name in ("given", "groups", "row", *more[:1]):
            if arrays[name].shape != (size,) or not np.issubdtype(arrays[name].dtype, np.integer):
                raise ValueError(f"its {name} is not a whole number for each of {size} rows")
        if not ((arrays["given"] >= 0) & (arrays["given"] < classes)).all():
            raise ValueError("its labels name classes that there are not")
        if more and not ((arrays["verified"] >= -1) & (arrays["verified"] < classes)).all():
            raise ValueError("its verified rows name classes that there are not")
        for name in ("self_confidence", "clean_probability", *more[1:]):
            values = arrays[name]
            if (
                values.shape != (size,)
                or values.dtype != np.float32
                or not ((values >= 0) & (values <= 1)).all()
            ):
                raise ValueError(f"its {name} is not between 0 and 1 for each of {size} rows")
        if len(pred_probs) != size:
            raise ValueError(f"it does not hold predictions of {size} rows")
        if rest["source"] not in get_args(Source) or rest["noise"] not in (None, *get_args(NoiseKind)):
            raise ValueError("it names predictions or noise of no known kind")
        noise = None
        if rest["noise"] is not None:
            transition = arrays["transition"]
            if transition.shape != (classes, classes) or not np.isfinite(transition).all():
                raise ValueError(f"it does not hold a transition matrix of {classes} classes")
            noise = NoiseModel(rest["noise"], transition)
        return cls(
            arrays["given"],
            pred_probs,
            arrays["self_confidence"],
            arrays["clean_probability"],
            noise,
            _interval(rest["noise_rate_interval"]),
            arrays["groups"],
            rest["source"],
            arrays["row"],
            *(arrays[name] for name in more),
        )

    @property
    def num_classes(self) -> int:
        """C."""
        return self.pred_probs.num_classes

    @property
    def trust(self) -> npt.NDArray[np.float32]:
        """How far the given labels of each row are right, (N,): of one label a row, p."""
        return self.clean_probability

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

    def __repr__(self) -> str:
        flagged = int(self.is_label_issue.sum())
        return (
            f"<{type(self).__name__} of {len(self)} rows, {self.num_classes} classes: noise rate "
            f"{self.noise_rate:.3f}, {flagged} flagged>"
        )

    def issues(self, names: Sequence[str] | None = None) -> pd.DataFrame:
        """All rows, most suspicious first.

        Args:
            names: Names of the C classes. Default: "0", "1", ….

        Returns:
            ``row`` (position in the table, from 0), ``given_label`` and ``predicted_label`` (categorical),
            ``clean_probability`` (p), ``label_quality`` (the predicted probability of the given label,
            cleanlab's self-confidence; it orders rows of equal p), ``is_label_issue`` (p < ½), ``group`` and,
            where rows are verified, ``verified`` (their true label, else None); these rows come last.
        """
        classes = self.pred_probs.num_classes
        losses = -np.log(np.maximum(self.self_confidence, np.finfo(np.float32).tiny))
        names = [str(i) for i in range(classes)] if names is None else names
        issues = rank_label_issues(
            self.clean_probability, losses, given=self.given, predicted=self.predicted, names=names
        )
        issues["group"] = self.groups[issues["row"]]
        if self.verified is not None:
            found = self.verified[issues["row"]]
            issues["verified"] = [names[i] if i >= 0 else None for i in found]
            issues = issues.iloc[np.argsort(found >= 0, kind="stable")].reset_index(drop=True)
        issues["row"] = self.rows[issues["row"]]
        return issues


def _verified_of(
    parts: Sequence[LabelQuality], order: npt.NDArray[np.integer]
) -> tuple[npt.NDArray[np.integer], npt.NDArray[np.float32]] | tuple[()]:
    """``verified`` and ``blind_probability`` of several parts together, if any has verified rows."""
    if all(part.verified is None for part in parts):
        return ()
    verified = [np.full(len(part), -1) if part.verified is None else part.verified for part in parts]
    blind = [
        part.clean_probability if part.blind_probability is None else part.blind_probability for part in parts
    ]
    return np.concatenate(verified)[order], np.concatenate(blind)[order]


def _interval(value: Any) -> tuple[float, float] | None:
    if value is None:
        return None
    low, high = value
    if not (type(low) is type(high) is float and 0 <= low <= high <= 1):
        raise ValueError("its interval of the noise rate is none")
    return low, high
