"""Spans of words, beside a reading of their definition word by word."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from clear_peft.trainer.spans import SpanScheme, span_counts, word_figures

IOBES = ("O", *(f"{prefix}-{kind}" for prefix in "BIES" for kind in ("PER", "LOC")))


def conlleval(tags):
    """Spans of one sentence, as the script of the CoNLL shared tasks tells where one ends and one begins."""
    found, start, before = set(), None, ("O", "")
    for i, tag in enumerate([*tags, "O"]):
        prefix, _, kind = tag.partition("-")
        last, last_kind = before
        ends = (last, prefix) in {("B", "B"), ("B", "S"), ("B", "O"), ("I", "B"), ("I", "S"), ("I", "O")}
        ends |= last in ("E", "S") or (last != "O" and last_kind != kind)
        begins = prefix in ("B", "S")
        begins |= (last, prefix) in {("E", "E"), ("E", "I"), ("S", "E"), ("S", "I"), ("O", "E"), ("O", "I")}
        begins |= prefix != "O" and last_kind != kind
        if start is not None and ends:
            found.add((start, i, last_kind))
            start = None
        if begins:
            start = i
        before = (prefix, kind)
    return found


sentences = st.lists(st.lists(st.sampled_from(IOBES), min_size=1, max_size=8), min_size=1, max_size=4)


def flat(rows):
    tags = np.array([IOBES.index(tag) for row in rows for tag in row])
    return tags, np.concatenate([np.arange(len(row)) == 0 for row in rows])


@given(sentences)
def test_spans_are_those_of_conlleval(rows):
    scheme, (tags, first) = SpanScheme.of(IOBES), flat(rows)
    starts = np.flatnonzero(first)
    expected = {
        (start + begin, start + end, kind)
        for start, row in zip(starts, rows, strict=True)
        for begin, end, kind in conlleval(row)
    }
    found = scheme.spans(tags, first)
    assert {(begin, end, scheme.types[kind]) for begin, end, kind in found.tolist()} == expected
    assert len(found) == len(expected)


@given(sentences, st.data())
def test_a_span_is_right_if_all_of_it_is(rows, data):
    other = [[data.draw(st.sampled_from((tag, *IOBES))) for tag in row] for row in rows]
    scheme, (tags, first), (said, _) = SpanScheme.of(IOBES), flat(rows), flat(other)
    pairs = [(conlleval(a), conlleval(b)) for a, b in zip(other, rows, strict=True)]
    right, listed, true = (
        sum(len(a & b) for a, b in pairs),
        sum(len(a) for a, _ in pairs),
        sum(len(b) for _, b in pairs),
    )
    assert [counts.sum() for counts in span_counts(scheme, said, tags, first)] == [right, listed, true]
    found = word_figures(said, tags, first, scheme)
    assert found["accuracy"] == pytest.approx(np.mean(said == tags))
    precision, recall = right / max(listed, 1), right / max(true, 1)
    assert found["span_f1"] == pytest.approx(2 * precision * recall / (precision + recall) if right else 0.0)


BILOU = ("O", *(f"{prefix}-{kind}" for prefix in "BILU" for kind in ("LOC", "PER")))
pieces = st.tuples(st.integers(1, 4), st.sampled_from((None, "LOC", "PER")))


@given(st.lists(st.lists(pieces, min_size=1, max_size=5), min_size=1, max_size=4))
def test_spans_are_found_as_bilou_has_them_written(rows):
    """One word is U; more are B, I and L. Spans of one type may be neighbours."""
    tags, first, expected = [], [], []
    for row in rows:
        first += [True] + [False] * (sum(size for size, _ in row) - 1)
        for size, kind in row:
            if kind is None:
                tags += ["O"] * size
                continue
            expected.append((len(tags), len(tags) + size, kind))
            prefixes = "U" if size == 1 else "B" + "I" * (size - 2) + "L"
            tags += [f"{prefix}-{kind}" for prefix in prefixes]
    scheme = SpanScheme.of(BILOU)
    assert scheme.types == ("LOC", "PER")
    found = scheme.spans(np.array([BILOU.index(tag) for tag in tags]), np.array(first))
    assert [(begin, end, scheme.types[kind]) for begin, end, kind in found.tolist()] == expected


@given(sentences)
def test_bilou_is_iobes_with_other_letters(rows):
    """Also where a model has predicted what no scheme allows."""
    tags, first = flat(rows)
    renamed = [tag.replace("E-", "L-").replace("S-", "U-") for tag in IOBES]
    one, other = SpanScheme.of(IOBES), SpanScheme.of(renamed)
    assert one.types == other.types
    np.testing.assert_array_equal(one.spans(tags, first), other.spans(tags, first))


def test_the_example_of_seqeval():
    """From its README: two types, of which one is found with a word too many."""
    names = ("O", "B-MISC", "I-MISC", "B-PER", "I-PER")
    true = [["O", "O", "O", "B-MISC", "I-MISC", "I-MISC", "O"], ["B-PER", "I-PER", "O"]]
    said = [["O", "O", "B-MISC", "I-MISC", "I-MISC", "I-MISC", "O"], ["B-PER", "I-PER", "O"]]
    first = np.arange(10) % 7 == 0
    tags, predicted = (np.array([names.index(tag) for row in rows for tag in row]) for rows in (true, said))
    assert word_figures(predicted, tags, first, SpanScheme.of(names)) == {
        "accuracy": pytest.approx(0.8),
        "span_f1": pytest.approx(0.5),
    }


@pytest.mark.parametrize(
    ("names", "tags", "spans"),
    [
        # without a prefix, neighbours of a type are one span
        (("0", "1", "2"), [0, 1, 1, 2, 0, 2], [(1, 3, "1"), (3, 4, "2"), (5, 6, "2")]),
        (("O", "PER"), [1, 1, 0, 1, 1, 1], [(0, 2, "PER"), (3, 4, "PER"), (4, 6, "PER")]),
        (("B", "I", "O"), [0, 1, 0, 2, 1, 1], [(0, 2, ""), (2, 3, ""), (4, 6, "")]),
        # letters are prefixes only where there is nothing else
        (("I", "NN", "O"), [0, 0, 1, 2, 1, 0], [(0, 2, "I"), (2, 3, "NN"), (4, 5, "NN"), (5, 6, "I")]),
        (("B-a-b", "I-a-b", "O"), [0, 1, 1, 0, 2, 2], [(0, 3, "a-b"), (3, 4, "a-b")]),
        (("B", "L", "U", "O"), [0, 1, 2, 2, 3, 0], [(0, 2, ""), (2, 3, ""), (3, 4, ""), (5, 6, "")]),
        # L and U are prefixes only beside B
        (
            ("U-turn", "L-bend", "O"),
            [0, 0, 1, 1, 2, 0],
            [(0, 2, "U-turn"), (2, 4, "L-bend"), (5, 6, "U-turn")],
        ),
        (("U", "L", "O"), [0, 0, 1, 2, 1, 0], [(0, 2, "U"), (2, 3, "L"), (4, 5, "L"), (5, 6, "U")]),
    ],
)
def test_tags_of_other_forms(names, tags, spans):
    scheme, first = SpanScheme.of(names), np.array([True, False, False, False, names[1] == "PER", False])
    found = scheme.spans(np.array(tags), first)
    assert [(begin, end, scheme.types[kind]) for begin, end, kind in found.tolist()] == spans
