"""Token ids of examples."""

import warnings
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from clear_peft.data.checks import row_listing
from clear_peft.data.examples import Examples
from clear_peft.errors import ClearWarning, InputError

if TYPE_CHECKING:
    from datasets import Dataset
    from transformers import PreTrainedTokenizerBase

_CHUNK = 1000  # bounds the Python lists that exist at once
_COLUMNS = ("input_ids", "attention_mask", "token_type_ids")


def tokenize(examples: Examples, tokenizer: "PreTrainedTokenizerBase", max_length: int) -> "Dataset":
    """Tokenise each example once, truncated and without padding.

    Args:
        examples: N examples, at least one.
        tokenizer: Tokenizer of the model.
        max_length: Largest number of tokens, special ones included.

    Returns:
        N rows in memory, in the order of the examples: ``input_ids``, ``attention_mask``, ``token_type_ids``
        if the tokenizer gives them, ``labels`` if there are any (where rows have several, lists of 0 and 1),
        ``length``, the number of tokens, and ``cut``, whether the text has more. Of words with labels what
        ``tokenize_words`` returns.

    Raises:
        InputError: If there is no example, ``max_length`` leaves no room for text, or the tokenizer makes no
            token of a text.
    """
    from datasets import Dataset, concatenate_datasets

    check_room(tokenizer, max_length)
    if not len(examples):
        raise InputError("There are no examples to tokenise; give at least one row.")
    if examples.words is not None:
        from clear_peft.data.word_tokens import tokenize_words  # builds on this module

        return tokenize_words(examples.words, examples.labels, tokenizer, max_length)
    chunks = []
    for start in range(0, len(examples), _CHUNK):
        part = examples.select(range(start, min(start + _CHUNK, len(examples))))
        columns, cut = token_lists(part.texts, part.rows, tokenizer, max_length, part.pairs)
        if part.labels is not None:
            flags = part.labels.ndim == 2  # which losses take as numbers
            columns["labels"] = part.labels.astype(np.float32) if flags else part.labels
        columns["length"], columns["cut"] = [len(ids) for ids in columns["input_ids"]], cut
        chunks.append(Dataset.from_dict(columns))
    return concatenate_datasets(chunks)


def how_many_are_cut(tokens: "Dataset") -> int:
    """Count the texts that are longer than the model reads, of what :func:`tokenize` has made of them."""
    if "cut" not in tokens.column_names:  # sentences are read in windows
        return 0
    return int(np.count_nonzero(tokens["cut"]))


def say_how_many_are_cut(tokens: "Dataset", max_length: int, what: str) -> int:
    """Count the texts that are longer than the model reads, and warn of them.

    Args:
        tokens: What :func:`tokenize` has made of N texts.
        max_length: As given to it.
        what: What the texts are, for the sentence: texts, or those of a table.

    Returns:
        Their number.
    """
    cut = how_many_are_cut(tokens)
    if cut:
        warn_of_cut(cut, len(tokens), what, max_length)
    return cut


def warn_of_cut(cut: int, size: int, what: str, max_length: int) -> None:
    """Say that some texts are longer than is read."""
    message = f"{cut} of {size} {what} are longer than --max-length, {max_length} tokens, and were cut."
    warnings.warn(message, ClearWarning, stacklevel=3)


def check_room(tokenizer: "PreTrainedTokenizerBase", max_length: int) -> None:
    """Refuse a length that leaves no room for text beside the tokenizer's own tokens.

    Raises:
        InputError: With the number of these.
    """
    special = tokenizer.num_special_tokens_to_add()
    if max_length <= special:
        raise InputError(
            f"The maximum length is {max_length}, but the tokenizer adds {special} tokens of its own; "
            f"choose more than {special}."
        )


def token_lists(
    texts: Sequence[str],
    rows: Sequence[int] | np.ndarray,
    tokenizer: "PreTrainedTokenizerBase",
    max_length: int,
    pairs: Sequence[tuple[str, str]] | None = None,
) -> tuple[dict[str, Any], np.ndarray]:
    """Tokenise texts as lists, truncated and without padding.

    Args:
        texts: N texts.
        rows: Where they stand in the input, for sentences.
        tokenizer: Tokenizer of the model.
        max_length: Largest number of tokens, special ones included; of a pair the longer text is cut first.
        pairs: The same texts as pairs: these are encoded by a tokenizer that puts a token of its own between
            two texts. Default: none.

    Returns:
        A list of N lists each: ``input_ids``, ``attention_mask``, and ``token_type_ids`` if the tokenizer
        gives them. And whether texts have more tokens than are read, (N,) bool.

    Raises:
        InputError: If the tokenizer makes no token of a text.
    """
    added = tokenizer.num_special_tokens_to_add
    given = [texts] if pairs is None or added(pair=True) <= added(pair=False) else zip(*pairs, strict=True)
    whole = [[_whole_characters(text) for text in column] for column in given]
    options = {"truncation": True, "padding": False, "return_attention_mask": True}
    encoded = tokenizer(*whole, max_length=max_length, **options)
    columns = _columns(encoded, rows)
    if encoded.encodings is not None:
        return columns, np.array([bool(each.overflowing) for each in encoded.encodings], dtype=bool)
    # of a slow tokenizer, one token more tells whether there is one
    cut = np.array([len(ids) >= max_length for ids in columns["input_ids"]], dtype=bool)
    full = np.flatnonzero(cut).tolist()
    if full:
        more = tokenizer(
            *([column[i] for i in full] for column in whole), max_length=max_length + 1, **options
        )
        cut[full] = [len(ids) > max_length for ids in more["input_ids"]]
    return columns, cut


