"""What ``train``, ``predict`` and ``evaluate`` do.

The tables are read and checked first, without torch unless a device is named: what is wrong with them is said
within seconds.
"""

import os
import warnings
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from clear_peft.data import Examples, LabelNames, check_output, load_examples, read_table, write_table
from clear_peft.data.checks import listing, row_listing
from clear_peft.data.token_rows import first_words, token_columns, words_of
from clear_peft.errors import ClearWarning, InputError
from clear_peft.hardware import check_device
from clear_peft.lazy import quick_imports
from clear_peft.pipeline.splits import read_tables
from clear_peft.run_folder import layout
from clear_peft.run_folder.config import RunConfig
from clear_peft.run_folder.training_settings import check_training

if TYPE_CHECKING:
    from clear_peft.pipeline.progress import Reporter


def train(
    config: RunConfig,
    *,
    resume: bool = False,
    overwrite: bool = False,
    reporter: "Reporter | None" = None,
) -> dict[str, Any] | None:
    """Train, choose the epoch on the (noisy) validation rows, and write the run folder.

    Nothing is written before every input has been checked. Of several processes (torchrun, accelerate launch)
    the first one writes and reports.

    Args:
        config: The run.
        resume: Carry on an interrupted run with the same configuration. Default False.
        overwrite: Whether the output may replace an earlier run. Default False.
        reporter: Told of the progress. Default: nobody.

    Returns:
        What ``metrics.json`` holds; None on the other processes.

    Raises:
        InputError: If anything given is wrong; the sentence says what and how to mend it.
    """
    layout.check(config, resume=resume, overwrite=overwrite)
    check_training(config.training)
    check_device(config.device)
    if reporter is not None and os.environ.get("RANK", "0") == "0":
        reporter.stage(f"Reading {config.data}")
    tables = read_tables(config)
    with quick_imports():
        from clear_peft.pipeline.training import train_on  # torch: seconds

    return train_on(config, tables, resume=resume, reporter=reporter)


def evaluate(
    folder: str | os.PathLike[str],
    data: str,
    *,
    text_column: str | list[str] | None = None,
    label_column: str | None = None,
    encoding: str | None = None,
    device: str = "auto",
    trust_remote_code: bool = False,
) -> dict[str, Any]:
    """Measure a finished run on a table with right labels.

    Args:
        folder: Run folder.
        data: Table with texts and labels; rows without a label are left out.
        text_column: Column of the texts. Default: as in the run's own table.
        label_column: Column of the labels. Default: as in the run's own table, in whose form labels are.
        encoding: Of the table. Default: as of the run's own table.
        device: Where the model runs, as for ``clear_peft.hardware.choose_device``. Default ``auto``.
        trust_remote_code: Whether code that comes with the model may run. Default False.

    Returns:
        ``accuracy`` and ``macro_f1`` (the mean over the classes that occur), fractions; ``examples``, the
        number of rows; ``classes``, of each ``label``, ``precision``, ``recall``, ``f1`` (0 where it is not
        defined) and ``support``, the number of its rows; ``confusion_matrix``, numbers of rows: a list for
        each right label, by predicted label, in the order of ``classes``. Of several labels a row what
        ``clear_peft.pipeline.metrics.label_set_evaluation`` returns, of labels of words ``word_evaluation``
        there.

    Raises:
        InputError: If the folder or the table is not what it should be, or there is no such device.
    """
    config, names = layout.read_finished(folder)
    if label_column is not None and config.label_columns:
        raise InputError(
            f"The run's labels are columns of 0 and 1 ({listing(config.label_columns)}), which the table "
            "must have too: leave --label-column out."
        )
    check_device(device)
    reading = reading_of(config, text_column=text_column, label_column=label_column, encoding=encoding)
    table = load_examples(data, **reading, names=names, set_apart=True)
    with quick_imports():
        from clear_peft.pipeline.inference import load_run  # torch: seconds
    from clear_peft.pipeline.metrics import evaluation, label_set_evaluation, word_evaluation

    examples = table.examples
    assert examples.labels is not None  # a label column was asked for
    run = load_run(folder, device=device, trust_remote_code=trust_remote_code)
    logits = run.logits(examples)
    if names.several:
        return label_set_evaluation(logits, examples.labels, names.names)
    if examples.words is not None:
        labels, first = np.concatenate(examples.labels), first_words(examples.words)
        return word_evaluation(logits.argmax(axis=1), labels, first, names.names)
    return evaluation(logits.argmax(axis=1), examples.labels, names.names)


