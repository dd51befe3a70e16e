"""A review: batches of rows to look at, the answers, and what they say of all other rows."""

import time
from collections import defaultdict
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Literal, get_args

import numpy as np
import numpy.typing as npt
import pandas as pd

from clear_peft.audit import read_corrections
from clear_peft.data import escape_formulas, write_table
from clear_peft.errors import InputError
from clear_peft.label_quality import LabelQuality, noise_rate_from_sample, rows_to_verify
from clear_peft.pipeline.label_issues import judge
from clear_peft.pipeline.scan import (
    ScanOptions,
    check_folder,
    judged_by,
    read_examples,
    scan_folder,
    with_defaults,
    write_scan,
)
from clear_peft.review.patterns import Pattern, patterns

if TYPE_CHECKING:
    from clear_peft.pipeline.progress import Reporter

CORRECTIONS = "corrections.csv"
Action = Literal["keep", "relabel", "drop", "skip"]

_COLUMNS = ("row", "action", "label", "given_label", "text")
_TEXT_CHARACTERS = 200
_SUGGESTED, _LISTED, _EXAMPLES = 5, 20, 5
# the sample of random rows says more than the model from here on
_FEWEST_SAMPLED = 10
# rows whose judgement an answer may still change, as a share, for the review to be worth going on
_STILL_CHANGES = 0.005
_SEED = 0


@dataclass(frozen=True)
class Answer:
    """What a person has said of a row.

    Attributes:
        action: The label is right, is another one, the row is of no use, or one cannot tell.
        label: Class id, where it is another one; else None.
    """

    action: Action
    label: int | None = None


