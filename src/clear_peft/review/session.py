"""A review: batches of rows to look at, the answers, and what they say of all other rows."""

import time
from collections import defaultdict
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, get_args

import numpy as np
import numpy.typing as npt

from clear_peft.errors import InputError
from clear_peft.hardware import check_device
from clear_peft.label_quality import LabelQuality
from clear_peft.pipeline.scan import (
    ScanResult,
    judge_rows,
    other_issues,
    read_rows,
    write_scan,
    write_scan_report,
)
from clear_peft.pipeline.scan_options import ScanOptions, check_folder, scan_folder, with_defaults
from clear_peft.pipeline.to_verify import NoiseRate, noise_rate, propose
from clear_peft.review.answers import Action, Answer, AnswerFile, places
from clear_peft.review.patterns import Pattern, patterns

if TYPE_CHECKING:
    from clear_peft.pipeline.progress import Reporter

CORRECTIONS = "corrections.csv"
_TEXT_CHARACTERS, _EXAMPLE_CHARACTERS = 200, 500
_SUGGESTED, _LISTED, _EXAMPLES = 5, 20, 5
# rows whose judgement a batch may still change, as a share of all and of those that are listed, when it is
# enough; and after how many batches and answers of that kind
_STILL_CHANGES, _STILL_CHANGES_OF_LISTED = 0.005, 0.1
_CALM_BATCHES, _CALM_ANSWERS = 2, 20
_SEED = 0
# why a row is asked for
_NEW, _AGAIN = "a random row", "answered before"


class _Step(NamedTuple):
    """What an answer has changed.

    Attributes:
        place: Of the row that it was about among those with a label; None for those of a pattern.
        before: The answers that it replaced, by place.
    """

    place: int | None
    before: dict[int, Answer | None]


class Undone(NamedTuple):
    """An answer that was taken back.

    Attributes:
        row: That it was about; None for those of a pattern.
        rows: How many rows are as before.
    """

    row: int | None
    rows: int


