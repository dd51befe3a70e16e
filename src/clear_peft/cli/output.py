"""Where everything goes that a command has to say."""

import json
import sys
from enum import StrEnum
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeRemainingColumn
from rich.table import Table


class Format(StrEnum):
    """How a command speaks: to a person, to a program, or not at all."""

    human = "human"
    json = "json"
    quiet = "quiet"


class Output:
    """Progress to stderr (a bar on a terminal, lines elsewhere), results to stdout.

    Args:
        format: ``json`` and ``quiet`` show no progress; ``quiet`` shows no results either.
    """

    def __init__(self, format: Format) -> None:  # noqa: A002
        self.format = format
        self._progress: Progress | None = None
        self._task: TaskID | None = None
        self._console = Console(stderr=True, highlight=False, quiet=format is not Format.human)
        self._results = Console(highlight=False, quiet=format is Format.quiet, soft_wrap=True)

    # what a run reports (clear_peft.runs.progress.Reporter)

    def stage(self, text: str) -> None:
        """A new stage has begun."""
        self._end_bar()
        self._console.print(f"{escape(text)} …")

    def step(self, done: int, total: int) -> None:
        """Steps of the training are done."""
        if self.format is not Format.human or not self._console.is_terminal:
            return
        if self._progress is None:
            columns = (TextColumn("training"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
            self._progress = Progress(*columns, console=self._console, transient=True)
            self._task = self._progress.add_task("training", total=total)
            self._progress.start()
        assert self._task is not None
        self._progress.update(self._task, completed=done)

    def epoch(self, figures: dict[str, Any]) -> None:
        """An epoch is over."""
        shown = [f"epoch {figures['epoch']}", f"loss {figures.get('train_loss', float('nan')):.3f}"]
        for name, label in (
            ("validation_accuracy", "validation accuracy (doubtful labels)"),
            ("noise_rate", "estimated noise"),
            ("gate_rate", "routed"),
            ("detection_auc", "detection AUC"),
        ):
            if name in figures:
                shown.append(f"{label} {figures[name]:.3f}")
        self._console.print("  " + ", ".join(shown))

    # results

    def result(self, values: dict[str, Any], lines: list[str] | Table) -> None:
        """The outcome of a command: as JSON, or as lines or a table for a person."""
        self._end_bar()
        if self.format is Format.json:
            sys.stdout.write(json.dumps(values, indent=2, ensure_ascii=False) + "\n")
        elif isinstance(lines, Table):
            self._results.print(lines)
        else:
            for line in lines:
                self._results.print(escape(line))

    def error(self, sentence: str) -> None:
        """One sentence on stderr, whatever the format."""
        self._end_bar()
        if self.format is Format.json:
            sys.stderr.write(json.dumps({"error": sentence}, ensure_ascii=False) + "\n")
        else:
            sys.stderr.write(f"clear-peft: {sentence}\n")

    def _end_bar(self) -> None:
        if self._progress is not None:
            self._progress.stop()
            self._progress = self._task = None
