"""Token ids of sentences whose words have labels, and where the labels stand."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from clear_peft.data.checks import brief, row_listing
from clear_peft.data.tokens import check_room, word_lists
from clear_peft.errors import InputError

if TYPE_CHECKING:
    from datasets import Dataset
    from transformers import PreTrainedTokenizerBase

# of tokens that have no label of their own, as torch and transformers have it
NO_LABEL = -100
# position of the sentence that a row is, or is a part of
SENTENCE_COLUMN = "sentence"


def tokenize_words(
    sentences: Sequence[Sequence[str]],
    labels: Sequence[Sequence[int] | npt.NDArray[np.integer]] | npt.NDArray[np.object_] | None,
    tokenizer: "PreTrainedTokenizerBase",
    max_length: int = 128,
) -> "Dataset":
    """Tokenise sentences whose words have labels, as a model for token classification is trained on them.

    The first token of a word has its label. All other tokens have -100, which no loss counts: special ones,
    and the rest of a word. Sentences are read as their words with spaces between them, long ones in windows
    that overlap by a quarter: a word has its label in the first of them, and -100 in the next. A word of
    which the tokenizer makes no token is read as its unknown token.

    Args:
        sentences: N lists of words, at least one each.
        labels: Ids of the labels, one for each word. Default: all are 0, which marks where words are.
        tokenizer: Fast tokenizer of the model.
        max_length: Most tokens of a row, special ones included. Default 128.

    Returns:
        A row for each sentence, or window of one, in their order: ``input_ids``, ``attention_mask``,
        ``token_type_ids`` if the tokenizer gives them, ``labels``, ``sentence`` (its position, from 0) and
        ``length``, the number of tokens. So labels other than -100 are those of all words in their order.

    Raises:
        InputError: If there is no sentence, one has no words or not one label for each, the tokenizer is a
            slow one or makes one token of two words, or ``max_length`` leaves no room.
    """
    from datasets import Dataset

    if not tokenizer.is_fast:
        raise InputError(
            "The tokenizer is a slow one and does not say which token belongs to which word: choose a model "
            "with a fast tokenizer."
        )
    check_room(tokenizer, max_length)
    sizes = np.array([len(words) for words in sentences], np.int64)
    if not sizes.all() or not len(sizes):
        raise InputError(f"There are no words in {row_listing(np.flatnonzero(sizes == 0).tolist() or [0])}.")
    starts = np.cumsum(sizes) - sizes
    given = _flat(labels, sizes)
    columns, window_of, first = _first_tokens(sentences, starts, tokenizer, max_length)
    done, kept, rows = np.zeros(len(sizes), np.int64), [], []
    for window, (sentence, (words, tokens)) in enumerate(zip(window_of.tolist(), first, strict=True)):
        new = words >= done[sentence]
        if not new.any():
            continue
        if len(np.unique(tokens[new])) < new.sum():
            raise InputError(
                f"The tokenizer makes one token of several words in {row_listing([sentence])}: choose "
                "another model."
            )
        row = np.full(len(columns["input_ids"][window]), NO_LABEL)
        row[tokens[new]] = given[starts[sentence] + words[new]]
        done[sentence] = words[new][-1] + 1
        kept.append(window)
        rows.append(row.tolist())
    parts = {name: [cells[window] for window in kept] for name, cells in columns.items()}
    parts |= {"labels": rows, SENTENCE_COLUMN: window_of[kept].tolist()}
    return Dataset.from_dict({**parts, "length": [len(row) for row in rows]})


def _flat(
    labels: Sequence[Sequence[int] | npt.NDArray[np.integer]] | npt.NDArray[np.object_] | None,
    sizes: npt.NDArray[np.int64],
) -> npt.NDArray[np.int64]:
    """Labels of all words, (W,)."""
    if labels is None:
        return np.zeros(sizes.sum(), np.int64)
    if [len(row) for row in labels] != sizes.tolist():
        raise InputError("There is not one label for each word: give as many labels as words in each row.")
    flat = np.concatenate([np.asarray(row) for row in labels])
    if not np.issubdtype(flat.dtype, np.integer) or (flat < 0).any():
        raise InputError(f"{brief(flat[:5].tolist())} are not all ids of labels: give whole numbers from 0.")
    return flat.astype(np.int64)


def _first_tokens(
    sentences: Sequence[Sequence[str]],
    starts: npt.NDArray[np.int64],
    tokenizer: "PreTrainedTokenizerBase",
    max_length: int,
) -> tuple[dict[str, list[list[int]]], npt.NDArray[np.int64], list[tuple[npt.NDArray, npt.NDArray]]]:
    """Columns of windows, the sentence of each, and of each the words in it and their first tokens."""
    words, rows, first = [list(sentence) for sentence in sentences], np.arange(len(sentences)), []
    for unknown in (tokenizer.unk_token, None):
        columns, window_of, pairs = word_lists(words, rows, tokenizer, max_length)
        lost = np.ones(sum(map(len, words)), bool)
        first = [np.unique(pair[:, 1], return_index=True) for pair in pairs]
        for sentence, (held, _) in zip(window_of.tolist(), first, strict=True):
            lost[starts[sentence] + held] = False
        if not lost.any():
            break
        for place in np.flatnonzero(lost).tolist():
            sentence = int(np.searchsorted(starts, place, side="right")) - 1
            if unknown is None:
                word = brief(sentences[sentence][place - starts[sentence]])
                raise InputError(
                    f"The tokenizer makes no token of {word} in {row_listing([sentence])}; remove it."
                )
            words[sentence][place - starts[sentence]] = unknown
    return columns, window_of, [(held, pair[at, 0]) for (held, at), pair in zip(first, pairs, strict=True)]
