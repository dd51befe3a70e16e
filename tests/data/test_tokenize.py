"""tokenize, with a byte-level tokenizer built here."""

from dataclasses import replace

import numpy as np
import pytest
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors
from transformers import BatchEncoding, PreTrainedTokenizerFast

from clear_peft.data import Examples, say_how_many_are_cut, tokenize
from clear_peft.data.tokens import window_lists
from clear_peft.errors import ClearWarning, InputError


def byte_tokenizer(*, special=True, pair=None, inputs=("input_ids", "token_type_ids", "attention_mask")):
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    vocabulary = {token: i for i, token in enumerate(["[PAD]", "[CLS]", "[SEP]", *alphabet])}
    core = Tokenizer(models.BPE(vocab=vocabulary, merges=[]))
    core.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    core.decoder = decoders.ByteLevel()
    if special:
        core.post_processor = processors.TemplateProcessing(
            single="[CLS] $A [SEP]", pair=pair, special_tokens=[("[CLS]", 1), ("[SEP]", 2)]
        )
    return PreTrainedTokenizerFast(
        tokenizer_object=core,
        pad_token="[PAD]",
        cls_token="[CLS]",
        sep_token="[SEP]",
        model_input_names=list(inputs),
    )


def examples(texts, labels=None):
    return Examples(texts, None if labels is None else np.array(labels), np.arange(len(texts)))


def test_columns_lengths_and_order():
    data = tokenize(examples(["abc", "x", "longer text"], [1, 0, 1]), byte_tokenizer(), max_length=8)
    assert data.column_names == ["input_ids", "attention_mask", "token_type_ids", "labels", "length", "cut"]
    assert list(data["length"]) == [5, 3, 8]
    assert list(data["cut"]) == [False, False, True]
    assert [len(ids) for ids in data["input_ids"]] == [5, 3, 8]
    assert list(data["labels"]) == [1, 0, 1]
    assert data.cache_files == []


def test_only_what_the_tokenizer_and_the_examples_have():
    data = tokenize(examples(["a"]), byte_tokenizer(inputs=("input_ids",)), max_length=8)
    assert data.column_names == ["input_ids", "attention_mask", "length", "cut"]


def test_more_examples_than_one_chunk():
    texts = [f"text {i}" for i in range(2345)]
    tokenizer = byte_tokenizer()
    data = tokenize(examples(texts, [0] * 2345), tokenizer, max_length=32)
    assert len(data) == 2345
    assert tokenizer.decode(data[2344]["input_ids"], skip_special_tokens=True) == "text 2344"


@pytest.mark.parametrize(
    "text",
    ["\0", "a\0b", "\ud83d", "a\udc00\ud83d", "\u202eabc\u200f", "x" * 1_000_000, "\ufffe\uffff", "👩‍👩‍👧"],
)
def test_strange_text_is_tokenised(text):
    data = tokenize(examples([text], [0]), byte_tokenizer(), max_length=16)
    assert 3 <= data[0]["length"] <= 16


def test_half_a_surrogate_pair_becomes_the_replacement_character():
    tokenizer = byte_tokenizer()
    data = tokenize(examples(["a\ud83db"]), tokenizer, max_length=16)
    assert tokenizer.decode(data[0]["input_ids"], skip_special_tokens=True) == "a\ufffdb"


@pytest.mark.parametrize("fast", [True, False])
@pytest.mark.parametrize("side", ["left", "right"])
def test_texts_that_are_cut_are_counted(fast, side, monkeypatch):
    some, tokenizer = examples(["abc", "abcdef", "abcdefg", "x" * 99]), byte_tokenizer()
    tokenizer.truncation_side = side
    if not fast:
        monkeypatch.setattr(BatchEncoding, "encodings", None)  # as of a slow one
    tokens = tokenize(some, tokenizer, max_length=8)
    assert list(tokens["cut"]) == [False, False, True, True]
    assert max(tokens["length"]) == 8
    with pytest.warns(
        ClearWarning, match="2 of 4 texts are longer than --max-length, 8 tokens, and were cut"
    ):
        assert say_how_many_are_cut(tokens, 8, "texts") == 2
    assert say_how_many_are_cut(tokens.select([0, 1]), 8, "texts") == 0


@pytest.mark.parametrize("fast", [True, False])
def test_a_pair_is_cut_where_either_text_is(fast, monkeypatch):
    pairs = [("ab", "cd"), ("abcdef", "c"), ("a", "cdefgh"), ("abcd", "efgh")]
    both = replace(examples(["\n".join(pair) for pair in pairs]), pairs=pairs)
    if not fast:
        monkeypatch.setattr(BatchEncoding, "encodings", None)
    tokens = tokenize(both, byte_tokenizer(pair="[CLS] $A [SEP] $B:1 [SEP]:1"), max_length=8)
    assert list(tokens["cut"]) == [False, True, True, True]


def test_pairs_are_encoded_by_a_tokenizer_that_separates_them():
    both = replace(examples(["ab\ncd"]), pairs=[("ab", "cd")])
    tokenizer = byte_tokenizer(pair="[CLS] $A [SEP] $B:1 [SEP]:1")
    row = tokenize(both, tokenizer, max_length=16)[0]
    assert tokenizer.decode(row["input_ids"]) == "[CLS]ab[SEP]cd[SEP]"
    assert row["token_type_ids"] == [0, 0, 0, 0, 1, 1, 1]
    glued = byte_tokenizer()  # would put nothing between the two
    assert glued.decode(tokenize(both, glued, max_length=16)[0]["input_ids"]) == "[CLS]ab\ncd[SEP]"
    assert tokenize(both, byte_tokenizer(special=False), max_length=16)[0]["length"] == 5


@pytest.mark.parametrize("max_length", [-1, 0, 2])
def test_no_room_for_text_is_refused(max_length):
    with pytest.raises(InputError, match="choose more than 2"):
        tokenize(examples(["a"]), byte_tokenizer(), max_length=max_length)


def test_no_examples_are_refused():
    with pytest.raises(InputError, match="no examples"):
        tokenize(examples([]), byte_tokenizer(), max_length=8)


def test_a_text_without_tokens_is_refused():
    with pytest.raises(InputError, match=r"no token of the text in 1 row \(1;"):
        tokenize(examples(["a", ""]), byte_tokenizer(special=False), max_length=8)


def test_windows_hold_all_of_a_text_and_overlap_by_a_quarter():
    texts = ["ab", "abcdefgh", "abcdefghi", "x" * 8 + "y" * 40]
    tokenizer = byte_tokenizer()
    columns, text_of = window_lists(texts, range(4), tokenizer, 10)  # room for 8 bytes
    expected = [
        (row, text[start : start + 8])
        for row, text in enumerate(texts)
        for start in range(0, max(len(text) - 2, 1), 6)
    ]
    assert text_of.tolist() == [row for row, _ in expected]
    assert [tokenizer.decode(ids) for ids in columns["input_ids"]] == [f"[CLS]{w}[SEP]" for _, w in expected]
    assert [len(mask) for mask in columns["attention_mask"]] == [len(w) + 2 for _, w in expected]
