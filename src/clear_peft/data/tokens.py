"""Token ids of examples."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from clear_peft.data.checks import row_listing
from clear_peft.data.examples import Examples
from clear_peft.errors import InputError

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
        if the tokenizer gives them, ``labels`` if there are any, and ``length``, the number of tokens.

    Raises:
        InputError: If there is no example, ``max_length`` leaves no room for text, or the tokenizer makes no
            token of a text.
    """
    from datasets import Dataset, concatenate_datasets

    check_room(tokenizer, max_length)
    if not len(examples):
        raise InputError("There are no examples to tokenise; give at least one row.")
    chunks = []
    for start in range(0, len(examples), _CHUNK):
        stop = start + _CHUNK
        columns = token_lists(examples.texts[start:stop], examples.rows[start:stop], tokenizer, max_length)
        if examples.labels is not None:
            columns["labels"] = examples.labels[start:stop]
        columns["length"] = [len(ids) for ids in columns["input_ids"]]
        chunks.append(Dataset.from_dict(columns))
    return concatenate_datasets(chunks)


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
) -> dict[str, Any]:
    """Tokenise texts as lists, truncated and without padding.

    Args:
        texts: N texts.
        rows: Where they stand in the input, for sentences.
        tokenizer: Tokenizer of the model.
        max_length: Largest number of tokens, special ones included.

    Returns:
        A list of N lists each: ``input_ids``, ``attention_mask``, and ``token_type_ids`` if the tokenizer
        gives them.

    Raises:
        InputError: If the tokenizer makes no token of a text.
    """
    encoded = tokenizer(
        [_whole_characters(text) for text in texts],
        truncation=True,
        max_length=max_length,
        padding=False,
        return_attention_mask=True,
    )
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
