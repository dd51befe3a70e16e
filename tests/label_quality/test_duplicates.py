"""Texts that are the same, or nearly: grouped in every order, told from those that only look related."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from clear_peft.label_quality import duplicate_groups

CITIES = ("Lagos", "Oslo", "Lima", "Cairo", "Hanoi")
SENTENCE = "the harvest was brought in before the storm reached the valley on a monday"


@pytest.mark.parametrize(
    ("first", "second", "same"),
    [
        ("Hello,  World!", "hello world", True),
        ("ＨＥＬＬＯ world", "hello world", True),
        ("straße", "STRASSE", True),
        ("a\u200bb", "ab", True),
        ("line\none", "line one", True),
        ("?!", "?!", True),
        ("?!", "!!", False),
        ("", "", True),
        ("😀", "😡", False),
        ("c++", "c", False),
        ("yes", "no", False),
        (SENTENCE, SENTENCE.replace("storm", "stormy"), True),
        (SENTENCE, SENTENCE.replace("harvest", "harvset"), True),
        (SENTENCE, SENTENCE.replace("harvest was brought", "cattle were driven"), False),
        ("I want to activate my card", "I want to cancel my card", False),
    ],
)
def test_a_pair(first, second, same):
    groups = duplicate_groups([first, "something else altogether", second])
    assert groups.tolist() == ([0, -1, 0] if same else [-1, -1, -1])


def test_near_duplicates_are_found_among_thousands():
    rng = np.random.default_rng(0)
    words = ["".join(rng.choice(list("abcdefghijklm"), 6)) for _ in range(500)]
    texts = [" ".join(rng.choice(words, 10)) for _ in range(2000)]
    twins = []
    for i in rng.choice(2000, 60, replace=False):
        cut = rng.integers(0, len(texts[i]))
        twins.append((i, len(texts)))
        texts.append(texts[i][:cut] + "z" + texts[i][cut + 1 :])
    groups = duplicate_groups(texts)
    assert all(groups[i] == groups[j] >= 0 for i, j in twins)
    assert (groups >= 0).sum() == 2 * len(twins)


def test_many_of_one_kind_are_one_group():
    groups = duplicate_groups([f"{SENTENCE} in {city} {i % 7}" for i, city in enumerate(CITIES * 200)])
    assert (groups[: len(CITIES)] == groups[len(CITIES) * 7 : len(CITIES) * 8]).all()
    assert (groups >= 0).all()


@settings(max_examples=40, deadline=None)
@given(st.lists(st.text(max_size=12) | st.sampled_from(["a b", "A  B", SENTENCE]), min_size=1, max_size=12))
def test_groups_do_not_depend_on_order_and_are_numbered_from_0(texts):
    groups = duplicate_groups(texts)
    assert groups.dtype == np.int64
    members = groups[groups >= 0]
    assert (np.bincount(members) > 1).all()
    assert list(dict.fromkeys(members.tolist())) == list(range(members.max(initial=-1) + 1))
    backwards = duplicate_groups(texts[::-1])[::-1]
    for i in range(len(texts)):
        for j in range(i):
            together = groups[i] == groups[j] >= 0
            assert together == (backwards[i] == backwards[j] >= 0)
            assert together or texts[i] != texts[j]
