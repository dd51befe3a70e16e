"""Where the labels of words stand among their tokens, beside the tokenizers' own account of words."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors
from transformers import PreTrainedTokenizerFast

from clear_peft import tokenize_words
from clear_peft.errors import InputError

_SPECIAL = ("[PAD]", "[UNK]", "[CLS]", "[SEP]")


def pieces(**more):
    """Letters, of which those that begin a word are other tokens than the rest."""
    letters = "abcdef"
    words = [*_SPECIAL, *letters, *(f"##{letter}" for letter in letters), "."]
    vocabulary = {word: i for i, word in enumerate(words)}
    core = Tokenizer(models.WordPiece(vocabulary, unk_token="[UNK]"))
    core.normalizer = normalizers.BertNormalizer()  # drops what cannot be seen
    core.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    core.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", special_tokens=[("[CLS]", 2), ("[SEP]", 3)]
    )
    options = {"unk_token": "[UNK]", "pad_token": "[PAD]", "cls_token": "[CLS]", "sep_token": "[SEP]"}
    return PreTrainedTokenizerFast(tokenizer_object=core, **{**options, **more})


def byte_pieces():
    """Bytes, with the space before a word as a part of its first token, as GPT-2 and RoBERTa have it."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    words = [*alphabet, "Ġa", "Ġb", "<s>", "</s>"]
    core = Tokenizer(models.BPE({word: i for i, word in enumerate(words)}, [("Ġ", "a"), ("Ġ", "b")]))
    core.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    core.decoder = decoders.ByteLevel()
    return PreTrainedTokenizerFast(tokenizer_object=core, bos_token="<s>", pad_token="</s>")


WORDS = st.lists(st.text("abcdef.", min_size=1, max_size=4), min_size=1, max_size=12)


@settings(deadline=None, max_examples=60)
@given(st.lists(WORDS, min_size=1, max_size=4))
def test_the_first_token_of_each_word_has_its_label(sentences):
    labels = [[100 * row + i for i in range(len(words))] for row, words in enumerate(sentences)]
    tokenizer = pieces()
    found = tokenize_words(sentences, labels, tokenizer, 128)
    theirs = tokenizer(sentences, is_split_into_words=True)
    assert found["input_ids"][:] == theirs["input_ids"]
    for row, aligned in enumerate(found["labels"]):
        words = theirs.word_ids(row)
        expected = [
            -100 if word is None or word == words[i - 1] else labels[row][word]
            for i, word in enumerate(words)
        ]
        assert aligned == expected


@settings(deadline=None, max_examples=60)
@given(st.lists(WORDS, min_size=1, max_size=4), st.integers(4, 12), st.sampled_from([pieces, byte_pieces]))
def test_no_word_of_a_long_sentence_is_lost_or_counted_twice(sentences, length, make):
    labels, total = [], 0
    for words in sentences:
        labels.append(list(range(total, total + len(words))))
        total += len(words)
    found = tokenize_words(sentences, labels, make(), length)
    assert max(found["length"]) <= length
    every = np.concatenate(found["labels"][:])
    assert every[every != -100].tolist() == list(range(total))
    owner = np.repeat(found["sentence"][:], found["length"][:])[every != -100]
    assert (
        owner.tolist() == np.repeat(np.arange(len(sentences)), [len(words) for words in sentences]).tolist()
    )


def test_bytes_begin_with_the_space_before_the_word():
    tokenizer = byte_pieces()
    found = tokenize_words([["b", "ab", "é", "b"]], [[1, 2, 3, 4]], tokenizer)
    tokens = tokenizer.convert_ids_to_tokens(found["input_ids"][0])
    assert tokens == ["b", "Ġa", "b", "Ġ", "Ã", "©", "Ġb"]
    assert [label for label in found["labels"][0] if label != -100] == [1, 2, 3, 4]
    assert found["labels"][0][1:3] == [2, -100]
    assert found["labels"][0][6] == 4


def test_a_word_without_a_token_is_read_as_unknown():
    tokenizer = pieces()
    found = tokenize_words([["ab", "\u200b", "c"], ["\u200b"]], [[1, 2, 3], [4]], tokenizer)
    assert tokenizer.convert_ids_to_tokens(found["input_ids"][0])[3] == "[UNK]"
    assert found["labels"][:] == [[-100, 1, -100, 2, 3, -100], [-100, 4, -100]]


def test_without_labels_words_are_marked():
    assert tokenize_words([["ab", "c"]], None, pieces())["labels"][:] == [[-100, 0, -100, 0, -100]]


@pytest.mark.parametrize(
    ("sentences", "labels", "length", "message"),
    [
        ([], None, 9, "There are no words"),
        ([["a"], []], None, 9, "There are no words in 1 row"),
        ([["a", "b"]], [[1]], 9, "There is not one label for each word"),
        ([["a"]], [[0.5]], 9, "are not all ids of labels"),
        ([["a"]], [[-1]], 9, "are not all ids of labels"),
        ([["a"]], None, 2, "the tokenizer adds 2 tokens of its own"),
    ],
)
def test_what_is_not_aligned_is_refused(sentences, labels, length, message):
    with pytest.raises(InputError, match=message):
        tokenize_words(sentences, labels, pieces(), length)


def test_a_tokenizer_that_has_no_unknown_token_refuses_what_it_drops():
    tokenizer = pieces()
    tokenizer.unk_token = None
    with pytest.raises(InputError, match="makes no token of"):
        tokenize_words([["a", "\u200b"]], None, tokenizer)
