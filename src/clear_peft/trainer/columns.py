"""Columns of a tokenised data set, and the id of each row: through any collator to the batch."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pandas as pd
import pyarrow.compute as pc  # type: ignore[import-untyped]
import torch
from datasets import Dataset as HubDataset
from torch.utils.data import Dataset, IterableDataset

from clear_peft.data.word_tokens import NO_LABEL
from clear_peft.errors import InputError
from clear_peft.label_quality import as_groups, check_votes

ID_COLUMN = "clear_example_id"
CLEAN_LABEL_COLUMN = "clean_label"
GROUP_COLUMN = "group"
ROW_COLUMN = "row"
VERIFIED_COLUMN = "verified"
VOTES_COLUMN = "votes"
# columns of the training set that no model is given
_OURS = (ID_COLUMN, CLEAN_LABEL_COLUMN, GROUP_COLUMN, ROW_COLUMN, VERIFIED_COLUMN, VOTES_COLUMN)
_LABEL_COLUMNS = ("labels", "label", "label_ids")


class IdCollator:
    """Carries ids past a collator that knows nothing of them.

    Args:
        collate: The collator of everything else: features in, batch out.
    """

    def __init__(self, collate: Callable[[list[dict[str, Any]]], dict[str, Any]]) -> None:
        self.collate = collate
        self.tokenizer = getattr(collate, "tokenizer", None)  # transformers saves it with the model

    def __call__(self, features: list[dict[str, Any]]) -> dict[str, Any]:
        """Collate, with the ids as an int64 tensor (B,) where the features have them."""
        rest = [{k: v for k, v in dict(f).items() if k not in _OURS} for f in features]
        batch = self.collate(rest)
        if ID_COLUMN in features[0]:
            batch[ID_COLUMN] = torch.tensor([int(f[ID_COLUMN]) for f in features])
        return batch


class _Indexed(Dataset):
    """A map-style dataset of dictionaries whose items carry their position."""

    def __init__(self, dataset: Dataset) -> None:
        self.dataset = dataset

    def __len__(self) -> int:
        return len(self.dataset)  # type: ignore[arg-type]

    def __getitem__(self, index: int) -> dict[str, Any]:
        return {**self.dataset[index], ID_COLUMN: index}


def with_ids(dataset: Any) -> Any:
    """Add to each example its position in the training set, as ``clear_example_id``.

    Raises:
        InputError: If the dataset has no length, and so no stable ids.
    """
    if isinstance(dataset, HubDataset) and dataset.format["type"] != "custom":
        if ID_COLUMN in dataset.column_names:
            dataset = dataset.remove_columns(ID_COLUMN)
        return dataset.add_column(ID_COLUMN, np.arange(len(dataset)))
    if isinstance(dataset, IterableDataset) or not hasattr(dataset, "__len__"):
        raise InputError(
            "A streamed training set has no stable example ids: load it whole (datasets without streaming, "
            "or a map-style torch Dataset)."
        )
    return _Indexed(dataset)


def parted(inputs: dict[str, Any]) -> tuple[dict[str, Any], torch.Tensor, Any]:
    """A batch without its labels, (B,), and its ids, (B,) or None; and these.

    Raises:
        InputError: If the batch is packed.
    """
    if {"seq_idx", "cu_seq_lens_q"} & inputs.keys():
        raise InputError("Packed batches have no example ids: turn off packing and padding-free batches.")
    rest = {name: value for name, value in inputs.items() if name not in ("labels", ID_COLUMN)}
    return rest, inputs["labels"], inputs.get(ID_COLUMN)


def column(dataset: Any, name: str) -> np.ndarray | None:
    """One column of a dataset as an array, or None if it has none of that name."""
    return np.asarray(_cells(dataset, name)) if has_column(dataset, name) else None


def numbers(dataset: Any, name: str) -> np.ndarray | None:
    """One column of a dataset, (N,), or None if it has none of that name that is a number for each row."""
    try:
        values = column(dataset, name)
    except ValueError:  # ragged
        return None
    fits = values is not None and values.ndim == 1 and np.issubdtype(values.dtype, np.number)
    return values if fits else None


def token_counts(dataset: Any) -> np.ndarray | None:
    """Lengths of the ``input_ids`` of a dataset, (N,), or None if it has none."""
    if not isinstance(dataset, HubDataset) or "input_ids" not in dataset.column_names:
        return None
    # as lists of Python, long tables would take seconds in every evaluation
    ids = dataset.select_columns("input_ids").with_format("arrow")[:]["input_ids"]
    return pc.list_value_length(ids).to_numpy().astype(np.int64)


def copies_of(dataset: Any) -> np.ndarray:
    """Rows of a dataset whose ``input_ids`` are equal have one number, (N,) int64."""
    if not isinstance(dataset, HubDataset) or "input_ids" not in dataset.column_names:
        return np.arange(len(dataset))
    rows = dataset.with_format(None)["input_ids"]
    return pd.factorize(pd.Series([np.asarray(ids).tobytes() for ids in rows]))[0].astype(np.int64)


def groups_of(dataset: Any) -> np.ndarray | None:
    """Group of each row of a dataset, (N,) int64: of its column ``group``, where it has one."""
    given = numbers(dataset, GROUP_COLUMN)
    return None if given is None else as_groups(given, len(dataset))


def verified_of(dataset: Any, num_labels: int) -> np.ndarray | None:
    """True class of each row that a person has looked at, -1 elsewhere, (N,) int64; None where nobody has.

    Raises:
        InputError: If the column ``verified`` holds anything else.
    """
    given = numbers(dataset, VERIFIED_COLUMN)
    if given is None:
        return None
    if not np.issubdtype(given.dtype, np.integer) or given.min() < -1 or given.max() >= num_labels:
        raise InputError(
            f"The column verified must hold the true class of a row, 0…{num_labels - 1}, or -1 where nobody "
            "has looked: encode it as the labels."
        )
    return given.astype(np.int64) if (given >= 0).any() else None


def votes_of(dataset: Any, num_labels: int) -> np.ndarray | None:
    """What several sources say of each row, -1 where one says nothing, (N, A) int64; None without the column.

    Raises:
        InputError: If the column ``votes`` holds anything else.
    """
    try:
        given = column(dataset, VOTES_COLUMN)
    except ValueError:  # ragged
        raise InputError("The column votes must hold as many label ids for each row: pad with -1.") from None
    return None if given is None else check_votes(given, len(given), num_labels)


def has_labels(dataset: Any) -> bool:
    """Whether a hub dataset has a column of labels."""
    return not set(_LABEL_COLUMNS).isdisjoint(dataset.column_names)


def labels_of(dataset: Any, num_labels: int, name: str = "training") -> np.ndarray:
    """The given labels of a dataset, (N,) int64.

    Args:
        dataset: With one of the columns that collators take for labels, or several that agree.
        num_labels: Outputs of the model's head.
        name: Which set it is, for sentences. Default ``training``.

    Raises:
        InputError: If there are none, or they are not one class index per example.
    """
    found = _label_column(
        dataset, name, "Clean routing needs one class index per example (single-label classification)"
    )
    if found.ndim != 1 or not np.issubdtype(found.dtype, np.integer):
        raise InputError(
            "Clean routing needs one class index per example (single-label classification); the labels of "
            f"the {name} set are {found.dtype} of shape {found.shape}."
        )
    if len(found) == 0 or found.min() < 0 or found.max() >= num_labels:
        raise InputError(
            f"The labels of the {name} set must lie in 0…{num_labels - 1}, as many as the model's head has "
            "outputs: load the model with num_labels=…, and encode the labels."
        )
    return found.astype(np.int64)


def flags_of(dataset: Any, num_labels: int, name: str = "training") -> np.ndarray:
    """Which of several labels the rows of a dataset have, (N, C) bool; arguments as for ``labels_of``.

    Raises:
        InputError: If there are none, or they are not 0 or 1 for each label of each row.
    """
    needed = f"A model of several labels a row needs {num_labels} numbers, 0 or 1, for each row"
    found = _label_column(dataset, name, needed)
    numbers = found.dtype == bool or np.issubdtype(found.dtype, np.number)
    if found.shape != (len(dataset), num_labels) or not numbers:
        raise InputError(f"{needed}; the labels of the {name} set are {found.dtype} of shape {found.shape}.")
    if not ((found == 0) | (found == 1)).all():
        raise InputError(f"{needed}; the labels of the {name} set hold other numbers.")
    return found.astype(bool)


def word_labels_of(dataset: Any, num_labels: int, name: str = "training") -> tuple[np.ndarray, np.ndarray]:
    """Labels of the words of a dataset, (W,) int64, and how many words each row has, (N,) int64.

    Arguments as for ``labels_of``. A word is a token whose label is not -100.

    Raises:
        InputError: If there are none, they are not a class index or -100 for each token, or a row has none
            but -100.
    """
    column = next((c for c in _LABEL_COLUMNS if has_column(dataset, c)), None)
    if column is None:
        raise InputError(f"The {name} set has no labels: give a column {' or '.join(_LABEL_COLUMNS[:2])}.")
    needed = "A model of labels of words needs a class index for each token, -100 where it has none"
    cells = [np.asarray(cell) for cell in _cells(dataset, column)]
    lengths = token_counts(dataset)
    for row, cell in enumerate(cells):
        fits = cell.ndim == 1 and np.issubdtype(cell.dtype, np.integer)
        if not fits or not len(cell) or (lengths is not None and len(cell) != lengths[row]):
            raise InputError(
                f"{needed}; the labels of row {row} of the {name} set are {cell.dtype} of shape {cell.shape}"
                + ("." if lengths is None else f", and it has {lengths[row]} tokens.")
            )
    if not cells:
        raise InputError(f"The {name} set is empty: give at least one row.")
    every = np.concatenate(cells).astype(np.int64)
    words = every != NO_LABEL
    labels, ends = every[words], np.cumsum([len(cell) for cell in cells])
    sizes = np.diff(np.cumsum(words)[ends - 1], prepend=0)
    if not sizes.all():
        raise InputError(
            f"No token of row {int(np.argmin(sizes))} of the {name} set has a label: leave such rows out."
        )
    if labels.min() < 0 or labels.max() >= num_labels:
        raise InputError(
            f"The labels of the {name} set must lie in 0…{num_labels - 1}, -100 where a token has none: "
            "load the model with num_labels=…, and encode the labels."
        )
    return labels, sizes


def has_column(dataset: Any, name: str) -> bool:
    """Whether a dataset has a column of that name."""
    if isinstance(dataset, _Indexed):
        dataset = dataset.dataset
    if isinstance(dataset, HubDataset):
        return name in dataset.column_names
    return bool(len(dataset)) and name in dataset[0]


def _cells(dataset: Any, name: str) -> list[Any]:
    """One column of a dataset, as it is stored."""
    if isinstance(dataset, _Indexed):
        dataset = dataset.dataset
    if isinstance(dataset, HubDataset):
        return list(dataset.with_format(None)[name])
    return [dataset[i][name] for i in range(len(dataset))]


def _label_column(dataset: Any, name: str, needed: str) -> np.ndarray:
    try:
        columns = {c: a for c in _LABEL_COLUMNS if (a := column(dataset, c)) is not None}
    except ValueError:
        raise InputError(f"{needed}; the labels of the {name} set are of several lengths.") from None
    if not columns:
        raise InputError(f"The {name} set has no labels: give a column {' or '.join(_LABEL_COLUMNS[:2])}.")
    found, *others = columns.values()
    if not all(np.array_equal(found, other) for other in others):
        raise InputError(  # collators take the last of them, and judged would be the first
            f"The {name} set has different labels in its columns {' and '.join(columns)}: keep one of them."
        )
    return found
