"""Noise into the labels of a table."""

import csv
import io
import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from clear_peft.data import LabelNames, check_output, load_examples, write_table
from clear_peft.data.checks import decode, listing
from clear_peft.errors import InputError
from clear_peft.noise import KINDS, NoiseSpec, corrupt

_CLEAN = "clean_label"


def add_noise(
    data: str,
    output: str | os.PathLike[str],
    *,
    kind: str,
    rate: float | None = None,
    seed: int = 0,
    text_column: str | Sequence[str] = "text",
    label_column: str = "label",
    normalize_labels: bool = False,
    unlabelled: Sequence[str] = (),
    encoding: str | None = None,
    class_map: Sequence[str] = (),
    matrix: str | os.PathLike[str] | None = None,
    model: str | None = None,
    overwrite: bool = False,
) -> dict[str, Any]:
    """Write a table with noisy labels in its label column, and the labels that it had in ``clean_label``.

    Args:
        data: What ``clear_peft.data.read_table`` takes.
        output: CSV, TSV, JSONL or Parquet file to write.
        kind: One of ``clear_peft.noise.KINDS``.
        rate: Noise rate; for every kind but ``matrix``.
        seed: Seed of the random generator. Default 0.
        text_column: Column of the texts; several are read as one text, a line each. Default ``text``.
        label_column: Column of the labels. Default ``label``.
        normalize_labels: Whether labels that differ only in case, white space, hyphens and underscores
            between words, characters that cannot be seen or how Unicode composes letters are one class.
            Default False.
        unlabelled: What stands for a missing label besides an empty cell; rows without a label stay as they
            are. Default: nothing.
        encoding: Encoding of the table. Default: UTF-8, or UTF-16 where it is marked.
        class_map: For ``map``: ``a=b`` where labels a flip to b.
        matrix: For ``matrix``: a file that :func:`read_matrix` takes.
        model: For ``instance``: hub name or path of the pretrained model that embeds the texts.
        overwrite: Whether the output may be there already. Default False.

    Returns:
        ``rows`` (with a label), ``changed`` (numbers), ``rate`` (realised), ``labels`` (names), ``matrix``
        (realised, rows and columns in the order of the names) and ``output``.

    Raises:
        InputError: If an option is wrong, missing or not for this kind, the table is not what it should be,
            or the output cannot be written.
    """
    if kind not in KINDS:
        raise InputError(f"There is no noise {kind!r}: choose from {', '.join(KINDS)}.")
    for option, wanted, present in (
        ("--rate", kind != "matrix", rate is not None),
        ("--map", kind == "map", bool(class_map)),
        ("--matrix", kind == "matrix", matrix is not None),
        ("--model", kind == "instance", model is not None),
    ):
        if wanted != present:
            raise InputError(
                f"The noise {kind!r} {'needs' if wanted else 'takes no'} {option}: "
                f"{'add it' if wanted else 'leave it out'}."
            )
    check_output(output, [data, *([matrix] if matrix is not None else [])], overwrite=overwrite)
    table = load_examples(
        data,
        encoding=encoding,
        text_column=text_column,
        label_column=label_column,
        normalize_labels=normalize_labels,
        unlabelled=unlabelled,
        set_apart=True,
    )
    if _CLEAN in table.frame.columns:
        raise InputError(f"{data!r} has a column {_CLEAN!r} already: rename or drop it there.")
    labels, names = table.examples.labels, table.names
    assert labels is not None  # a label column was asked for
    assert names is not None
    spec = NoiseSpec(
        kind,
        rate or 0.0,
        mapping=_parse_map(class_map, names) if class_map else None,
        matrix=None if matrix is None else read_matrix(matrix, names),
    )
    features = None
    if model is not None:
        from clear_peft.pipeline.frozen_encoder import embed  # loads torch

        features = embed(table.examples.texts, model)
    noisy = corrupt(labels, len(names.names), spec, seed, features=features)

    # each changed label is copied from a row that has it, so that values keep their type
    rows, source = table.examples.rows, np.arange(len(table.frame))
    _, row_of = np.unique(labels, return_index=True)
    source[rows[noisy.changed]] = rows[row_of[noisy.labels[noisy.changed]]]
    given, frame = table.frame[label_column], table.frame.copy()
    frame[label_column], frame[_CLEAN] = given.iloc[source].set_axis(given.index), given
    write_table(frame, output)
    return {
        "rows": len(labels),
        "changed": int(noisy.changed.sum()),
        "rate": noisy.rate,
        "labels": list(names.names),
        "matrix": noisy.matrix,
        "output": str(output),
    }