def predict(
    folder: str | os.PathLike[str],
    data: str,
    output: str,
    *,
    text_column: str | list[str] | None = None,
    encoding: str | None = None,
    top: int = 1,
    probabilities: bool = False,
    overwrite: bool = False,
    device: str = "auto",
    trust_remote_code: bool = False,
) -> int:
    """Write a table with the columns of the input, ``predicted_label`` and ``confidence``, its probability.

    Of several labels a row it is one column, ``predicted_labels``: all whose probability is above one half,
    with what stands between the labels of the run's own table, else a semicolon. Where words have labels,
    ``predicted_tags`` and ``confidence`` are lists, of a tag and its probability for each word.

    Args:
        folder: Run folder.
        data: Table with texts; where one is empty, so is what is predicted.
        output: CSV, TSV, JSONL or Parquet file to write.
        text_column: Column of the texts. Default: as in the run's own table.
        encoding: Of the table. Default: as of the run's own table.
        top: K, how many of the likeliest classes are written: further ones as ``predicted_label_2``,
            ``confidence_2`` and so on. Default 1, as it must be of several labels a row and of words.
        probabilities: Whether a column ``probability_<class>`` is written for each class. Default False, as
            it must be of words.
        overwrite: Whether it may be there already. Default False.
        device: Where the model runs, as for ``clear_peft.hardware.choose_device``. Default ``auto``.
        trust_remote_code: Whether code that comes with the model may run. Default False.

    Returns:
        The number of rows that were predicted.

    Raises:
        InputError: If the folder, the table or K is not what it should be, there is no such device, or the
            output cannot be written.
    """
    check_output(output, [data], overwrite=overwrite)
    config, names = layout.read_finished(folder)
    check_top(top, names)
    check_device(device)
    if names.words:
        if probabilities:
            raise InputError("--probabilities is for labels of whole texts, and the run's are of words.")
        reading = reading_of(config, text_column=text_column, encoding=encoding)
        return _predict_words(folder, data, output, reading, device, trust_remote_code)
    reading = reading_of(config, text_column=text_column, encoding=encoding)
    table = load_examples(data, **{**reading, "label_column": None}, set_apart=True)
    check_new_columns(table.frame.columns, names, data, top, probabilities)
    with quick_imports():
        from clear_peft.pipeline.inference import load_run  # torch: seconds

    frame, rows = table.frame, table.examples.rows
    empty = np.setdiff1d(np.arange(len(frame)), rows)
    if len(empty):
        message = f"{data!r}: the text is empty in {row_listing(empty.tolist())}: nothing is predicted there."
        warnings.warn(message, ClearWarning, stacklevel=2)
    separator = config.label_separator or ";"
    say_if_ambiguous(names, separator)
    found = load_run(folder, device=device, trust_remote_code=trust_remote_code).probabilities(table.examples)
    write_table(with_predictions(frame, rows, found, names, top, probabilities, separator), output)
    return len(rows)


def _predict_words(
    folder: str | os.PathLike[str],
    data: str,
    output: str,
    reading: dict[str, Any],
    device: str,
    trust_remote_code: bool,
) -> int:
    """``predict`` where words have labels."""
    frame = read_table(data, encoding=reading["encoding"])
    columns = token_columns(frame, reading["text_column"], reading["label_column"])
    words = words_of(frame, data, columns[0] if columns else str(reading["text_column"]))
    new = ("predicted_tags", "confidence")
    taken = sorted({*new} & set(frame.columns))
    if taken:
        raise InputError(f"{data!r} has {listing(taken)} among its columns already: rename what is there.")
    with quick_imports():
        from clear_peft.pipeline.inference import load_run  # torch: seconds

    run = load_run(folder, device=device, trust_remote_code=trust_remote_code)
    texts = [" ".join(sentence) for sentence in words]
    found = run.probabilities(Examples(texts, None, np.arange(len(words)), words=words))
    ends = np.cumsum([len(sentence) for sentence in words])[:-1]
    tags = np.array(run.names.names, dtype=object)[found.argmax(axis=1)]
    confidence = found.max(axis=1).astype(np.float64).round(6)
    for name, values in zip(new, (tags, confidence), strict=True):
        lists = [part.tolist() for part in np.split(values, ends)]
        frame = frame.assign(**{name: pd.Series(lists, index=frame.index, dtype=object)})
    write_table(frame, output)
    return len(words)


