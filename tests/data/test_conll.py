"""CoNLL files and columns of lists: sentences in, or one sentence that says what is wrong."""

import gzip

import numpy as np
import pandas as pd
import pytest

from clear_peft.data import read_table
from clear_peft.data.conll import parse
from clear_peft.data.token_rows import sentences_of, token_columns
from clear_peft.errors import InputError

TWO = "Ada B-PER\nLovelace I-PER\nslept O\n\n\nIn\tO\nKyiv \t B-LOC \r\n"


def test_sentences_are_lists_of_words_and_tags():
    table = parse(TWO, "ner.conll")
    assert table["tokens"].tolist() == [["Ada", "Lovelace", "slept"], ["In", "Kyiv"]]
    assert table["tags"].tolist() == [["B-PER", "I-PER", "O"], ["O", "B-LOC"]]
    assert table["line"].tolist() == [1, 6]


def test_the_word_is_the_first_column_and_the_tag_the_last():
    table = parse("-DOCSTART- -X- -X- O\n\nEU NNP B-NP B-ORG\nrejects VBZ B-VP O\n", "eng.conll")
    assert table["tokens"].tolist() == [["EU", "rejects"]]
    assert table["tags"].tolist() == [["B-ORG", "O"]]
    assert table["line"].tolist() == [3]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("Ada B-PER\n\nslept\n", "'ner.conll', line 3: holds a word without a tag"),
        ("Ada B-PER\nslept VBD O\n", "'ner.conll', line 2: holds 3 columns, but the first word has 2"),
        ("Ada B-PER\nsl\0ept O\n", "'ner.conll', line 2: holds a NUL"),
        ("\n-DOCSTART- O\n\n", "'ner.conll' holds no words"),
    ],
)
def test_a_bad_line_is_named(text, said):
    with pytest.raises(InputError, match=said):
        parse(text, "ner.conll")


def test_a_file_may_be_packed_and_of_any_encoding(tmp_path):
    (tmp_path / "ner.conll.gz").write_bytes(gzip.compress("Zoë PER\nsang O\n".encode("cp1252")))
    table = read_table(tmp_path / "ner.conll.gz", encoding="cp1252")
    assert table["tokens"].tolist() == [["Zoë", "sang"]]


def test_lists_in_parquet_are_sentences(tmp_path):
    table = parse(TWO, "ner.conll").rename(columns={"tags": "ner_tags"})
    table.to_parquet(tmp_path / "ner.parquet")
    read = read_table(tmp_path / "ner.parquet")
    columns = token_columns(read, "text", "label")
    assert columns == ("tokens", "ner_tags")
    assert sentences_of(read, "ner", *columns).words == [["Ada", "Lovelace", "slept"], ["In", "Kyiv"]]


@pytest.mark.parametrize(
    ("columns", "given", "found"),
    [
        (["tokens", "tags", "line"], ("text", "label"), ("tokens", "tags")),
        (["tokens", "ner_tags"], ("text", "label"), ("tokens", "ner_tags")),
        (["text", "label"], ("text", "label"), ("text", "label")),
        (["words", "tags"], ("words", "label"), ("words", "tags")),
        (["words", "pos", "tags"], ("words", "pos"), ("words", "pos")),
        (["tokens", "tags"], (["tokens", "tags"], "label"), None),
        (["words", "tags"], ("text", "label"), None),
    ],
)
def test_columns_of_lists_are_found(columns, given, found):
    table = pd.DataFrame({name: pd.Series([["a", "b"]], dtype=object) for name in columns})
    assert token_columns(table, *given) == found


def test_whole_texts_are_no_words():
    assert token_columns(pd.DataFrame({"text": ["a b"], "label": ["x"]}), "text", "label") is None


def test_tags_become_ids():
    table = pd.DataFrame(
        {"w": pd.Series([["a"], np.array(["b", "c"])]), "t": pd.Series([[10], np.array([2, 10])])}
    )
    read = sentences_of(table, "ner", "w", "t")
    assert read.words == [["a"], ["b", "c"]]
    assert read.names.names == ("2", "10")
    assert read.tags.tolist() == [1, 0, 1]
    assert read.sizes.tolist() == [1, 2]


@pytest.mark.parametrize(
    ("words", "tags", "said"),
    [
        ([["a"], ["b", "c"]], [["O"], ["X"]], r"1 row \(1; .*: there are 2 words and 1 tags"),
        ([["a"], []], [["O"], []], r"1 row \(1; .*: there are no words"),
        ([["a"], "b"], [["O"], ["X"]], "'b' is no list; give a list of words"),
        ([["a"], ["b"]], [["O"], None], "None is no list; give a list of tags"),
        ([["a"], [7]], [["O"], ["X"]], "7 is no word"),
        ([["a"], ["b"]], [["O"], [None]], "None is no tag"),
        ([["a"], ["b"]], [["O"], [0.5]], "a label cannot be 0.5"),
        ([["a"], ["b"]], [["O"], ["O"]], "all words have the tag 'O'"),
    ],
)
def test_bad_rows_are_refused(words, tags, said):
    table = pd.DataFrame({"w": pd.Series(words, dtype=object), "t": pd.Series(tags, dtype=object)})
    with pytest.raises(InputError, match=said):
        sentences_of(table, "ner.jsonl", "w", "t")
