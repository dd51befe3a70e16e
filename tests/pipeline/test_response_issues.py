"""Pairs of texts in, a ranked list out."""

import numpy as np
import pytest

from clear_peft import find_response_issues
from clear_peft.errors import InputError
from clear_peft.pipeline.packages import bbc_pairs, minilm
from tiny_text import KEYWORDS, tiny_checkpoint

CHAT = [{"role": "user", "content": "Hello"}, {"role": "assistant", "content": "Hello!"}]


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return str(tiny_checkpoint(tmp_path_factory.mktemp("model")))


def texts(size=120, seed=0):
    rng, words = np.random.default_rng(seed), [word for group in KEYWORDS.values() for word in group]
    about = rng.integers(len(words), size=(size, 2))
    prompts = [f"the old {words[a]} and the {words[b]}" for a, b in about]
    return prompts, [f"a great {words[a]} with a small {words[b]}" for a, b in about]


def test_swapped_responses_come_first(model):
    prompts, responses = texts()
    swapped = [responses[(i + 7) % 20] if i < 20 else response for i, response in enumerate(responses)]
    issues = find_response_issues(prompts, swapped, model=model, cache=False)
    assert list(issues) == ["row", "prompt", "response", "clean_probability", "is_response_issue"]
    assert sorted(issues["row"]) == list(range(120))
    assert (issues["row"].head(15) < 20).mean() > 0.8
    assert issues["prompt"].tolist() == [prompts[row] for row in issues["row"]]
    assert issues["response"].tolist() == [swapped[row] for row in issues["row"]]
    assert (issues["is_response_issue"] == (issues["clean_probability"] < 0.5)).all()


@pytest.mark.slow
def test_headlines_of_other_articles_are_found():
    news = bbc_pairs()
    news = news[news["label"] == "business"].head(200)
    given = news["response"].tolist()
    given[:40] = [*given[1:40], given[0]]
    articles = news["prompt"].str[:300]
    issues = find_response_issues(articles, given, model=str(minilm()), max_length=96, cache=False)
    listed = issues[issues["is_response_issue"]]
    assert (listed["row"] < 40).mean() > 0.8
    assert (issues["row"].head(40) < 40).mean() > 0.8


@pytest.mark.parametrize(
    ("prompts", "responses", "sentence"),
    [
        (["a"] * 30, ["b"] * 29, "30 prompts and 29 responses"),
        (["a"] * 30, [*["b"] * 29, " "], "The response of row 29 is empty"),
        (["a"] * 30, ["b", "", *["b"] * 27, " "], "row 1 is empty, and so are 1 more: leave such"),
        ([CHAT] * 30, ["b"] * 30, "The prompt of row 0 is a list: give texts, such as the content of"),
        (["a"] * 30, [*["b"] * 29, np.array(CHAT)], "The response of row 29 is a ndarray: give texts"),
        (["a"] * 30, [*["b"] * 29, float("nan")], "The response of row 29 is empty"),
        ([*["a"] * 29, None], ["b"] * 30, "The prompt of row 29 is empty"),
        ("text", ["b"], "prompts is a str"),
    ],
)
def test_bad_input_is_refused(model, prompts, responses, sentence):
    with pytest.raises(InputError, match=sentence):
        find_response_issues(prompts, responses, model=model, cache=False)
