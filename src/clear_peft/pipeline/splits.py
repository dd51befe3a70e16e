"""The tables that a run reads."""

import hashlib
import json
from dataclasses import dataclass
from typing import Any

import numpy as np

from clear_peft.data import Examples, LabelNames, hold_out, load_examples, row_groups
from clear_peft.pipeline.verified import with_verified
from clear_peft.run_folder.config import RunConfig


@dataclass(frozen=True)
class Tables:
    """What a run reads: ``rows`` is the whole of the training file, of which the rest are parts."""

    names: LabelNames
    rows: Examples
    groups: np.ndarray  # of all rows: copies of a text, and what the input says belongs together
    train: Examples
    validation: Examples
    held_out: Examples | None  # the validation rows that come from the training file
    test: Examples | None

    @property
    def digest(self) -> str:
        """Of what training keeps by the position of a row: another one, and a run cannot be carried on."""
        digest = hashlib.sha256(json.dumps(self.names.names).encode())
        looked = _looked_at(self.rows)
        if len(looked) and self.rows.verified is not None:
            digest.update(json.dumps([looked.tolist(), self.rows.verified[looked].tolist()]).encode())
        for part in (self.train, self.validation):
            assert part.labels is not None  # as read_tables reads them
            for text, label in zip(part.texts, part.labels.tolist(), strict=True):
                digest.update(json.dumps([label, text]).encode())
        return digest.hexdigest()


def _looked_at(rows: Examples) -> np.ndarray:
    """Positions of the rows that are verified."""
    return np.flatnonzero(rows.verified >= 0) if rows.verified is not None else np.empty(0, np.int64)


def read_tables(config: RunConfig) -> Tables:
    """Read and check every table of a run.

    Raises:
        InputError: If one cannot be read, or does not fit.
    """
    columns: dict[str, Any] = {"text_column": config.text_column, "label_column": config.label_column}
    table = load_examples(
        config.data,
        **columns,
        clean_label_column=config.clean_label_column,
        id_column=config.id_column,
        group_column=config.group_column,
        verified_column=config.verified_column,
    )
    names = table.names
    assert names is not None  # a label column was asked for
    rows = with_verified(table.examples, names, config.verified)
    assert rows.labels is not None
    _, groups = row_groups(rows)
    held_out = None
    if config.validation is not None:
        train = rows
        validation = load_examples(config.validation, **columns, names=names).examples
    else:
        # what a person has looked at is there to learn from
        free = np.flatnonzero(~np.isin(groups, groups[_looked_at(rows)]))
        free = free if len(free) else np.arange(len(rows))
        _, held = hold_out(rows.labels[free], config.validation_fraction, config.seed, groups[free])
        validation = rows.select(free[held])
        train = rows.select(np.setdiff1d(np.arange(len(rows)), free[held]))
        held_out = validation
    test = None if config.test is None else load_examples(config.test, **columns, names=names).examples
    return Tables(names, rows, groups, train, validation, held_out, test)
