"""Words and their tags in; features of words, spans and clean probabilities out."""

import numpy as np
import pytest
import torch
from sklearn.metrics import average_precision_score
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors
from transformers import AutoModel, PreTrainedTokenizerFast

from clear_peft import find_token_issues
from clear_peft.data import LabelNames
from clear_peft.data.token_rows import Sentences
from clear_peft.data.tokens import word_lists
from clear_peft.errors import InputError
from clear_peft.label_quality import LabelQuality, TopProbs
from clear_peft.pipeline import frozen_encoder, token_issues
from clear_peft.pipeline.token_issues import spans_of
from clear_peft.pipeline.word_encoder import encode_words
from tiny_text import KEYWORDS, tiny_checkpoint

PIECES = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "a", "b", "##a", "##b", "##c", "-", "c"]


def pieces(length=64):
    """A tokenizer by hand: one token for each letter, none for a zero-width space."""
    core = Tokenizer(models.WordPiece({piece: i for i, piece in enumerate(PIECES)}, unk_token="[UNK]"))
    core.normalizer = normalizers.Replace("\u200b", "")
    core.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    core.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", special_tokens=[("[CLS]", 2), ("[SEP]", 3)]
    )
    special = {f"{name}_token": f"[{name.upper()}]" for name in ("pad", "unk", "cls", "sep")}
    return PreTrainedTokenizerFast(tokenizer_object=core, model_max_length=length, **special)


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return str(tiny_checkpoint(tmp_path_factory.mktemp("model")))


@pytest.fixture(scope="module")
def in_pieces(tmp_path_factory):
    folder = tiny_checkpoint(tmp_path_factory.mktemp("pieces"))
    pieces().save_pretrained(folder)
    return str(folder)


@pytest.fixture
def in_float32(monkeypatch):
    monkeypatch.setattr(frozen_encoder, "bf16_pays", lambda device: False)


# tokens and words


def test_tokens_belong_to_the_words_they_share_a_letter_with():
    columns, sentence_of, pairs = word_lists([["ab", "c"], ["a-b", "", "\u200b", "cc"]], [0, 1], pieces(), 64)
    assert [[PIECES[i] for i in ids] for ids in columns["input_ids"]] == [
        ["[CLS]", "a", "##b", "c", "[SEP]"],
        ["[CLS]", "a", "-", "b", "c", "##c", "[SEP]"],
    ]
    assert sentence_of.tolist() == [0, 1]
    assert pairs[0].tolist() == [[1, 0], [2, 0], [3, 1]]
    assert pairs[1].tolist() == [[1, 0], [2, 0], [3, 0], [4, 3], [5, 3]]


def test_a_token_may_belong_to_several_words():
    core = Tokenizer(models.WordLevel({"[UNK]": 0, "a b": 1, "c": 2}, unk_token="[UNK]"))
    core.pre_tokenizer = pre_tokenizers.Split(" c", "isolated")
    core.normalizer = None
    joined = PreTrainedTokenizerFast(tokenizer_object=core, unk_token="[UNK]", model_max_length=9)
    _, _, pairs = word_lists([["a", "b", "c"]], [0], joined, 9)
    assert pairs[0].tolist() == [[0, 0], [0, 1], [1, 2]]


def test_bytes_of_a_letter_belong_to_its_word():
    letters = sorted(pre_tokenizers.ByteLevel.alphabet())
    core = Tokenizer(models.BPE({letter: i for i, letter in enumerate(letters)}, []))
    core.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    in_bytes = PreTrainedTokenizerFast(tokenizer_object=core, model_max_length=64)
    _, _, pairs = word_lists([["é", "b"]], [0], in_bytes, 64)  # the space is nobody's
    assert pairs[0].tolist() == [[0, 0], [1, 0], [3, 1]]


def test_windows_overlap_and_reach_the_last_word():
    words = ["a", "b", "c"] * 5
    columns, sentence_of, pairs = word_lists([["a"], words], [0, 1], pieces(), 10)
    assert max(len(ids) for ids in columns["input_ids"]) <= 10
    assert sentence_of.tolist() == [0, 1, 1, 1]
    assert sorted({word for own in pairs[1:] for word in own[:, 1].tolist()}) == list(range(15))
    assert pairs[2][0, 1] < pairs[1][-1, 1]


