"""CoNLL: a word and its tag on each line, a blank line after each sentence."""

import re

import pandas as pd

from clear_peft.errors import InputError

_SPACE = re.compile(r"[ \t]+")
# begins a document of CoNLL-2003
_DOCUMENT = "-DOCSTART-"


def parse(text: str, source: str) -> pd.DataFrame:
    """Parse sentences; lines that begin with ``-DOCSTART-`` end a sentence, too.

    Args:
        text: Content of the file: columns separated by spaces or tabs, the word first and the tag last.
        source: Name of the file, for sentences.

    Returns:
        A row for each sentence: ``tokens`` and ``tags``, lists of strings, and ``line``, the line of its
        first word, from 1.

    Raises:
        InputError: For a line with fewer than two columns, or another number of them than the first one, a
            NUL, or no word at all.
    """
    tokens: list[list[str]] = []
    tags: list[list[str]] = []
    lines: list[int] = []
    columns, inside = 0, False
    # Not splitlines(): a word may hold another line separator, such as U+2028.
    for number, line in enumerate(text.split("\n"), 1):
        cells = _SPACE.split(line.strip(" \t\r"))
        if cells == [""] or cells[0] == _DOCUMENT:
            inside = False
            continue
        where = f"{source!r}, line {number}"
        if "\0" in line:
            raise InputError(f"{where}: holds a NUL character; remove it.")
        columns = columns or len(cells)
        if len(cells) < 2:
            raise InputError(f"{where}: holds a word without a tag; write both, with a space or tab between.")
        if len(cells) != columns:
            raise InputError(
                f"{where}: holds {len(cells)} columns, but the first word has {columns}; write as many "
                "on each line."
            )
        if not inside:
            tokens.append([])
            tags.append([])
            lines.append(number)
            inside = True
        tokens[-1].append(cells[0])
        tags[-1].append(cells[-1])
    if not tokens:
        raise InputError(f"{source!r} holds no words; write a word and its tag on each line.")
    return pd.DataFrame(
        {
            "tokens": pd.Series(tokens, dtype=object),
            "tags": pd.Series(tags, dtype=object),
            "line": lines,
        }
    )
