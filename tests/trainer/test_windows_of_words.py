"""Long sentences in several rows, as ``tokenize_words`` makes them: to the trainer they are one each."""

import numpy as np
import pytest
from datasets import Dataset
from test_word_training import EVALUATED, LABELS, NAMES, made
from transformers import AutoTokenizer

from clear_peft import tokenize_words
from clear_peft.trainer.spans import SpanScheme, word_figures
from clear_peft.trainer.store import hold_out_rows
from clear_peft.trainer.words import WordRows
from tiny_text import KEYWORDS, tiny_checkpoint

WORDS = [word for group in KEYWORDS.values() for word in group]


def sentences(size=40, seed=0, wrong=0.1):
    """Words that tell their tags, in sentences of which every third is a long one; and tags, some wrong."""
    rng = np.random.default_rng(seed)
    words = [[WORDS[i] for i in rng.integers(0, 18, 25 if row % 3 == 0 else 4)] for row in range(size)]
    tags = [[WORDS.index(word) // 6 for word in row] for row in words]
    given = [[(tag + (rng.random() < wrong)) % LABELS for tag in row] for row in tags]
    return words, [[int(tag) for tag in row] for row in given]


@pytest.fixture(scope="module")
def windows(tmp_path_factory):
    tokenizer = AutoTokenizer.from_pretrained(tiny_checkpoint(tmp_path_factory.mktemp("tokenizer")))

    def of(words, tags):
        return tokenize_words(words, tags, tokenizer, max_length=10)

    return of


def rows_of(table):
    return WordRows(table, LABELS, "length", "training")


def test_words_of_all_windows_of_a_sentence_are_judged_together(windows):
    words, tags = sentences()
    table, sizes = windows(words, tags), [len(row) for row in words]
    assert len(table) > len(words)
    rows, sentence = rows_of(table), np.repeat(np.arange(len(words)), sizes)
    np.testing.assert_array_equal(rows.row, sentence)
    np.testing.assert_array_equal(np.unique(rows.groups, return_inverse=True)[1], sentence)
    # rows of a larger table, and documents of two sentences
    place, document = 3 * np.array(table["sentence"]) + 1, np.array(table["sentence"]) // 2
    rows = rows_of(table.add_column("row", place).add_column("group", document))
    np.testing.assert_array_equal(rows.row, 3 * sentence + 1)
    np.testing.assert_array_equal(np.unique(rows.groups, return_inverse=True)[1], sentence // 2)


def test_no_sentence_is_in_both_parts(windows):
    words, tags = sentences()
    for row in range(3, 40, 3):
        words[row][:8], tags[row][:8] = words[0][:8], tags[0][:8]  # their first windows are copies
    table = windows(words, tags)
    for seed in range(5):
        parts = hold_out_rows(table, rows_of(table), 0.3, seed)
        kept, held = (set(part["sentence"]) for part in parts)
        assert kept.isdisjoint(held)
        assert kept | held == set(range(40))
        for part in parts:
            assert part["row"][:] == part["sentence"][:]


def test_a_text_in_a_column_of_that_name_says_nothing():
    columns = {"input_ids": [[5, 6], [7, 8]], "labels": [[0, 1], [1, -100]], "sentence": ["a b", "a b"]}
    rows = rows_of(Dataset.from_dict(columns))
    assert rows.row.tolist() == [0, 0, 1]
    assert rows.groups.tolist() == [0, 0, 1]


@pytest.mark.parametrize("settings", [{}, EVALUATED])
def test_issues_name_the_word_of_the_sentence_not_of_the_window(tmp_path, windows, settings):
    words, tags = sentences()
    found = made(tmp_path, train_dataset=windows(words, tags), num_train_epochs=1, **settings)
    issues = found.label_issues()
    assert len(issues) == sum(map(len, words))
    assert not issues.duplicated(["row", "word"]).any()
    assert issues["given_label"].tolist() == [NAMES[tags[i.row][i.word]] for i in issues.itertuples()]


@pytest.mark.parametrize("strategy", ["sequential", "group_by_length"])
def test_spans_go_on_in_the_next_window(tmp_path, windows, strategy):
    words, tags = sentences(size=12, seed=1)
    table = windows(words, tags)
    found = made(
        tmp_path,
        train_dataset=windows(*sentences()),
        eval_dataset={"a": table, "b": table.select(range(5))},
        metric_for_best_model="span_f1",
        train_sampling_strategy=strategy,
        per_device_eval_batch_size=4,
    )
    made_of = found.predict(table)
    predicted = np.concatenate(
        [
            scores[: len(labels)][np.array(labels) != -100].argmax(axis=1)
            for scores, labels in zip(made_of.predictions, table["labels"], strict=True)
        ]
    )
    first = np.concatenate([np.arange(len(row)) == 0 for row in tags])
    expected = word_figures(predicted, np.concatenate(tags), first, SpanScheme.of(NAMES))
    assert made_of.metrics["test_span_f1"] == pytest.approx(expected["span_f1"])
    assert found.evaluate(table)["eval_span_f1"] == pytest.approx(expected["span_f1"])
    of_both = found.evaluate()
    assert of_both["eval_a_span_f1"] == pytest.approx(expected["span_f1"])
    part = found.evaluate(table.select(range(5)))
    assert of_both["eval_b_span_f1"] == pytest.approx(part["eval_span_f1"])
    cut = found.evaluate(table.remove_columns("sentence"))
    assert cut["eval_accuracy"] == pytest.approx(expected["accuracy"])
    assert cut["eval_span_f1"] != pytest.approx(expected["span_f1"])