def read_matrix(path: str | os.PathLike[str], names: LabelNames) -> np.ndarray:
    """Read a transition matrix from a file.

    Args:
        path: A CSV or JSON file (UTF-8). Either numbers alone, rows and columns in the order of the labels;
            or with names in any order: in CSV as header and as first cell of each row, in JSON as an object
            of objects ``{"a": {"a": 0.9, "b": 0.1}, …}``.
        names: The labels.

    Returns:
        (C, C) float64 in the order of the labels.

    Raises:
        InputError: If the file cannot be read, or does not hold a number for each pair of labels.
    """
    cells = _cells(Path(path))
    classes = len(names.names)
    if len(cells) == classes + 1:
        header, rows = [str(name) for name in cells[0][1:]], [str(row[0]) for row in cells[1:]]
        for found in (header, rows):
            if sorted(found) != sorted(names.names):
                raise InputError(
                    f"{path} names {listing(found)}, but the labels are {listing(names.names)}: "
                    "name each label once as a row and once as a column."
                )
        cells = [[cells[1 + rows.index(a)][1 + header.index(b)] for b in names.names] for a in names.names]
    if len(cells) != classes or {len(row) for row in cells} != {classes}:
        raise InputError(
            f"{path} holds no {classes} × {classes} matrix: give a row and a column for each of the labels "
            f"{listing(names.names)}."
        )
    try:
        return np.array(cells, dtype=np.float64)
    except (TypeError, ValueError) as error:
        raise InputError(f"{path} holds a cell that is no number ({error}): mend it there.") from error


def _cells(path: Path) -> list[list[Any]]:
    """Rows of a CSV or JSON file, all of one length; named rows below a header."""
    try:
        text = decode(path.read_bytes(), str(path))
    except OSError as error:
        raise InputError(
            f"Cannot read {str(path)!r}: {(error.strerror or str(error)).lower()}; check the path."
        ) from error
    cells: Any
    if path.suffix.lower() == ".json":
        try:
            cells = json.loads(text)
        except (ValueError, RecursionError) as error:
            raise InputError(f"{path} is no JSON ({error}): mend it there.") from error
        if isinstance(cells, dict) and all(isinstance(row, dict) for row in cells.values()):
            columns = list(dict.fromkeys(name for row in cells.values() for name in row))
            cells = [
                ["", *columns],
                *([name, *(row.get(column) for column in columns)] for name, row in cells.items()),
            ]
    elif path.suffix.lower() == ".csv":
        cells = [row for row in csv.reader(io.StringIO(text, newline="")) if row]
    else:
        raise InputError(f"{path} is no matrix file: give one that ends in .csv or .json.")
    if not isinstance(cells, list) or not all(isinstance(row, list) and row for row in cells):
        raise InputError(f"{path} holds no matrix: write a list of rows, or an object of objects by label.")
    if len({len(row) for row in cells}) > 1:
        raise InputError(f"{path} has rows of unequal length: give each a number for every label.")
    return cells


def _parse_map(pairs: Sequence[str], names: LabelNames) -> dict[int, int]:
    mapping: dict[int, int] = {}
    for pair in pairs:
        # every "=" may be the one between, as names may hold one too
        splits = [(pair[:i], pair[i + 1 :]) for i, sign in enumerate(pair) if sign == "="]
        fitting = [split for split in splits if set(split) <= set(names.names)]
        if len(fitting) != 1:
            raise InputError(
                f"--map {pair!r} does not name two labels: write a=b with two of {listing(names.names)}."
            )
        given, flipped = names.encode(fitting[0]).tolist()
        if given in mapping:
            raise InputError(f"--map names {fitting[0][0]!r} twice: a label flips to one other only.")
        mapping[given] = flipped
    return mapping