class Review:
    """Rows of a table to look at, answers to them, and what they say of all other rows.

    The folder is that of a scan. Answers are kept in its ``corrections.csv`` one by one, and a review of the
    same folder goes on from them. After each batch the rows are judged anew, and the scan is written again,
    but for its page: ``finish`` writes that.

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
        check_device(self.options.device)
        if Path(options.data).resolve() == self.path.resolve():
            raise InputError(f"{options.data} is where answers are kept: give another --output.")
        table, has_texts = read_rows(self.options, reporter)
        if not has_texts:
            raise InputError(f"{options.data} has no texts to look at: name their column by --text-column.")
        assert table.names is not None  # there is a label column
        assert table.examples.labels is not None
        self.examples, self.names = table.examples, table.names
        self.given: npt.NDArray[np.integer] = table.examples.labels
        self._place = places(self.examples)
        self._batch_size = batch_size
        self._copies: dict[str, list[int]] = defaultdict(list)
        for place, text in enumerate(self.examples.texts):
            self._copies[text].append(place)
        self._file = AnswerFile(self.path, self.examples, self.names)
        self._answers = self._file.read()
        self._undo: list[_Step] = []
        self._judged, self._unlabelled = judge_rows(self.options, table, has_texts, reporter)
        self._others = other_issues(self.examples, self.names, self._judged, has_texts, reporter)
        self._found: ScanResult
        self.patterns: list[Pattern] = []
        self._patterns_before = 0
        self._last: tuple[LabelQuality, npt.NDArray[np.int64], int] | None = None
        self._changed: float | None = None
        self._calm_batches = self._calm_answers = 0
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
        place = self._place.get(row)
        if place is None:
            raise InputError(f"There is no row {row} with a label: give one that was asked for.")
        if action not in get_args(Action):
            raise InputError(f"There is no action {action!r}: give one of {', '.join(get_args(Action))}.")
        if action == "relabel" and label not in self.names.names:
            raise InputError(f"There is no label {label!r}: give one of the table's.")
        told: dict[int, Answer] = {}
        for copy in self._copies[self.examples.texts[place]]:
            if action in ("keep", "relabel"):
                true = int(self.given[place]) if action == "keep" else self.names.names.index(str(label))
                same = true == self.given[copy]
                told[copy] = Answer("keep") if same else Answer("relabel", true)
            else:
                told[copy] = Answer("drop" if action == "drop" else "skip")
        self._tell(place, told)

    def undo(self) -> Undone | None:
        """Take the last answer back: what was said before counts again.

        The row is in the batch then, also if it was answered in an earlier one.

        Returns:
            What was undone; None where there is nothing to take back.
        """
        if not self._undo:
            return None
        place, before = self._undo[-1]
        self._replace(before)
        self._undo.pop()
        if place is not None and place not in dict(self._batch):
            self._batch.insert(0, (place, _AGAIN))
        return Undone(None if place is None else int(self.examples.rows[place]), len(before))

    def apply(self, number: int) -> int:
        """Relabel all rows of a pattern, but those that have an answer.

        Args:
            number: Of the pattern in ``state``.

        Returns:
            How many rows.

        Raises:
            InputError: If there is no such pattern, or an answer since then speaks against it.
        """
        one = self._open_patterns().get(number)
        if one is None:
            raise InputError("There is no such pattern any more: load the page again.")
        told = {row: Answer("relabel", one.true, one.words) for row in self._unanswered(one)}
        self._tell(None, told)
        return len(told)

    def judge(self) -> None:
        """Judge all rows anew, write the scan, and propose the next batch."""
        self._judge_anew(time.perf_counter())

    def finish(self) -> None:
        """Write the page of the scan: it takes a second that nobody should wait for after each batch."""
        write_scan_report(self._found)

    @property
    def verified(self) -> npt.NDArray[np.int64]:
        """The true class of each row that was kept or relabelled, -1 elsewhere, (N,)."""
        verified = np.full(len(self.examples), -1, np.int64)
        for row, one in self._answers.items():
            if one.action in ("keep", "relabel"):
                verified[row] = self.given[row] if one.label is None else one.label
        return verified

    @property
    def summary(self) -> dict[str, Any]:
        """What is known of the table since it was judged last, and how many answers there are by now."""
        actions = [one.action for one in self._answers.values()]
        return {**self._summary, "answered": {action: actions.count(action) for action in get_args(Action)}}

    def state(self) -> dict[str, Any]:
        """What the page shows, as JSON takes it."""
        return {
            "name": self.folder.resolve().name,
            "labels": list(self.names.names),
            "batch": [self._shown(place, why) for place, why in self._batch],
            "undo": bool(self._undo),
            "summary": self.summary,
            "patterns": [self._of_pattern(number, one) for number, one in self._open_patterns().items()],
            "suspicious": self._suspicious(),
        }

    def _judge_anew(self, started: float) -> None:
        verified = self.verified
        judged = self._judged.believing(verified if (verified >= 0).any() else None)
        quality, unlabelled = judged.quality, self._unlabelled
        to_label = None if unlabelled is None else unlabelled.to_label_next(judged)
        seen = np.zeros(len(self.examples), bool)
        # a row that a rule has changed is looked at when its turn in the random order comes
        seen[[row for row, one in self._answers.items() if not one.rule]] = True
        proposed = propose(self.examples.texts, self._batch_size, seen)
        seconds = time.perf_counter() - started
        rate = noise_rate(quality, proposed.sampled)
        found = write_scan(
            self.options, self.examples, self.names, quality, rate, seconds, to_label, self._others
        )
        # only now: a full disk leaves all as it was
        self.quality, self._found = quality, found
        self._batch = [(place, _NEW) for place in proposed.rows.tolist()]
        self._patterns_before += len(self.patterns)
        self.patterns = self._patterns(verified)
        self._compare(verified)
        self._summary = self._summed_up(verified, rate, time.perf_counter() - started)

    def _patterns(self, verified: npt.NDArray[np.int64]) -> list[Pattern]:
        """Patterns by rows that somebody has looked at: a rule that was believed is no evidence."""
        aside = [row for row, one in self._answers.items() if one.rule or one.action in ("drop", "skip")]
        rows = np.delete(np.arange(len(self.examples)), aside)
        found = patterns([self.examples.texts[row] for row in rows], self.given[rows], verified[rows])
        return [replace(one, rows=tuple(rows[list(one.rows)].tolist())) for one in found]

    def _compare(self, verified: npt.NDArray[np.int64]) -> None:
        """Take down how much the answers since the last time have changed."""
        # copies, and rows that were changed by a rule, are no answers of their own
        answered = len({self.examples.texts[row] for row, one in self._answers.items() if not one.rule})
        if self._last is not None:
            before, known, count = self._last
            if (verified == known).all():
                return
            flipped = (self.quality.is_label_issue != before.is_label_issue) & (verified < 0)
            listed = self.quality.is_label_issue & (verified < 0)
            self._changed = float(flipped.sum() / max((verified < 0).sum(), 1))
            few = flipped.sum() <= _STILL_CHANGES_OF_LISTED * listed.sum()
            calm = self._changed < _STILL_CHANGES and few
            self._calm_batches = self._calm_batches + 1 if calm else 0
            self._calm_answers = self._calm_answers + max(answered - count, 0) if calm else 0
        self._last = self.quality, verified, answered

    def _summed_up(self, verified: npt.NDArray[np.int64], rate: NoiseRate, seconds: float) -> dict[str, Any]:
        quality, listed = self.quality, self.quality.is_label_issue & (verified < 0)
        listed[[row for row, one in self._answers.items() if one.action == "drop"]] = False
        return {
            "rows": len(self.examples),
            "noise_rate": rate.rate,
            "noise_rate_interval": rate.interval,
            "random_rows": rate.random_rows,
            "listed": int(listed.sum()),
            "listed_precision": float((1 - quality.clean_probability[listed]).mean())
            if listed.any()
            else None,
            "changed": self._changed,
            "enough": self._calm_batches >= _CALM_BATCHES and self._calm_answers >= _CALM_ANSWERS,
            "seconds": seconds,
            "corrections": str(self.path),
        }

    def _shown(self, place: int, why: str) -> dict[str, Any]:
        said, top = self._answers.get(place), self.quality.pred_probs
        one = None if said is None or said.rule else said
        labels = self.names.names
        suggested = zip(top.classes[place, :_SUGGESTED], top.values[place, :_SUGGESTED], strict=True)
        return {
            "row": int(self.examples.rows[place]),
            "text": self.examples.texts[place],
            "given": labels[self.given[place]],
            "suggested": [[labels[label], float(value)] for label, value in suggested],
            "clean_probability": float(self.quality.clean_probability[place]),
            "why": why,
            "copies": len(self._copies[self.examples.texts[place]]),
            "answer": None if one is None else one.action,
            "label": None if one is None or one.label is None else labels[one.label],
        }

    def _unanswered(self, one: Pattern) -> list[int]:
        return [row for row in one.rows if row not in self._answers]

    def _open_patterns(self) -> dict[int, Pattern]:
        """Those that no answer speaks against since they were found, by numbers that are never given anew."""
        said = self._answers
        return {
            number: one
            for number, one in enumerate(self.patterns, self._patterns_before)
            if self._unanswered(one)
            and not any(row in said and _speaks_against(said[row], one.true) for row in one.rows)
        }

    def _of_pattern(self, number: int, one: Pattern) -> dict[str, Any]:
        rows = self._unanswered(one)
        shown = np.random.default_rng(_SEED).permutation(len(rows))[:_EXAMPLES]
        return {
            "number": number,
            "words": one.words,
            "given": self.names.names[one.given],
            "true": self.names.names[one.true],
            "rows": len(rows),
            "seen": one.seen,
            "at_least": one.at_least,
            "examples": [
                self.examples.texts[rows[place]][:_EXAMPLE_CHARACTERS] for place in sorted(shown.tolist())
            ],
        }

    def _suspicious(self) -> list[dict[str, Any]]:
        issues = self._found.audit.issues
        rows = issues[~issues["row"].isin(self.examples.rows[list(self._answers)])].head(_LISTED)
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

    def _tell(self, place: int | None, told: Mapping[int, Answer]) -> None:
        before = {one: self._answers.get(one) for one in told}
        self._replace(told)
        self._undo.append(_Step(place, before))

    def _replace(self, changes: Mapping[int, Answer | None]) -> None:
        """Write answers down, None for a row that has none any more, and only then believe them."""
        merged: dict[int, Answer | None] = {**self._answers, **changes}
        answers = {row: one for row, one in merged.items() if one is not None}
        if [one.action for one in answers.values()].count("drop") == len(self.examples):
            raise InputError("All other rows are dropped: keep at least one.")
        self._file.write(answers)
        self._answers = answers


def _speaks_against(one: Answer, true: int) -> bool:
    return one.action == "keep" or (one.action == "relabel" and one.label != true)
