"""Where everything goes that a command has to say."""

import json
import re
import sys
from collections.abc import Sequence
from enum import StrEnum
from typing import TYPE_CHECKING, Any

from rich.console import Console

if TYPE_CHECKING:
    from rich.progress import Progress, TaskID
    from rich.table import Column, Table

_WIDTH = 60
_COLOUR = re.compile(r"\x1b\[[0-9;]*m")


class Format(StrEnum):
    """How a command speaks: to a person, to a program, or not at all."""

    human = "human"
    json = "json"
    quiet = "quiet"


class Output:
    """Progress to stderr (a bar on a terminal, lines elsewhere), results to stdout.

    Attributes:
        format: ``json`` and ``quiet`` show no progress; ``quiet`` shows no results either.
        command: Name of the command that speaks, once it is known.
        verbose: Whether every note is shown, each time.
    """

    def __init__(self) -> None:
        self.format = Format.human
        self.command = ""
        self.verbose = False
        self._encodes = False
        self._noted: set[str] = set()
        self._bar: tuple[Progress, TaskID] | None = None
        self._progress = Console(stderr=True, highlight=False)
        self._results = Console(highlight=False)

    # what a run reports (clear_peft.pipeline.progress.Reporter)

    def stage(self, text: str) -> None:
        """A new stage has begun."""
        self._end_bar()
        self._encodes = text.startswith("Encoding")
        self._say(f"{text} …")

    def step(self, done: int, total: int) -> None:
        """Steps of the training, or texts of a scan, are done."""
        if self.format is not Format.human or not self._progress.is_terminal:
            return
        if self._bar is None:
            from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

            what = "encoding" if self._encodes else "training"
            columns = (TextColumn(what), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
            progress = Progress(*columns, console=self._progress, transient=True)
            self._bar = progress, progress.add_task(what, total=total)
            progress.start()
        progress, task = self._bar
        progress.update(task, completed=done)

    def epoch(self, figures: dict[str, Any]) -> None:
        """An epoch is over."""
        shown = [f"epoch {figures['epoch']}"]
        for name, label in (
            ("train_loss", "loss"),
            ("validation_accuracy", "validation accuracy (doubtful labels)"),
            ("validation_micro_f1", "validation micro-F1 (doubtful labels)"),
            ("validation_span_f1", "F1 of spans"),
            ("validation_macro_f1", "macro-F1"),
            ("noise_rate", "estimated noise"),
            ("gate_rate", "routed"),
            ("detection_auc", "detection AUC"),
        ):
            if name in figures:
                shown.append(f"{label} {figures[name]:.3f}")
        self._say("  " + ", ".join(shown))
        if "restarts" in figures:
            self._say("Noise was found: training restarts, and each label counts by its clean probability …")

    # results

    def result(self, values: dict[str, Any], lines: Sequence[str]) -> None:
        """The outcome of a command: as JSON, or as lines for a person."""
        self._end_bar()
        if self.format is Format.json:
            from clear_peft.files import plain_json

            # what replaces a character that a terminal cannot show is no escape of JSON
            shown = (sys.stdout.encoding or "").lower().replace("-", "") == "utf8"
            text = json.dumps(plain_json(values), indent=2, ensure_ascii=not shown, allow_nan=False)
            sys.stdout.write(_encodable(text, sys.stdout) + "\n")
        elif self.format is Format.human:
            for line in lines:
                self._results.print(_encodable(line, sys.stdout), markup=False, soft_wrap=True)

    def tables(self, values: dict[str, Any], tables: "Sequence[Table]", lines: Sequence[str]) -> None:
        """The outcome of a command: as JSON, or as tables and lines below them for a person."""
        if self.format is Format.human:
            self._end_bar()
            for table in tables:
                self._results.print(table)
        self.result(values, lines)

    def suspicious(self, values: dict[str, Any], lines: Sequence[str]) -> None:
        """The outcome of a command that ranks rows, which ``values`` has as ``most_suspicious``."""
        from rich.table import Column

        most = min(max(self._results.width // 3 - 9, 8), _WIDTH)  # of a label: the text needs as much
        rows = [
            (
                str(row["row"]),
                shown(row["given_label"], most),
                shown(row["predicted_label"], most),
                chance(row["clean_probability"]),
                shown(row["text"]),
            )
            for row in values["most_suspicious"]
        ]
        text = Column("text", no_wrap=True, ratio=1)  # one line a row, as wide as there is room
        headings = ("row", "given", "predicted", "right with", text)
        self.tables(values, [table_of("Most suspicious rows", headings, rows)], lines)

    def suspicious_spans(self, values: dict[str, Any], lines: Sequence[str]) -> None:
        """The outcome of a command that ranks spans, which ``values`` has as ``most_suspicious``."""
        most = max(self._results.width // 4, 8)
        columns = ("words", "given_tags", "suggested_tags")
        rows = [
            (str(row["row"]), *(shown(row[name], most) for name in columns), chance(row["clean_probability"]))
            for row in values["most_suspicious"]
        ]
        headings = ("row", "words", "given", "suggested", "right with")
        self.tables(values, [table_of("Most suspicious spans", headings, rows)], lines)

    def note(self, text: str) -> None:
        """What a person should know of a command that goes on: one line of stderr, and once."""
        text = _plain(text)
        if self.format is Format.quiet or (text in self._noted and not self.verbose):
            return
        self._noted.add(text)
        if self.format is Format.json:
            sys.stderr.write(json.dumps({"note": text}) + "\n")
        else:
            self._say(f"Note: {text}")

    def error(self, sentence: str) -> None:
        """One sentence on one line of stderr, whatever the format."""
        self._end_bar()
        sentence = _plain(sentence)
        if self.format is Format.json:
            sys.stderr.write(json.dumps({"error": sentence}) + "\n")
        else:
            sys.stderr.write(f"clear-peft: {_encodable(sentence, sys.stderr)}\n")

    def _say(self, line: str) -> None:
        if self.format is Format.human:
            self._progress.print(_encodable(line, sys.stderr), markup=False, soft_wrap=True)

    def _end_bar(self) -> None:
        if self._bar is not None:
            self._bar[0].stop()
            self._bar = None


def table_of(title: str, headings: "Sequence[str | Column]", rows: Sequence[Sequence[str]]) -> "Table":
    """A table for a terminal, with cells as plain text; as wide as there is room if a column has a ratio."""
    from rich.table import Column, Table
    from rich.text import Text

    wide = any(isinstance(heading, Column) and heading.ratio for heading in headings)
    table = Table(*headings, title=title, expand=wide)
    for row in rows:
        table.add_row(*(Text(_encodable(cell, sys.stdout)) for cell in row))
    return table


def shown(text: str, most: int = _WIDTH) -> str:
    """Text from data, on one line of so many characters and without what could steer a terminal."""
    brief = text if len(text) <= most else text[: most - 1] + "…"
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in brief)


def counted(number: float, noun: str) -> str:
    """A number of things, as in ``1 row`` and ``2 rows``."""
    return f"{number:.0f} {noun}{'' if round(number) == 1 else 's'}"


def _plain(text: str) -> str:
    """Text from anywhere on one line, without colours and what else could steer a terminal."""
    line = " ".join(_COLOUR.sub("", text).split())
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in line)


def chance(probability: float) -> str:
    """In percent; no estimate is as sure as 0 %."""
    return "<1%" if probability < 0.005 else f"{probability:.1%}"


def _encodable(text: str, stream: Any) -> str:
    """Let no file name or text that a terminal cannot show stop a run."""
    encoding = getattr(stream, "encoding", None) or "utf-8"
    return text.encode(encoding, "backslashreplace").decode(encoding)
