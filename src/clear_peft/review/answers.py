"""The answers of a review, and the file that keeps them."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import pandas as pd

from clear_peft.audit import read_corrections
from clear_peft.data import Examples, LabelNames, escape_formulas, write_table
from clear_peft.errors import InputError

Action = Literal["keep", "relabel", "drop", "skip"]

_RULE = "rule"
_COLUMNS = ("row", "action", "label", "given_label", "text", _RULE)
_TEXT_CHARACTERS = 200


@dataclass(frozen=True)
class Answer:
    """What a person has said of a row.

    Attributes:
        action: The label is right, is another one, the row is of no use, or one cannot tell.
        label: Class id, where it is another one; else None.
        rule: Words of the pattern by which it was said of many rows at once; empty where somebody has looked.
    """

    action: Action
    label: int | None = None
    rule: str = ""


class AnswerFile:
    """``corrections.csv`` of a review: answers by place, that is by position among the rows with a label.

    Args:
        path: Where it is, or is to be.
        examples: The rows with a label.
        names: Of the classes.
    """

    def __init__(self, path: Path, examples: Examples, names: LabelNames) -> None:
        self.path, self.examples, self.names = path, examples, names
        self._stamp = self._stamp_of_file()

    def read(self) -> dict[int, Answer]:
        """The answers that it holds, by place; none where there is no file.

        Raises:
            InputError: If it is not what a review or a report writes.
        """
        if self._stamp is None:
            return {}
        held = read_corrections(self.path, self.examples, self.names)
        said = {row: Answer("relabel", to, held.by_rule.get(row, "")) for row, to in held.relabel.items()}
        said |= {row: Answer("keep") for row in held.keep}
        said |= {row: Answer("drop") for row in held.drop}
        said |= {row: Answer("skip") for row in held.skip}
        place = places(self.examples)
        return {place[row]: one for row, one in said.items()}

    def write(self, answers: Mapping[int, Answer]) -> None:
        """Keep these answers and no others, atomically; without any, there is no file.

        Raises:
            InputError: If something else has written the file since.
        """
        if self._stamp_of_file() != self._stamp:
            raise InputError(
                f"{self.path} was changed by something else, perhaps a second review: stop this one, and "
                "start it again."
            )
        labels, given = self.names.names, self.examples.labels
        assert given is not None
        lines = [
            (
                int(self.examples.rows[place]),
                one.action,
                "" if one.label is None else labels[one.label],
                labels[given[place]],
                self.examples.texts[place][:_TEXT_CHARACTERS],
                one.rule,
            )
            for place, one in sorted(answers.items())
        ]
        if lines:
            write_table(escape_formulas(pd.DataFrame(lines, columns=list(_COLUMNS))), self.path)
        else:
            self.path.unlink(missing_ok=True)
        self._stamp = self._stamp_of_file()

    def _stamp_of_file(self) -> tuple[int, ...] | None:
        try:
            found = self.path.stat()
        except FileNotFoundError:
            return None
        return found.st_ino, found.st_size, found.st_mtime_ns


def places(examples: Examples) -> dict[int, int]:
    """The place of each row of a table that has a label, by its position in the table."""
    return {row: place for place, row in enumerate(examples.rows.tolist())}
