"""What else is wrong with a table, beside its labels."""

import re
from collections import Counter
from collections.abc import Mapping, Sequence

import numpy as np
import numpy.typing as npt
import pandas as pd

from clear_peft.label_quality.neighbours import neighbours

#: What is looked for, and what one and several of them are called in a sentence.
TABLE_ISSUES = {
    "near_duplicate": ("near duplicate", "near duplicates"),
    "outlier": ("outlier", "outliers"),
    "only_label_name": ("text that is only a label's name", "texts that are only a label's name"),
    "only_code": ("text that is only a number or code", "texts that are only a number or code"),
}
# Datalab's: of the share that each class has if all are of one size
_RARE = 0.1
# one word of ASCII with a digit; other scripts do without spaces
_CODE = re.compile(r"(?=.*[0-9])[A-Za-z0-9]+(?:[-_.:/#,+]+[A-Za-z0-9]+)*", re.ASCII)
_HEX = re.compile(r"[0-9a-f-]{8,}", re.ASCII | re.IGNORECASE)
_DIGITS = 1 / 3
# characters of a name or code; texts of many thousands are not looked through
_LONGEST = 200
_NO_WORD = re.compile(r"[\W_]+")


def said_issues(counts: Mapping[str, int]) -> str:
    """How many issues there are of each kind, as "1 outlier, 2 near duplicates"; empty where there is none.

    Args:
        counts: Issues by kind, a key of ``TABLE_ISSUES``.
    """
    found = ((counts.get(kind, 0), said) for kind, said in TABLE_ISSUES.items())
    return ", ".join(f"{count:,} {said[count != 1]}" for count, said in found if count)


def table_issues(
    texts: Sequence[str] | None,
    given: npt.NDArray[np.integer],
    names: Sequence[str],
    features: npt.NDArray[np.floating] | None,
    rows: npt.NDArray[np.integer],
) -> pd.DataFrame:
    """Find near duplicates, outliers, and texts that are only a label's name or a code.

    Near duplicates and outliers are those of cleanlab's Datalab, by its definitions and thresholds
    (``clear_peft.label_quality.neighbours``). A code is one word of ASCII letters and digits that occurs once
    in the table: a number, a UUID, a hash, or what has a digit in every three characters.

    Args:
        texts: N texts; None where the table has none.
        given: Ids of the given labels, (N,).
        names: Names of the classes.
        features: (N, D) or (N, V, D); None: near duplicates and outliers are not looked for.
        rows: Where the rows stand in the table, (N,), increasing.

    Returns:
        An entry for each issue of a row, by kind and then the worst first: ``issue`` (a key of
        ``TABLE_ISSUES``), ``row``, ``text``, ``given_label``, ``score`` (float64 in [0, 1], low is bad; NaN
        for texts), ``near_duplicate_of`` (Int64, the nearest row) and ``its_label``, both of near duplicates
        alone.
    """
    issues: list[str] = []
    places, scores = [np.empty(0, np.int64)], [np.empty(0)]

    def take(issue: str, which: npt.NDArray[np.bool_], score: npt.NDArray[np.float64] | None = None) -> None:
        place = np.flatnonzero(which)
        score = np.full(len(place), np.nan) if score is None else score[place]
        order = np.argsort(score, kind="stable")
        issues.extend([issue] * len(place))
        places.append(place[order])
        scores.append(score[order])

    nearest = np.arange(len(given))
    if features is not None and len(given) > 1:
        found = neighbours(features)
        nearest = found.rows[:, 0]
        take("near_duplicate", *found.near_duplicates())
        take("outlier", *found.outliers())
    if texts is not None:
        take("only_label_name", _are_label_names(texts, names))
        take("only_code", _are_codes(texts))
    place = np.concatenate(places)
    twin = np.array(issues, dtype=object) == "near_duplicate"
    label = np.array(names, dtype=object)[given]
    return pd.DataFrame(
        {
            "issue": pd.Series(issues, dtype=object),
            "row": rows[place],
            "text": pd.Series(["" if texts is None else texts[i] for i in place.tolist()], dtype=object),
            "given_label": label[place],
            "score": np.concatenate(scores).round(6),
            "near_duplicate_of": pd.Series(rows[nearest[place]], dtype="Int64").where(twin),
            "its_label": pd.Series(label[nearest[place]], dtype=object).where(twin, None),
        }
    )


def rare_classes(given: npt.NDArray[np.integer], names: Sequence[str]) -> list[str]:
    """Classes with a share of the rows below 0.1 / C, Datalab's threshold."""
    counts = np.bincount(given, minlength=len(names))
    return [names[i] for i in np.flatnonzero(counts < _RARE * len(given) / len(names)).tolist()]


def _words(text: str) -> str:
    return _NO_WORD.sub(" ", text[:_LONGEST]).strip().casefold()


def _are_label_names(texts: Sequence[str], names: Sequence[str]) -> npt.NDArray[np.bool_]:
    """Texts that are the name of a class, but for case, punctuation and white space."""
    known = {_words(name) for name in names} - {""}
    return np.array([len(text) < _LONGEST and _words(text) in known for text in texts], bool)


def _are_codes(texts: Sequence[str]) -> npt.NDArray[np.bool_]:
    """Texts that are codes, and that occur once."""
    counts = Counter(texts)
    return np.array([_is_code(text.strip()) and counts[text] == 1 for text in texts], bool)


def _is_code(text: str) -> bool:
    if len(text) > _LONGEST or not _CODE.fullmatch(text):
        return False
    digits = sum("0" <= character <= "9" for character in text)
    return bool(_HEX.fullmatch(text)) or digits >= _DIGITS * len(text)
