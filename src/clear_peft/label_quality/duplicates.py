"""Rows that say the same: equal texts, and texts that share nearly all their pieces."""

import unicodedata
from collections.abc import Iterable, Sequence
from functools import cache, lru_cache
from typing import Any

import numpy as np
import pandas as pd
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

_THRESHOLD = 0.8
_PIECE = 4
# At a similarity of 0.8 a pair agrees in no band once in 37,000 times.
_BANDS, _BAND_SIZE = 20, 4
# Signatures that agree less belong to pairs below the threshold: it is six standard errors away.
_WORTH_A_LOOK = 0.55
# bounds the memory: characters of the texts, and pairs of signatures, that are looked at together
_CHARACTERS = 2**20
_PAIRS = 2**16
_SEED = 0


def duplicate_groups(texts: Sequence[str]) -> np.ndarray:
    """Group texts that are the same, or nearly.

    Texts are equal if they are so after Unicode NFKC and case folding, with runs of white space and
    punctuation taken as one space. They are near duplicates if the sets of their four-character pieces,
    after the same changes, have a Jaccard similarity of at least 0.8: a letter or two in a line, a word in
    a paragraph. A group is what such pairs connect, so its ends may be less alike.

    Pairs are found by MinHash (Broder 1997) in time linear in the length of all texts, and then compared
    exactly: none is grouped that is less alike, and one in many thousands may be missed.

    Args:
        texts: N texts.

    Returns:
        Group of each text, (N,) int64, numbered from 0 in the order of their first texts; -1 for a text
        that is alone.
    """
    return _groups_of(tuple(texts)).copy()


# a table is asked about by its judgement, its audit, and in every round of a review
@lru_cache(maxsize=1)
def _groups_of(texts: tuple[str, ...]) -> np.ndarray:
    codes, distinct = pd.factorize(np.array([_normalised(text) for text in texts], dtype=object))
    signatures = np.concatenate([np.zeros((0, _BANDS * _BAND_SIZE), np.uint32), *_signatures(distinct)])
    first, second = _near(distinct, *_candidates(signatures))
    links = coo_array((np.ones(len(first)), (first, second)), shape=(len(distinct), len(distinct)))
    component = connected_components(links, directed=False)[1][codes]
    shared = np.bincount(component)[component] > 1
    groups = np.full(len(codes), -1, np.int64)
    groups[shared] = pd.factorize(component[shared])[0]
    return groups


class _Plain(dict[int, str | None]):
    """What ``str.translate`` makes of each character, found when it is first met."""

    def __missing__(self, code: int) -> str | None:
        category = unicodedata.category(chr(code))
        if category == "Cf":  # marks of direction and the like, which are not seen
            self[code] = None
        else:
            self[code] = " " if category[0] in "PZC" else chr(code)
        return self[code]


_PLAIN = _Plain()


def _normalised(text: str) -> str:
    folded = unicodedata.normalize("NFKC", unicodedata.normalize("NFKC", text).casefold())
    # a text of punctuation alone, such as "?!", is still a text
    return " ".join(folded.translate(_PLAIN).split()) or " ".join(folded.split())


@cache
def _vectorizer() -> Any:
    from sklearn.feature_extraction.text import HashingVectorizer  # a second, and not for every command

    return HashingVectorizer(
        analyzer="char",
        ngram_range=(_PIECE, _PIECE),
        n_features=2**30,
        lowercase=False,
        binary=True,
        norm=None,
        alternate_sign=False,
        dtype=np.float32,
    )


def _pieces(texts: Iterable[str]) -> Any:
    """One row for each text, one column for each piece that occurs."""
    # with its ends marked, a text of a single character has pieces too
    return _vectorizer().transform(f"\2\2{text}\3\3".encode("utf-8", "replace").decode() for text in texts)


def _signatures(texts: np.ndarray) -> list[np.ndarray]:
    """MinHash signatures, (M, 80) uint32, of each chunk of texts."""
    rng = np.random.default_rng(_SEED)
    count = _BANDS * _BAND_SIZE
    factors = rng.integers(0, 2**63, count, dtype=np.uint64) * np.uint64(2) + np.uint64(1)
    shifts = rng.integers(0, 2**63, count, dtype=np.uint64)
    chunks = []
    for part in _parts(texts):
        pieces = _pieces(texts[part])
        hashed, ends = pieces.indices.astype(np.uint64), pieces.indptr[:-1]
        minima = [
            np.minimum.reduceat((hashed * a + b) >> np.uint64(32), ends)
            for a, b in zip(factors, shifts, strict=True)
        ]
        chunks.append(np.stack(minima, axis=1).astype(np.uint32))
    return chunks


def _parts(texts: np.ndarray) -> list[np.ndarray]:
    """Positions of the texts in parts of about equal length; a very long text is a part by itself."""
    ends = np.cumsum([len(text) for text in texts])
    parts = np.split(np.arange(len(texts)), np.flatnonzero(np.diff(ends // _CHARACTERS)) + 1)
    return [part for part in parts if len(part)]


def _candidates(signatures: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Pairs that agree in all of a band; of many that do, each with the next, so that they stay few."""
    pairs = []
    for band in np.split(signatures, _BANDS, axis=1):
        order = np.lexsort(band.T)
        same = (band[order[1:]] == band[order[:-1]]).all(axis=1)
        pairs.append(np.sort(np.stack([order[:-1][same], order[1:][same]], axis=1), axis=1))
    first, second = np.unique(np.concatenate(pairs), axis=0).T
    likely = np.zeros(len(first), bool)
    for start in range(0, len(first), _PAIRS):
        part = slice(start, start + _PAIRS)
        agreement = (signatures[first[part]] == signatures[second[part]]).mean(axis=1)
        likely[part] = agreement >= _WORTH_A_LOOK
    return first[likely], second[likely]


def _near(texts: np.ndarray, first: np.ndarray, second: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The pairs whose Jaccard similarity reaches the threshold."""
    near = np.zeros(len(first), bool)
    for part in _parts(texts[first]):
        one, other = _pieces(texts[first[part]]), _pieces(texts[second[part]])
        shared = np.asarray(one.multiply(other).sum(axis=1)).ravel()
        union = np.diff(one.indptr) + np.diff(other.indptr) - shared
        near[part] = shared >= _THRESHOLD * union
    return first[near], second[near]