def check_top(top: int, names: LabelNames) -> None:
    """Refuse more classes than there are, and more than one where a row has several labels."""
    if names.words and top != 1:
        raise InputError(f"top is {top}, which is for labels of whole texts: leave it out.")
    if names.several and top != 1:
        raise InputError(
            f"top is {top}, which is for one label a row: leave it out; --probabilities has all labels."
        )
    if not 1 <= top <= len(names.names):
        raise InputError(
            f"top is {top}: give a whole number from 1 to {len(names.names)}, as there are classes."
        )


def check_new_columns(
    columns: Iterable[str], names: LabelNames, data: str, top: int, probabilities: bool
) -> None:
    """Refuse a table that has a column already which ``with_predictions`` would add."""
    taken = sorted({*_of_labels(names, top), *_of_classes(names, probabilities)} & set(columns))
    if taken:
        raise InputError(f"{data!r} has {listing(taken)} among its columns already: rename what is there.")


def say_if_ambiguous(names: LabelNames, separator: str) -> None:
    """Warn of labels that hold what stands between those of a row that has several."""
    holding = [name for name in names.names if names.several and separator in name]
    if holding:
        message = (
            f"{separator!r} stands between predicted labels, and in {listing(holding)} too: read the columns "
            "of --probabilities instead."
        )
        warnings.warn(message, ClearWarning, stacklevel=3)


def with_predictions(
    frame: pd.DataFrame,
    rows: np.ndarray,
    found: np.ndarray,
    names: LabelNames,
    top: int,
    probabilities: bool,
    separator: str,
) -> pd.DataFrame:
    """A table with what is predicted.

    Args:
        frame: N rows.
        rows: Positions of those that are predicted, (M,).
        found: Their probabilities, (M, C) float32.
        names: Names of the C classes.
        top: As for ``predict``.
        probabilities: Whether each class has a column.
        separator: Between the labels of a row that has several.
    """
    from clear_peft.pipeline.inference import likeliest  # torch: seconds

    new, columns = iter(_of_labels(names, top)), {}
    if names.several:
        columns[next(new)] = pd.Series(_joined(found, names, separator), index=rows, dtype="str")
    else:
        for confidence, predicted in zip(*(best.T for best in likeliest(found, top)), strict=True):
            labels = [names.names[i] for i in predicted.tolist()]
            columns[next(new)] = pd.Series(labels, index=rows, dtype="str")
            columns[next(new)] = _rounded(confidence, rows)
    for name, column in zip(_of_classes(names, probabilities), found.T, strict=False):
        columns[name] = _rounded(column, rows)
    return pd.concat([frame, pd.DataFrame(columns, index=frame.index)], axis=1)


def _of_labels(names: LabelNames, top: int) -> list[str]:
    if names.several:
        return ["predicted_labels"]
    places = ["", *(f"_{place}" for place in range(2, top + 1))]
    return [f"{what}{place}" for place in places for what in ("predicted_label", "confidence")]


def _of_classes(names: LabelNames, probabilities: bool) -> list[str]:
    return [f"probability_{name}" for name in names.names] if probabilities else []


def _joined(probabilities: np.ndarray, names: LabelNames, separator: str) -> list[str]:
    """The labels of each row that are likelier to apply than not, of probabilities (N, C)."""
    labels = np.array(names.names, dtype=object)
    return [separator.join(labels[applies]) for applies in probabilities > 0.5]


def _rounded(probability: np.ndarray, rows: np.ndarray) -> pd.Series:
    return pd.Series(probability.astype(np.float64).round(6), index=rows)


def reading_of(config: RunConfig, **given: Any) -> dict[str, Any]:
    """How a table is read: as those of the run, but for what is given."""
    return {**config.reading, **{name: value for name, value in given.items() if value is not None}}
