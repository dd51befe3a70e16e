"""The tables that a run reads."""

import hashlib
import json
import warnings
from dataclasses import dataclass, field

import numpy as np

from clear_peft.audit import rare_classes
from clear_peft.data import Examples, LabelNames, hold_out, load_examples, row_groups
from clear_peft.data.checks import listing, row_listing
from clear_peft.data.label_sets import rarest
from clear_peft.errors import ClearWarning
from clear_peft.label_quality import duplicate_groups
from clear_peft.pipeline.kind_of_labels import check_fits
from clear_peft.pipeline.verified import with_verified
from clear_peft.run_folder.config import RunConfig


@dataclass(frozen=True)
class Tables:
    """What a run reads: ``rows`` is what has a label in the training file, of which the rest are parts."""

    names: LabelNames
    rows: Examples
    groups: np.ndarray  # by the row of the file: copies, and what the input says belongs together
    train: Examples
    validation: Examples
    held_out: Examples | None  # the validation rows that come from the training file
    test: Examples | None
    unlabelled: Examples | None = None  # rows of the training file without a label
    leaks: dict[str, int] = field(default_factory=dict)  # rows of other tables that copy training rows

    @property
    def digest(self) -> str:
        """Of what training keeps by the position of a row: another one, and a run cannot be carried on."""
        digest = hashlib.sha256(json.dumps(self.names.names).encode())
        if self.train.votes is not None:
            digest.update(np.ascontiguousarray(self.train.votes).tobytes())
        looked = _looked_at(self.rows)
        if len(looked) and self.rows.verified is not None:
            digest.update(json.dumps([looked.tolist(), self.rows.verified[looked].tolist()]).encode())
        for part in (self.train, self.validation):
            assert part.labels is not None  # as read_tables reads them
            for text, label in zip(part.texts, part.labels, strict=True):
                digest.update(json.dumps([label.tolist(), text]).encode())
        return digest.hexdigest()


def _looked_at(rows: Examples) -> np.ndarray:
    """Positions of the rows that are verified."""
    return np.flatnonzero(rows.verified >= 0) if rows.verified is not None else np.empty(0, np.int64)


def read_tables(config: RunConfig) -> Tables:
    """Read and check every table of a run.

    Raises:
        InputError: If one cannot be read, or does not fit.
    """
    reading = config.reading
    table = load_examples(
        config.data,
        **reading,
        clean_label_column=config.clean_label_column,
        id_column=config.id_column,
        group_column=config.group_column,
        verified_column=config.verified_column,
        **config.sources,
        set_apart=True,
        lists=True,
    )
    names = table.names
    assert names is not None  # a label column was asked for
    check_fits(config, names)
    rows, _ = with_verified(table.examples, names, config.verified)
    assert rows.labels is not None
    if not names.words:
        say_which_are_rare(rows.labels, names)

    def other(source: str, what: str) -> Examples:
        examples = load_examples(source, **reading, names=names, set_apart=True).examples
        assert examples.labels is not None
        counts = np.bincount(each_label(examples.labels), minlength=len(names.names))
        lacking = [names.names[i] for i in np.flatnonzero(counts == 0)]
        if lacking and not names.words:
            _warn(f"The {what} table has no rows of {_classes(lacking)}; macro-F1 leaves them out.")
        return examples

    validation = None if config.validation is None else other(config.validation, "validation")
    test = None if config.test is None else other(config.test, "test")
    leaks = leaked(rows, config, validation=validation, test=test)
    _, together = row_groups(rows)
    groups = np.zeros(len(table.frame), np.int64)
    groups[rows.rows] = together
    held_out = None
    train = rows
    if validation is None:
        train, validation = train_and_held_out(rows, together, config)
        held_out = validation
    return Tables(names, rows, groups, train, validation, held_out, test, table.unlabelled, leaks)


def leaked(rows: Examples, config: RunConfig, **tables: Examples | None) -> dict[str, int]:
    """How many rows of other tables are copies, or nearly, of rows of the training table; a warning says so.

    Copies are those of ``clear_peft.label_quality.duplicate_groups``.

    Args:
        rows: Of the training table.
        config: For the names of the files.
        **tables: ``validation`` and ``test``; None: there is no such table.

    Returns:
        The number for each table that there is.
    """
    parts = {what: examples for what, examples in tables.items() if examples is not None}
    if not parts:
        return {}
    every = [rows, *parts.values()]
    groups = duplicate_groups([text for examples in every for text in examples.texts])
    own, *others = np.split(groups, np.cumsum([len(examples) for examples in every])[:-1])
    leaks = {}
    for what, group in zip(parts, others, strict=True):
        copies = (group >= 0) & np.isin(group, own)
        leaks[what] = int(copies.sum())
        if leaks[what]:
            which = row_listing(parts[what].rows[copies].tolist())
            _warn(
                f"Leak: the {what} table {getattr(config, what)!r} has copies, or near copies, of training "
                f"texts in {which}: figures are better on them than on new texts; remove them from "
                "one of the tables."
            )
    return leaks


def train_and_held_out(rows: Examples, together: np.ndarray, config: RunConfig) -> tuple[Examples, Examples]:
    """Hold some rows out; verified ones are there to learn from, and are not.

    Args:
        rows: N rows, labelled.
        together: Group of each, (N,): groups stay whole.
        config: For the share of the rows, and the seed.
    """
    assert rows.labels is not None  # as they are read
    free = np.flatnonzero(~np.isin(together, together[_looked_at(rows)]))
    free = free if len(free) else np.arange(len(rows))
    strata = rows.labels
    if rows.words is not None:
        has = np.zeros((len(rows), int(each_label(rows.labels).max()) + 1), bool)
        for row, tags in enumerate(rows.labels):
            has[row, tags] = True
        strata = rarest(has)
    elif rows.labels.ndim == 2:
        strata = rarest(rows.labels)
    _, held = hold_out(strata[free], config.validation_fraction, config.seed, together[free])
    kept = np.setdiff1d(np.arange(len(rows)), free[held])
    return rows.select(kept), rows.select(free[held])


def each_label(labels: np.ndarray) -> np.ndarray:
    """Ids of all labels that rows are given: (N,) as they are, several a row or those of words one by one."""
    if labels.dtype == object:
        return np.concatenate(labels)
    return np.nonzero(labels)[1] if labels.ndim == 2 else labels


def say_which_are_rare(labels: np.ndarray, names: LabelNames) -> None:
    """Warn of classes of one row, of which nothing can be known, and of others that are much too small."""
    labels = each_label(labels)
    counts = np.bincount(labels, minlength=len(names.names))
    rare = [names.names[i] for i in np.flatnonzero(counts == 1)]
    if rare:
        one = "has" if len(rare) == 1 else "have"
        _warn(
            f"{_classes(rare)} {one} one row each: nothing else tells whether their labels are right, and no "
            "such row is held out."
        )
    few = [name for name in rare_classes(labels, names.names) if name not in rare]
    if few:
        one = "has" if len(few) == 1 else "have"
        _warn(f"{_classes(few)} {one} less than a tenth of the rows of a class of average size.")


def _classes(names: list[str]) -> str:
    which = "class" if len(names) == 1 else "classes"
    return f"{len(names)} {which} ({listing(names, shown=20)})"


def _warn(message: str) -> None:
    warnings.warn(message, ClearWarning, stacklevel=2)
