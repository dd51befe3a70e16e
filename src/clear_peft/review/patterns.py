"""Rules that labels go wrong by: words that come with one wrong label, again and again."""

import re
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

_WORD = re.compile(r"\w+")
_LONGEST = 3
# of each text; a rule that people or programs label by is mostly found at the beginning
_WORDS = 60
_FEWEST_SEEN, _FEWEST_ROWS = 3, 5
_CONFIDENCE = 0.95


@dataclass(frozen=True)
class Pattern:
    """Words that come with one wrong label.

    Attributes:
        words: One to three words in a row, in lower case.
        given: Class id that rows with these words were given.
        true: Class id that they have by all answers so far.
        rows: Further rows with these words and the given label, in the order of the table.
        seen: How many such rows were looked at; all of them were wrong in the same way.
    """

    words: str
    given: int
    true: int
    rows: tuple[int, ...]
    seen: int

    @property
    def at_least(self) -> float:
        """Lower end of the one-sided 95 % interval for the share of wrong labels (Clopper and Pearson).

        It holds for words that were named beforehand. Those that are chosen after the answers look better
        than they are: look at some of the rows first.
        """
        return float((1 - _CONFIDENCE) ** (1 / self.seen))


def patterns(
    texts: Sequence[str],
    given: npt.NDArray[np.integer],
    verified: npt.NDArray[np.integer],
    most: int = 5,
) -> list[Pattern]:
    """Find words that come with one wrong label.

    Words count where at least three verified rows have them together with one given label, where all of these
    rows truly are of one other class, and where five rows or more with that label are not verified yet.

    Args:
        texts: N texts; the first 60 words of each are read.
        given: Given labels, (N,).
        verified: True classes of verified rows, -1 elsewhere, (N,).
        most: How many patterns are returned, at the most. Default 5.

    Returns:
        Patterns with the most rows first. No row is in two of them.
    """
    wrong = np.flatnonzero((verified >= 0) & (verified != given))
    times: dict[tuple[str, int], int] = defaultdict(int)
    for row in wrong.tolist():
        for words in _phrases(texts[row]):
            times[words, int(given[row])] += 1
    wanted = {key for key, count in times.items() if count >= _FEWEST_SEEN}
    if not wanted:
        return []
    having: dict[tuple[str, int], list[int]] = defaultdict(list)
    phrases = {words for words, _ in wanted}
    for row in np.flatnonzero(np.isin(given, [label for _, label in wanted])).tolist():
        for words in _phrases(texts[row]) & phrases:
            if (words, int(given[row])) in wanted:
                having[words, int(given[row])].append(row)
    found = []
    for (words, label), places in having.items():
        rows = np.asarray(places)
        answers = verified[rows[verified[rows] >= 0]]
        true, further = int(answers[0]), rows[verified[rows] < 0]
        if true != label and (answers == true).all() and len(further) >= _FEWEST_ROWS:
            found.append(Pattern(words, label, true, tuple(further.tolist()), len(answers)))
    return _apart(sorted(found, key=lambda one: (-len(one.rows), -len(one.words), one.words)), most)


def _apart(found: Sequence[Pattern], most: int) -> list[Pattern]:
    """The first patterns that share no rows: "how many" and "many" are one."""
    taken: set[int] = set()
    kept: list[Pattern] = []
    for one in found:
        if len(kept) == most:
            break
        if taken.isdisjoint(one.rows):
            kept.append(one)
            taken.update(one.rows)
    return kept


def _phrases(text: str) -> set[str]:
    words = _WORD.findall(text.lower())[:_WORDS]
    return {
        " ".join(words[start : start + length])
        for length in range(1, _LONGEST + 1)
        for start in range(len(words) - length + 1)
    }
