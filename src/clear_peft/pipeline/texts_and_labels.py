"""What a classifier of texts is given in Python: texts, labels of any type, and how much rows count."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from clear_peft.data import Examples, LabelNames, row_groups
from clear_peft.data.examples import examples_of
from clear_peft.errors import InputError
from clear_peft.pipeline.splits import Tables, train_and_held_out
from clear_peft.run_folder.config import RunConfig

_TYPES = ("str", "bool", *(f"{sign}int{bits}" for sign in ("", "u") for bits in (8, 16, 32, 64)))


def column(values: Any, name: str) -> list[Any]:
    """The N values of a list, an array, a Series, or a table of one column.

    Args:
        values: What is given, of NumPy, pandas, polars, Arrow or plain Python.
        name: Of the argument, for the sentence.

    Raises:
        InputError: If it is something else.
    """
    if hasattr(values, "to_pylist") and not hasattr(values, "columns"):
        return list(values.to_pylist())
    if len(getattr(values, "columns", ())) == 1:
        values = values[values.columns[0]]
    elif getattr(values, "ndim", 1) == 2 and values.shape[1] == 1:
        values = values[:, 0]
    one = getattr(values, "ndim", 1) == 1 and not hasattr(values, "columns")
    if not one or isinstance(values, str | bytes | set | Mapping) or not hasattr(values, "__iter__"):
        raise InputError(f"{name} is a {type(values).__name__}: give a list, or one column of a table.")
    return list(values)


def labelled(texts: Any, labels: Any) -> tuple[Examples, npt.NDArray[Any]]:
    """Check the rows of a classifier.

    Args:
        texts: N texts, as ``column`` takes them.
        labels: N labels: all text, all whole numbers or all booleans.

    Returns:
        Texts and the ids of their labels, and the C labels that there are, sorted, (C,).

    Raises:
        InputError: If they are not as above, or there are fewer than two classes.
    """
    given, y = column(texts, "X"), column(labels, "y")
    if len(given) != len(y):
        raise InputError(f"There are {len(given)} texts and {len(y)} labels: give one label for each text.")
    if not given:
        raise InputError("There are no rows: give texts and their labels.")
    frame = pd.DataFrame({"text": pd.Series(given, dtype=object), "label": pd.Series(y, dtype=object)})
    examples = examples_of(frame, "X and y").examples
    values = np.asarray(y) if len({_kind(label) for label in y}) == 1 else np.empty(0)
    if type_of(values) is None:
        raise InputError(
            "The labels are not all text, all whole numbers or all booleans: make them one of these, such as "
            "whole numbers with y.astype(int)."
        )
    classes, ids = np.unique(values, return_inverse=True)
    return replace(examples, labels=ids.astype(np.int64)), classes


def _kind(label: Any) -> type:
    kinds = ((str, str), (bool | np.bool_, bool), (int | np.integer, int), (object, object))
    return next(kind for theirs, kind in kinds if isinstance(label, theirs))


def _said(value: Any, classes: npt.NDArray[Any]) -> Any:
    """What an entry says of a row; None for None, NaN, NA, NaT and blank text.

    Whole numbers that a column with gaps holds as floats are whole numbers again where classes are such.
    """
    value = value.item() if isinstance(value, np.generic) else value
    if value is pd.NA or value is pd.NaT:
        return None
    if isinstance(value, str):
        return value if value.strip() else None
    if isinstance(value, float):
        if np.isnan(value):
            return None
        if classes.dtype.kind in "iu" and value.is_integer():
            return int(value)
    return value


def verified_of(
    values: Any, labels: npt.NDArray[np.integer], classes: npt.NDArray[Any]
) -> npt.NDArray[np.int64]:
    """Class ids of the true labels of rows that a person has looked at, -1 elsewhere, (N,).

    Args:
        values: (N,): a true label; True where the given one is right, unless labels are booleans themselves;
            nothing elsewhere, as ``_said`` tells it, and False unless labels are booleans.
        labels: Class ids of the given labels, (N,).
        classes: The C labels, sorted.

    Raises:
        InputError: If there is not one for each row, or one is no label.
    """
    given = column(values, "verified")
    if len(given) != len(labels):
        raise InputError(
            f"There are {len(labels)} labels, but verified has {len(given)} entries: give one for each row, "
            "None where nobody has looked."
        )
    known = {value: i for i, value in enumerate(classes.tolist())}
    booleans = classes.dtype.kind == "b"
    found = np.full(len(labels), -1, np.int64)
    for row, entry in enumerate(given):
        value = _said(entry, classes)
        if value is None or (value is False and not booleans):
            continue
        if value is True and not booleans:
            found[row] = labels[row]
        elif _kind(value) is _kind(classes[0]) and value in known:
            found[row] = known[value]
        else:
            raise InputError(
                f"verified has {value!r} in row {row}, which is none of the labels: give one of y."
            )
    return found


def votes_of(
    opinions: Mapping[str, Any], labels: npt.NDArray[np.integer], classes: npt.NDArray[Any]
) -> npt.NDArray[np.int64]:
    """What each source says of N rows, the given labels first: class ids, -1 where it says nothing, (N, A).

    Args:
        opinions: Labels by the name of their source, (N,) each; nothing where it says nothing, as ``_said``
            tells it. A label that is no class counts as nothing said.
        labels: Class ids of the given labels, (N,).
        classes: The C labels, sorted.

    Raises:
        InputError: If a source has not one entry for each row, or none that is a class.
    """
    known = {value: i for i, value in enumerate(classes.tolist())}
    votes = [labels]
    for name, values in opinions.items():
        given = column(values, name)
        if len(given) != len(labels):
            raise InputError(
                f"There are {len(labels)} labels, but {name} has {len(given)} entries: give one for each "
                "row, None where it says nothing."
            )
        said = [_said(value, classes) for value in given]
        alike = [_kind(value) is _kind(classes[0]) for value in said]
        votes.append(
            np.array([known.get(v, -1) if same else -1 for v, same in zip(said, alike, strict=True)])
        )
        if (votes[-1] < 0).all():
            raise InputError(f"No opinion of {name} is one of the labels: give labels as in y.")
    return np.stack(votes, axis=1).astype(np.int64)


def type_of(labels: npt.NDArray[Any]) -> str | None:
    """What labels are, by the name that ``classes_of`` takes; None where labels cannot be that."""
    name = "str" if labels.dtype.kind == "U" else labels.dtype.name
    return name if name in _TYPES else None


def classes_of(type_name: Any, values: Any) -> npt.NDArray[Any]:
    """The sorted labels of a classifier, (C,), as a file has them that anybody may have written.

    Raises:
        ValueError, OverflowError: If they are none.
    """
    if type_name not in _TYPES or not isinstance(values, list) or len(values) < 2:
        raise ValueError("it does not say what its labels are")
    kind = {"str": str, "bool": bool}.get(type_name, int)
    if not all(type(value) is kind for value in values):
        raise ValueError(f"its labels are not of type {type_name}")
    classes = np.array(values, dtype=type_name)
    if np.unique(classes).tolist() != values:
        raise ValueError("its labels are not different, and sorted")
    names_of(classes)
    return classes


def names_of(classes: npt.NDArray[Any]) -> LabelNames:
    """The names that a model and a run know classes by."""
    return LabelNames(tuple(map(str, classes.tolist())))


def weights_of(values: Any, size: int) -> npt.NDArray[np.float64]:
    """Check weights, (N,) numbers of at least 0, or None for all alike; those above 0 get the mean 1.

    Raises:
        InputError: If they are something else.
    """
    if values is None:
        return np.ones(size)
    try:
        weights = np.asarray(values, dtype=np.float64)
    except (ValueError, TypeError) as error:
        raise InputError("sample_weight holds more than numbers: give one for each row.") from error
    if weights.shape != (size,):
        raise InputError(f"sample_weight has shape {weights.shape}: give one for each of the {size} rows.")
    if not (np.isfinite(weights) & (weights >= 0)).all():
        raise InputError("sample_weight holds what is negative or no number: give 0 or more for each row.")
    return weights / weights[weights > 0].mean() if weights.any() else weights


def counting(
    examples: Examples, classes: npt.NDArray[Any], counts: npt.NDArray[np.bool_]
) -> tuple[Examples, npt.NDArray[Any]]:
    """The rows that count, with their positions, and the classes that these have.

    Args:
        examples: N rows.
        classes: What their label ids stand for, (C,).
        counts: Whether each counts, (N,).

    Raises:
        InputError: If fewer than two classes are left.
    """
    rows = examples.select(np.flatnonzero(counts))
    assert rows.labels is not None  # as they are read
    found, ids = np.unique(rows.labels, return_inverse=True)
    if len(found) < 2:
        raise InputError("Rows with a sample_weight above 0 are of one class or none: give two classes.")
    verified = rows.verified
    if verified is not None:
        strange = np.setdiff1d(verified[verified >= 0], found)
        if len(strange):
            raise InputError(
                f"verified names {classes[strange[0]].item()!r}, but no row with a sample_weight above 0 has "
                "this label: give such a row."
            )
        verified = np.where(verified < 0, -1, np.searchsorted(found, verified))
    votes = rows.votes
    if votes is not None:
        votes = np.where(np.isin(votes, found), np.searchsorted(found, votes), -1)
    return replace(rows, labels=ids.astype(np.int64), verified=verified, votes=votes), classes[found]


def tables_of(config: RunConfig, rows: Examples, classes: npt.NDArray[Any], size: int) -> Tables:
    """Hold some rows out, as a run does with those of its table.

    Args:
        config: For the share of the rows, and the seed.
        rows: M rows that count.
        classes: What their label ids stand for, (C,).
        size: N, the rows that their positions are among.

    Raises:
        InputError: If all are in one group, or no class has two rows.
    """
    assert rows.labels is not None  # as they are read
    _, together = row_groups(rows)
    if not together.any():
        raise InputError(
            "All rows are copies of each other or in one group, and none is left to judge them by: give more "
            "rows, or other groups."
        )
    groups = np.zeros(size, np.int64)
    groups[rows.rows] = together
    train, validation = train_and_held_out(rows, together, config)
    return Tables(names_of(classes), rows, groups, train, validation, validation, None)