# features


def test_features_are_means_over_a_words_own_tokens(in_pieces, in_float32):
    sentences = [["ab", "c"], ["a-b", "cc", "b"], ["ab", "c"], ["b"]]
    features = encode_words(sentences, in_pieces)
    assert features.shape == (8, 2, 32)
    assert (features[:2] == features[5:7]).all()  # a copy
    whole = AutoModel.from_pretrained(in_pieces).eval()
    own = [([[1, 2], [3]], "ab c"), ([[1, 2, 3], [4, 5], [6]], "a-b cc b")]
    expected = []
    for tokens, text in own:
        with torch.no_grad():
            ids = torch.tensor([pieces()(text)["input_ids"]])
            states = whole(input_ids=ids, output_hidden_states=True).hidden_states
        expected += [np.stack([states[i][0, each].mean(dim=0).numpy() for i in (1, 2)]) for each in tokens]
    np.testing.assert_allclose(features[:5], np.stack(expected), rtol=2e-3, atol=2e-3)  # of float16


def test_a_word_without_a_token_gets_the_mean_of_the_others(in_pieces):
    features = encode_words([["a", "\u200b", "b"]], in_pieces)
    np.testing.assert_allclose(features[1], (features[0] + features[2]) / 2, atol=2e-3)
    with pytest.raises(InputError, match=r"no token of any word in 1 row \(1;"):
        encode_words([["a"], ["\u200b", "\u200b"]], in_pieces)


def test_the_second_time_no_sentence_is_read(in_pieces, tmp_path, monkeypatch):
    sentences = [["ab", "c"], ["b", "b"], ["ab", "c"]]
    done = []
    first = encode_words(sentences, in_pieces, cache=tmp_path, step=lambda *said: done.append(said))
    assert done == [(2, 2)]

    def never(*_):
        raise AssertionError("a sentence was encoded again")

    monkeypatch.setattr(frozen_encoder.FrozenEncoder, "word_means", never)
    assert (encode_words(sentences[::-1], in_pieces, cache=tmp_path) == first[[4, 5, 2, 3, 0, 1]]).all()
    with pytest.raises(AssertionError, match="encoded again"):
        encode_words([["ab", "b"]], in_pieces, cache=tmp_path)


def test_a_slow_tokenizer_is_refused(in_pieces, monkeypatch):
    monkeypatch.setattr(PreTrainedTokenizerFast, "is_fast", False)
    with pytest.raises(InputError, match="is a slow one"):
        encode_words([["a"]], in_pieces)


# judgement


def tagged(size, seed=0, wrong=0.08):
    """Sentences in which a word tells its tag, and the tags, some of them wrong."""
    rng = np.random.default_rng(seed)
    kinds = {word: kind for kind, words in KEYWORDS.items() for word in words}
    kinds |= dict.fromkeys(("the", "of", "and", "old", "new", "with", "small"), "O")
    words = [rng.choice(list(kinds), rng.integers(5, 11)).tolist() for _ in range(size)]
    true = [[kinds[word] for word in sentence] for sentence in words]
    names = ["O", *KEYWORDS]
    given = [
        [rng.choice([name for name in names if name != tag]) if rng.random() < wrong else tag for tag in tags]
        for tags in true
    ]
    return words, true, [[str(tag) for tag in tags] for tags in given]


def test_wrong_tags_come_first(model):
    words, true, given = tagged(120)
    spans, clean_probability = find_token_issues(words, given, model=model, cache=False)
    assert [len(p) for p in clean_probability] == [len(sentence) for sentence in words]
    wrong = np.concatenate([np.array(a) != np.array(b) for a, b in zip(given, true, strict=True)])
    p = np.concatenate(clean_probability)
    assert average_precision_score(wrong, -p) > 0.9
    assert abs((1 - p).mean() - wrong.mean()) < 0.04
    assert spans["clean_probability"].is_monotonic_increasing
    assert (spans["is_label_issue"] == (spans["clean_probability"] < 0.5)).all()
    for span in spans.itertuples():
        place = slice(span.start, span.end)
        assert span.words == words[span.row][place]
        assert span.given_tags == given[span.row][place]
        assert span.clean_probability == clean_probability[span.row][place].min()
    for span in spans.head(20).itertuples():
        given[span.row][span.start : span.end] = span.suggested_tags
    left = np.concatenate([np.array(a) != np.array(b) for a, b in zip(given, true, strict=True)])
    assert left.sum() <= wrong.sum() - 18


