"""Rules that labels go wrong by."""

import numpy as np
import pytest
from hypothesis import given as examples
from hypothesis import strategies as st

from clear_peft.review.patterns import patterns

TEXTS = [f"How many {i}?" for i in range(10)] + [f"who is {i}" for i in range(10)]
GIVEN = np.zeros(20, np.int64)


def _verified(answers, size=20):
    verified = np.full(size, -1)
    verified[list(answers)] = list(answers.values())
    return verified


def test_words_with_one_wrong_label_are_found_with_the_rows_not_looked_at():
    (one,) = patterns(TEXTS, GIVEN, _verified({0: 1, 1: 1, 2: 1, 12: 0}))
    assert (one.words, one.given, one.true, one.seen) == ("how many", 0, 1, 3)
    assert one.rows == tuple(range(3, 10))


@pytest.mark.parametrize(
    "answers",
    [
        {0: 1, 1: 1},  # two rows may be chance
        {0: 1, 1: 1, 2: 2},  # wrong in several ways
        {0: 1, 1: 1, 2: 1, 3: 0},  # one was right
        dict.fromkeys(range(6), 1),  # four rows are left: they are quicker looked at
        {},
    ],
)
def test_no_pattern(answers):
    assert patterns(TEXTS, GIVEN, _verified(answers)) == []


def test_only_rows_with_the_same_given_label_belong_to_a_pattern():
    given = GIVEN.copy()
    given[8:10] = 3
    (one,) = patterns(TEXTS, given, _verified({0: 1, 1: 1, 2: 1}))
    assert one.rows == tuple(range(3, 8))


def test_the_share_of_wrong_rows_is_at_least_what_a_binomial_says():
    (one,) = patterns(TEXTS, GIVEN, _verified({0: 1, 1: 1, 2: 1, 3: 1, 4: 1}))
    # of rows of which this share is wrong, five of five are wrong in one case of twenty
    assert one.at_least**5 == pytest.approx(0.05)


@examples(
    texts=st.lists(st.text("ab ", max_size=8), min_size=1, max_size=40),
    seed=st.integers(0, 9),
)
def test_patterns_share_no_rows_and_hold_for_all_answers(texts, seed):
    rng = np.random.default_rng(seed)
    given = rng.integers(0, 2, len(texts))
    verified = np.where(rng.random(len(texts)) < 0.4, 1 - given, -1)
    found = patterns(texts, given, verified)
    rows = [row for one in found for row in one.rows]
    assert len(rows) == len(set(rows))
    for one in found:
        assert all(verified[row] < 0 and given[row] == one.given for row in one.rows)
        assert all(one.words in " ".join(texts[row].split()) for row in one.rows)
