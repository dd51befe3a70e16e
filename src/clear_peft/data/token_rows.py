"""Sentences whose words have labels, checked cell by cell."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from clear_peft.data.checks import brief, row_listing
from clear_peft.data.columns import check_column
from clear_peft.data.labels import LabelNames, label_text
from clear_peft.errors import InputError

_TOKENS, _TAGS = "tokens", ("tags", "ner_tags")
_LIST = list | tuple | np.ndarray


@dataclass(frozen=True, eq=False)
class Sentences:
    """N sentences, W words in all.

    Attributes:
        words: Of each sentence, at least one.
        tags: Ids of the given tags of all words, sentence after sentence, (W,) int64.
        names: Of the tags.
    """

    words: list[list[str]]
    tags: npt.NDArray[np.int64]
    names: LabelNames

    def __len__(self) -> int:
        return len(self.words)

    @property
    def sizes(self) -> npt.NDArray[np.int64]:
        """Words of each sentence, (N,)."""
        return np.array([len(words) for words in self.words], np.int64)


def token_columns(
    frame: pd.DataFrame, text_column: str | Sequence[str], label_column: str
) -> tuple[str, str] | None:
    """Columns of the words and of their tags; None where the table has whole texts.

    Args:
        frame: The table.
        text_column: As for whole texts. Where there is no ``text``, it is ``tokens``.
        label_column: As for whole texts. Where there is no ``label``, it is ``tags`` or ``ner_tags``.
    """
    tokens = _TOKENS if text_column == "text" and "text" not in frame.columns else text_column
    if not isinstance(tokens, str) or tokens not in frame.columns:
        return None
    if not any(isinstance(cell, _LIST) for cell in frame[tokens].head(100)):
        return None
    known = [name for name in _TAGS if name in frame.columns]
    default = label_column == "label" and "label" not in frame.columns and known
    return tokens, known[0] if default else label_column


def sentences_of(
    frame: pd.DataFrame, name: str, tokens: str, tags: str, names: LabelNames | None = None
) -> Sentences:
    """Check words and tags, a list of each in every row.

    Args:
        frame: N rows.
        name: Where they come from, for sentences.
        tokens: Column of the words.
        tags: Column of their tags.
        names: Of the tags. Default: those that occur, of which there must be two.

    Raises:
        InputError: If a column is missing, a cell is no list, there is not one tag for each word, a word is
            no text, a tag is missing or none of the names, a sentence has no words, or there are fewer than
            two different tags.
    """
    check_column(frame, tags, name)
    words = words_of(frame, name, tokens)
    given: list[str] = []
    for row, theirs in enumerate(frame[tags]):
        place = f"{name!r}, {row_listing([row])}"
        labels = _list(theirs, f"{place}, column {tags!r}", "tags")
        if len(labels) != len(words[row]):
            raise InputError(
                f"{place}: there are {len(words[row])} words and {len(labels)} tags; give a tag for each."
            )
        given += [_tag(label, place) for label in labels]
    if names is None:
        names = replace(LabelNames.fit(given), words=True)
        if len(names.names) < 2:
            raise InputError(f"{name!r}: all words have the tag {names.names[0]!r}; give two different tags.")
    try:
        return Sentences(words, names.encode(given), names)
    except InputError as error:
        raise InputError(f"{name!r}, column {tags!r}: {error}") from error


def words_of(frame: pd.DataFrame, name: str, tokens: str) -> list[list[str]]:
    """Check words, a list in every row; arguments as for ``sentences_of``.

    Raises:
        InputError: If the column is missing, a cell is no list, a word is no text, or a sentence has none.
    """
    check_column(frame, tokens, name)
    words = []
    for row, cell in enumerate(frame[tokens]):
        place = f"{name!r}, {row_listing([row])}"
        words.append(_list(cell, f"{place}, column {tokens!r}", "words"))
        if not words[-1]:
            raise InputError(f"{place}: there are no words; leave the sentence out.")
        for word in words[-1]:
            if not isinstance(word, str) or "\0" in word:
                raise InputError(f"{place}: {brief(word)} is no word; write words as text, without NUL.")
    return words


def first_words(sentences: Sequence[Sequence[str]]) -> npt.NDArray[np.bool_]:
    """Whether each of all words is the first of its sentence, (W,)."""
    sizes = np.array([len(words) for words in sentences], np.int64)
    first = np.zeros(sizes.sum(), bool)
    first[np.cumsum(sizes) - sizes] = True
    return first


def ranges(starts: npt.NDArray[np.integer], sizes: npt.NDArray[np.integer]) -> npt.NDArray[np.int64]:
    """Whole numbers from each start, so many, one after the other."""
    begins = np.cumsum(sizes) - sizes
    return np.arange(int(sizes.sum())) + np.repeat(starts - begins, sizes)


def _list(cell: Any, place: str, what: str) -> list[Any]:
    if not isinstance(cell, _LIST):
        raise InputError(f"{place}: {brief(cell)} is no list; give a list of {what} in each row.")
    return cell.tolist() if isinstance(cell, np.ndarray) else list(cell)


def _tag(label: Any, place: str) -> str:
    try:
        name = label_text(label)
    except TypeError as error:
        raise InputError(f"{place}: {error}; write tags as text or whole numbers.") from error
    if name is None or "\0" in name:
        raise InputError(f"{place}: {brief(label)} is no tag; give each word one, without NUL.")
    return name