def test_a_sentence_its_copies_and_its_group_are_left_out_together(model, monkeypatch):
    words, _, given = tagged(40)
    words[7], given[7] = words[3], given[3][::-1]
    seen = {}
    real = token_issues.fit_probe

    def spied(*args, **named):
        seen.update(named)
        return real(*args, **named)

    monkeypatch.setattr(token_issues, "fit_probe", spied)
    groups = [5 if row in (0, 9) else -1 for row in range(40)]
    find_token_issues(words, given, model=model, cache=False, groups=groups)
    sentence = np.repeat(np.arange(40), [len(each) for each in words])
    of = [set(seen["groups"][sentence == row].tolist()) for row in range(40)]
    assert all(len(own) == 1 for own in of)
    assert of[3] == of[7]
    assert of[0] == of[9]
    assert len(set.union(*of)) == 38
    # copies count together as one: word by word
    assert (seen["copies"][sentence == 3] == seen["copies"][sentence == 7]).all()
    assert len(np.unique(seen["copies"])) == len(sentence) - len(words[3])


def test_neighbours_of_one_sentence_are_a_span():
    names = LabelNames(("B-X", "I-X", "O"))
    sentences = Sentences([["a", "b", "c", "d"], ["e", "f"], ["g"]], np.array([2, 2, 2, 1, 1, 0, 2]), names)
    predicted = [0, 1, 2, 0, 0, 0, 2]
    second = [2, 2, 0, 1, 1, 1, 1]
    p = np.array([0.4, 0.2, 0.9, 0.6, 0.1, 0.8, 0.3], np.float32)
    top = np.array([[a, b, 3 - a - b] for a, b in zip(predicted, second, strict=True)], np.int16)
    likely = np.tile(np.array([0.6, 0.3, 0.1], np.float32), (7, 1))
    quality = LabelQuality(
        sentences.tags, TopProbs(top, likely, 3), np.full(7, 0.5, np.float32), p, None, None, np.arange(7)
    )
    spans = spans_of(quality, sentences)
    assert spans[["row", "start", "end"]].to_numpy().tolist() == [[1, 0, 1], [0, 0, 2], [2, 0, 1], [0, 3, 4]]
    assert spans["words"].tolist() == [["e"], ["a", "b"], ["g"], ["d"]]
    assert spans["given_tags"].tolist() == [["I-X"], ["O", "O"], ["O"], ["I-X"]]
    # of the last word but one the given tag is the likeliest, and another is suggested
    assert spans["suggested_tags"].tolist() == [["B-X"], ["B-X", "I-X"], ["I-X"], ["B-X"]]
    np.testing.assert_array_equal(spans["clean_probability"], p[[4, 1, 6, 3]])
    assert spans["is_label_issue"].tolist() == [True, True, True, False]


def test_there_may_be_nothing_to_list():
    sentences = Sentences([["a", "b"]], np.array([0, 1]), LabelNames(("O", "X")))
    top = TopProbs(np.array([[0, 1], [1, 0]], np.int16), np.full((2, 2), 0.5, np.float32), 2)
    sure = np.ones(2, np.float32)
    spans = spans_of(LabelQuality(sentences.tags, top, sure, sure, None, None, np.arange(2)), sentences)
    assert len(spans) == 0
    assert list(spans)[:4] == ["row", "start", "end", "words"]


@pytest.mark.parametrize(
    ("words", "tags", "said"),
    [
        ([["a"]], [["O"], ["X"]], "1 sentences and 2 lists"),
        ([], [], "There are no sentences"),
        ("text", [["O"]], "tokens is a str"),
        ([["the", "mast"]] * 5, [["O", "X"]] * 5, "All sentences are copies"),
        ([["a"], ["b"]], [["O"], ["X", "O"]], "1 words and 2 tags"),
    ],
)
def test_bad_input_is_said_in_a_sentence(model, words, tags, said):
    with pytest.raises(InputError, match=said):
        find_token_issues(words, tags, model=model, cache=False)
