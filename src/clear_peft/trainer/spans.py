"""Spans of words, such as named entities, by their tags: found, counted and compared."""

import re
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

_PREFIXES = {"B", "I", "E", "S"}
# BILOU has other letters for E and S; without a B, a tag like U-turn is a type
_BILOU = {"L", "U"}
_NUMBER = re.compile(r"[+-]?\d+", re.ASCII)

Bools = npt.NDArray[np.bool_]
Ints = npt.NDArray[np.integer]


@dataclass(frozen=True, eq=False)
class SpanScheme:
    """What the C tags of words say of spans.

    ``B-PER`` begins a span of type PER, ``I-PER`` is inside one, ``E-PER`` ends one and ``S-PER`` is one of
    its own. Where there are tags of ``B``, ``L-PER`` is read as ``E-PER`` and ``U-PER`` as ``S-PER``, as
    BILOU has it. So it is with bare letters where there are no other tags. What has no such prefix is a type
    itself, and neighbours that have it are one span. ``O`` is outside of all spans; so is ``0`` where all
    tags are whole numbers.

    Attributes:
        types: Names of the types of spans.
        kind: Type of each tag, a place in ``types``, (C,) int64; -1 outside of spans.
        begins: Whether a span begins with the tag, whatever comes before, (C,).
        ends: Whether a span ends with the tag, whatever comes after, (C,).
    """

    types: tuple[str, ...]
    kind: Ints
    begins: Bools
    ends: Bools

    @classmethod
    def of(cls, names: Sequence[str]) -> "SpanScheme":
        """Read the names of the C tags."""
        begun = any(name[:2] in ("B", "B-") for name in names)
        prefixes = _PREFIXES | _BILOU if begun else _PREFIXES
        bare, outside = set(names) <= {*prefixes, "O"}, {"O"}
        if all(_NUMBER.fullmatch(name) for name in names):
            outside = {"0"}
        parts = [_parts(name, prefixes, bare) for name in names]
        types = sorted({kind for name, (_, kind) in zip(names, parts, strict=True) if name not in outside})
        place = {kind: i for i, kind in enumerate(types)}
        return cls(
            tuple(types),
            np.array([-1 if n in outside else place[k] for n, (_, k) in zip(names, parts, strict=True)]),
            np.array([prefix in ("B", "S", "U") for prefix, _ in parts]),
            np.array([prefix in ("E", "S", "L", "U") for prefix, _ in parts]),
        )

    def spans(self, tags: Ints, first: Bools) -> npt.NDArray[np.int64]:
        """The spans of W words, as conlleval and seqeval (by default) find them.

        A span goes on as long as the type does. A tag that is inside of a span which nothing began, or which
        is of another type, begins one.

        Args:
            tags: Ids, (W,).
            first: Whether a word is the first of its sentence, (W,).

        Returns:
            (S, 3): begin, end (exclusive) and type, in the order of the words.
        """
        kind = self.kind[tags]
        alone = np.append(True, (kind[1:] != kind[:-1]) | self.ends[tags[:-1]]) if len(tags) else first
        begin = (kind >= 0) & (first | self.begins[tags] | alone)
        over = np.append((begin | (kind < 0))[1:], True)[: len(tags)]
        starts, ends = np.flatnonzero(begin), np.flatnonzero((kind >= 0) & over) + 1
        return np.stack([starts, ends, kind[starts]], axis=1).astype(np.int64)


def _parts(name: str, prefixes: set[str], bare: bool) -> tuple[str, str]:
    """Prefix and type of a tag."""
    if bare:
        return name, ""
    prefix, dash, kind = name.partition("-")
    return (prefix, kind) if dash and prefix in prefixes else ("", name)


def span_counts(
    scheme: SpanScheme, predicted: Ints, labels: Ints, first: Bools
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """Spans of each type: right ones, those that are predicted, and those that there are, (K,) each.

    A span is right where begin, end and type are.

    Args:
        scheme: Of the tags, with K types.
        predicted: Tags of W words, (W,).
        labels: Their right tags, (W,).
        first: Whether a word is the first of its sentence, (W,).
    """
    said, true = scheme.spans(predicted, first), scheme.spans(labels, first)
    # no two spans of one side begin together
    ends, kinds = np.full(len(labels), -1), np.full(len(labels), -1)
    ends[true[:, 0]], kinds[true[:, 0]] = true[:, 1], true[:, 2]
    right = said[(ends[said[:, 0]] == said[:, 1]) & (kinds[said[:, 0]] == said[:, 2])]
    found, listed, all_true = (
        np.bincount(part[:, 2], minlength=len(scheme.types)) for part in (right, said, true)
    )
    return found, listed, all_true


def word_figures(predicted: Ints, labels: Ints, first: Bools, scheme: SpanScheme) -> dict[str, float]:
    """``accuracy``, the share of words with the right tag, and ``span_f1``, of all spans together (micro-F1).

    F1 is 0 where no span is right, also where there is none. Arguments as for ``span_counts``.
    """
    right, said, true = (int(counts.sum()) for counts in span_counts(scheme, predicted, labels, first))
    return {
        "accuracy": float((predicted == labels).mean()),
        "span_f1": 2 * right / (said + true) if right else 0.0,
    }