def window_lists(
    texts: Sequence[str],
    rows: Sequence[int] | np.ndarray,
    tokenizer: "PreTrainedTokenizerBase",
    max_length: int,
) -> tuple[dict[str, Any], np.ndarray]:
    """Tokenise whole texts as lists, in as many windows as they need; neighbours share a quarter.

    Args:
        texts: N texts.
        rows: Where they stand in the input, for sentences.
        tokenizer: Fast tokenizer of the model.
        max_length: Largest number of tokens of a window, special ones included.

    Returns:
        Columns of M lists each, as those of :func:`token_lists`, and the text of each window, (M,) int64.

    Raises:
        InputError: If the tokenizer makes no token of a text.
    """
    encoded, text_of = _windows([_whole_characters(text) for text in texts], tokenizer, max_length)
    return _columns(encoded, np.asarray(rows)[text_of]), text_of


def word_lists(
    sentences: Sequence[Sequence[str]],
    rows: Sequence[int] | np.ndarray,
    tokenizer: "PreTrainedTokenizerBase",
    max_length: int,
) -> tuple[dict[str, Any], np.ndarray, list[np.ndarray]]:
    """Tokenise sentences, as their words with spaces between them, and say which tokens are whose.

    Args:
        sentences: N lists of words.
        rows: Where they stand in the input, for sentences.
        tokenizer: Fast tokenizer of the model.
        max_length: Largest number of tokens of a window, special ones included.

    Returns:
        Columns of M windows, as those of :func:`window_lists`, the sentence of each window, (M,) int64, and
        for each window an array of its P pairs of a token and a word that share a character, (P, 2) int64,
        both counted from 0, the words in the sentence.

    Raises:
        InputError: If the tokenizer makes no token of a sentence.
    """
    words = [[_whole_characters(word) for word in sentence] for sentence in sentences]
    encoded, sentence_of = _windows(
        [" ".join(each) for each in words], tokenizer, max_length, return_offsets_mapping=True
    )
    lengths = [np.array([len(word) for word in each]) for each in words]
    ends = [np.cumsum(each + 1) - 1 for each in lengths]
    pairs = [
        _shared(np.array(offsets, np.int64).reshape(-1, 2), ends[i] - lengths[i], ends[i])
        for offsets, i in zip(encoded["offset_mapping"], sentence_of.tolist(), strict=True)
    ]
    return _columns(encoded, np.asarray(rows)[sentence_of]), sentence_of, pairs


def _shared(offsets: np.ndarray, starts: np.ndarray, ends: np.ndarray) -> np.ndarray:
    """Pairs of a token (T, 2) and a word, (W,) each, that share a character, (P, 2)."""
    first = np.searchsorted(ends, offsets[:, 0], side="right")
    beyond = np.searchsorted(starts, offsets[:, 1], side="left")
    counts = np.where(offsets[:, 1] > offsets[:, 0], np.maximum(beyond - first, 0), 0)
    tokens = np.repeat(np.arange(len(offsets)), counts)
    nth = np.arange(len(tokens)) - np.repeat(np.cumsum(counts) - counts, counts)
    return np.stack([tokens, first[tokens] + nth], axis=1)


def _windows(
    texts: list[str], tokenizer: "PreTrainedTokenizerBase", max_length: int, **more: Any
) -> tuple[Mapping[str, Any], np.ndarray]:
    """What the tokenizer makes of the windows of texts, and the text of each, (M,) int64."""
    encoded = tokenizer(
        texts,
        truncation=True,
        max_length=max_length,
        stride=(max_length - tokenizer.num_special_tokens_to_add()) // 4,
        return_overflowing_tokens=True,
        padding=False,
        return_attention_mask=True,
        **more,
    )
    return encoded, np.asarray(encoded["overflow_to_sample_mapping"], dtype=np.int64)


def _columns(encoded: Mapping[str, Any], rows: Sequence[int] | np.ndarray) -> dict[str, Any]:
    """What a model reads of encoded texts; one without a token is refused by its row."""
    columns = {name: encoded[name] for name in _COLUMNS if name in encoded}
    empty = [int(row) for row, ids in zip(rows, columns["input_ids"], strict=True) if not ids]
    if empty:
        raise InputError(
            f"The tokenizer makes no token of the text in {row_listing(empty)}; fill or remove them."
        )
    return columns


def _whole_characters(text: str) -> str:
    """Replace halves of surrogate pairs, which tokenizers refuse, with U+FFFD."""
    return text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")