class Review:
    """Rows of a table to look at, answers to them, and what they say of all other rows.

    The folder is that of a scan. Answers are kept in its ``corrections.csv`` one by one, and a review of the
    same folder goes on from them. After each batch the rows are judged anew, and the scan is written again.

    Args:
        options: The table and what to judge it by, as for a scan; not ``pred_probs``, nor verified rows.
        reporter: Told what is being done.
        batch_size: Rows of a batch. Default 20.

    Raises:
        InputError: If the table has no texts, or as ``scan``.
    """

    def __init__(self, options: ScanOptions, reporter: "Reporter", *, batch_size: int = 20) -> None:
        started = time.perf_counter()
        self.options = replace(with_defaults(options), overwrite=True)
        self.folder = scan_folder(self.options)
        self.path = self.folder / CORRECTIONS
        check_folder(self.folder, self.options)
        self.examples, self.names, has_texts = read_examples(self.options, reporter)
        if not has_texts:
            raise InputError(f"{options.data} has no texts to look at: name their column by --text-column.")
        assert self.examples.labels is not None  # a label column was asked for
        self.given: npt.NDArray[np.integer] = self.examples.labels
        self._batch_size = batch_size
        self._copies: dict[str, list[int]] = defaultdict(list)
        for row, text in enumerate(self.examples.texts):
            self._copies[text].append(row)
        self._answers = self._read() if self.path.is_file() else {}
        self._undo: list[list[int]] = []
        self._judged = judge(self.examples, self.names, **judged_by(self.options, True, reporter))
        self._before: LabelQuality | None = None
        self._changed: list[float] = []
        self._judge_anew(started)

    def answer(self, row: int, action: str, label: str | None = None) -> None:
        """Take down what a person says of a row, for all rows with the same text.

        Args:
            row: Position in the table, from 0.
            action: keep, relabel, drop or skip.
            label: The name of the true class, to relabel.

        Raises:
            InputError: If there is no such row, action or class.
        """
        if not 0 <= row < len(self.examples):
            raise InputError(f"There is no row {row}: the table has {len(self.examples)} rows.")
        if action not in get_args(Action):
            raise InputError(f"There is no action {action!r}: give one of {', '.join(get_args(Action))}.")
        if action == "relabel" and label not in self.names.names:
            raise InputError(f"There is no label {label!r}: give one of the table's.")
        copies = self._copies[self.examples.texts[row]]
        for copy in copies:
            if action in ("keep", "relabel"):
                true = int(self.given[row]) if action == "keep" else self.names.names.index(str(label))
                same = true == self.given[copy]
                self._answers[copy] = Answer("keep") if same else Answer("relabel", true)
            else:
                self._answers[copy] = Answer("drop" if action == "drop" else "skip")
        self._undo.append(copies)
        self._write()

    def undo(self) -> int | None:
        """Take the last answer back.

        Returns:
            The row that it was about; None where there is nothing to take back.
        """
        if not self._undo:
            return None
        rows = self._undo.pop()
        for row in rows:
            self._answers.pop(row, None)
        self._write()
        return rows[0]

    def apply(self, place: int) -> int:
        """Relabel all rows of a pattern.

        Args:
            place: Of the pattern in ``state``.

        Returns:
            How many rows.

        Raises:
            InputError: If there is no such pattern.
        """
        if not 0 <= place < len(self.patterns):
            raise InputError("There is no such pattern any more: load the page again.")
        one = self.patterns.pop(place)
        rows = [row for row in one.rows if row not in self._answers]
        self._answers |= {row: Answer("relabel", one.true) for row in rows}
        self._undo.append(rows)
        self._write()
        return len(rows)

    def judge(self) -> None:
        """Judge all rows anew, write the scan, and propose the next batch."""
        self._judge_anew(time.perf_counter())

    @property
    def verified(self) -> npt.NDArray[np.int64]:
        """The true class of each row that was kept or relabelled, -1 elsewhere, (N,)."""
        verified = np.full(len(self.examples), -1, np.int64)
        for row, one in self._answers.items():
            if one.action in ("keep", "relabel"):
                verified[row] = self.given[row] if one.label is None else one.label
        return verified

    def state(self) -> dict[str, Any]:
        """What the page shows, as JSON takes it."""
        return {
            "name": self.folder.resolve().name,
            "labels": list(self.names.names),
            "batch": [self._shown(row, why) for row, why in self._batch],
            "undo": bool(self._undo),
            "summary": self.summary,
            "patterns": [self._of_pattern(one) for one in self.patterns],
            "suspicious": self._suspicious(),
        }

    def _judge_anew(self, started: float) -> None:
        verified = self.verified
        asked = (verified >= 0).any()
        self.quality = self._judged.believing(verified if asked else None)
        seen = np.zeros(len(self.examples), bool)
        seen[list(self._answers)] = True
        proposed = rows_to_verify(
            self._judged.features, self.quality, self._batch_size, verified=seen, seed=_SEED
        )
        self._batch = list(zip(proposed.rows.tolist(), proposed.reason, strict=True))
        self.patterns: list[Pattern] = patterns(self.examples.texts, self.given, verified)
        if self._before is not None:
            flipped = self.quality.is_label_issue != self._before.is_label_issue
            self._changed.append(float(flipped[verified < 0].mean()) if (verified < 0).any() else 0.0)
        self._before = self.quality
        found = write_scan(
            self.options, self.examples, self.names, self.quality, time.perf_counter() - started
        )
        self._issues = found.audit.issues
        self.summary = self._summed_up(verified, proposed.sampled, time.perf_counter() - started)

    def _summed_up(
        self, verified: npt.NDArray[np.int64], sampled: npt.NDArray[np.float64], seconds: float
    ) -> dict[str, Any]:
        quality, listed = self.quality, self.quality.is_label_issue & (verified < 0)
        rate, interval, size = quality.noise_rate, quality.noise_rate_interval, 0
        drawn = int(((sampled > 0) & (verified >= 0)).sum())
        if drawn >= _FEWEST_SAMPLED:
            p = quality.clean_probability if quality.blind_probability is None else quality.blind_probability
            rate, interval = noise_rate_from_sample(p, verified, self.given, sampled)
            size = drawn
        actions = [one.action for one in self._answers.values()]
        return {
            "rows": len(self.examples),
            "answered": {action: actions.count(action) for action in get_args(Action)},
            "noise_rate": rate,
            "noise_rate_interval": interval,
            "random_rows": size,
            "listed": int(listed.sum()),
            "listed_precision": float((1 - quality.clean_probability[listed]).mean())
            if listed.any()
            else None,
            "changed": self._changed[-1] if self._changed else None,
            "enough": len(self._changed) > 1 and max(self._changed[-2:]) < _STILL_CHANGES,
            "seconds": seconds,
            "corrections": str(self.path),
        }

    def _shown(self, row: int, why: str) -> dict[str, Any]:
        one, top = self._answers.get(row), self.quality.pred_probs
        labels = self.names.names
        return {
            "row": row,
            "text": self.examples.texts[row],
            "given": labels[self.given[row]],
            "suggested": [
                [labels[label], float(value)]
                for label, value in zip(
                    top.classes[row, :_SUGGESTED], top.values[row, :_SUGGESTED], strict=True
                )
            ],
            "clean_probability": float(self.quality.clean_probability[row]),
            "why": why,
            "copies": len(self._copies[self.examples.texts[row]]),
            "answer": None if one is None else one.action,
            "label": None if one is None or one.label is None else labels[one.label],
        }

    def _of_pattern(self, one: Pattern) -> dict[str, Any]:
        shown = np.random.default_rng(_SEED).permutation(len(one.rows))[:_EXAMPLES]
        return {
            "words": one.words,
            "given": self.names.names[one.given],
            "true": self.names.names[one.true],
            "rows": len(one.rows),
            "seen": one.seen,
            "at_least": one.at_least,
            "examples": [self.examples.texts[one.rows[place]] for place in sorted(shown.tolist())],
        }

    def _suspicious(self) -> list[dict[str, Any]]:
        rows = self._issues[~self._issues["row"].isin(self._answers)].head(_LISTED)
        return [
            {
                "row": int(row),
                "text": text[:_TEXT_CHARACTERS],
                "given": str(given),
                "predicted": str(predicted),
                "clean_probability": float(p),
            }
            for row, text, given, predicted, p in zip(
                rows["row"],
                rows["text"],
                rows["given_label"],
                rows["predicted_label"],
                rows["clean_probability"],
                strict=True,
            )
        ]

    def _read(self) -> dict[int, Answer]:
        held = read_corrections(self.path, self.examples, self.names)
        kept: dict[int, Answer] = {row: Answer("keep") for row in held.keep}
        dropped: dict[int, Answer] = {row: Answer("drop") for row in held.drop}
        return kept | dropped | {row: Answer("relabel", label) for row, label in held.relabel.items()}

    def _write(self) -> None:
        told = [(row, one) for row, one in sorted(self._answers.items()) if one.action != "skip"]
        if not told:
            self.path.unlink(missing_ok=True)
            return
        lines = [
            (
                row,
                one.action,
                "" if one.label is None else self.names.names[one.label],
                self.names.names[self.given[row]],
                self.examples.texts[row][:_TEXT_CHARACTERS],
            )
            for row, one in told
        ]
        frame = pd.DataFrame(lines, columns=list(_COLUMNS))
        write_table(escape_formulas(frame), self.path)
