"""Rows that a person has looked at, out of the corrections that a review or a report writes."""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import numpy.typing as npt

from clear_peft.audit.corrections import read_corrections
from clear_peft.data import Examples, LabelNames
from clear_peft.errors import InputError


def with_verified(
    examples: Examples, names: LabelNames, paths: str | Sequence[str] | None
) -> tuple[Examples, npt.NDArray[np.bool_]]:
    """Examples with the rows of ``corrections.csv`` as verified ones.

    Rows that were kept have the given label for their true one, rows that were relabelled the new one. Rows
    to drop, and those that nobody could tell, are left as they are.

    Args:
        examples: All rows of a table, labelled.
        names: Names of their classes.
        paths: The file, or several, of which a later one counts where both name a row; None: the same
            examples.

    Returns:
        The N examples, and at which of them somebody has looked, (N,): not at those that a rule relabelled.

    Raises:
        InputError: If a file is not about this table, or the table says itself which rows are verified.
    """
    if paths is None:
        none = np.zeros(len(examples), bool)
        return examples, none if examples.verified is None else examples.verified >= 0
    if examples.verified is not None:
        raise InputError("There are a file and a column of verified rows: give one of them.")
    assert examples.labels is not None  # as the caller has read them
    place = {row: i for i, row in enumerate(examples.rows.tolist())}
    verified, seen = np.full(len(examples), -1, np.int64), np.zeros(len(examples), bool)
    for path in [paths] if isinstance(paths, str) else paths:
        corrections = read_corrections(path, examples, names)
        for row in corrections.keep:
            verified[place[row]] = examples.labels[place[row]]
        for row, label in corrections.relabel.items():
            verified[place[row]] = label
        for row in (*corrections.drop, *corrections.skip):  # it was kept before, perhaps
            verified[place[row]] = -1
        looked = {*corrections.keep, *corrections.relabel, *corrections.drop, *corrections.skip}
        seen[[place[row] for row in looked - corrections.by_rule.keys()]] = True
    return replace(examples, verified=verified), seen
