"""Features of words in their sentences by a frozen pretrained model, kept for the next time."""

import json
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt

from clear_peft.data.checks import row_listing
from clear_peft.data.token_rows import ranges
from clear_peft.errors import InputError
from clear_peft.lazy import quick_imports
from clear_peft.pipeline.feature_cache import FeatureCache, as_stored, key_of

# sentences between two writes of the cache
_PART = 1 << 10
# bounds the memory of a forward
_BATCH, _TOKENS = 64, 1 << 13


def encode_words(
    sentences: Sequence[Sequence[str]],
    model: str,
    *,
    max_length: int = 128,
    cache: Path | None = None,
    device: str = "auto",
    trust_remote_code: bool = False,
    step: Callable[[int, int], None] | None = None,
) -> npt.NDArray[np.float32]:
    """Encode words by a frozen model that reads their sentences, without gradients, in evaluation mode.

    A word's features are the means over its tokens of the hidden states of a middle layer and the last two,
    not normalised. Sentences are read as their words with spaces between them, long ones in windows that
    overlap by a quarter. Equal sentences are encoded once, and where all are in the cache torch is not
    imported. Features are rounded to float16, unless a word has one that is too large.

    Args:
        sentences: Lists of words, W words in all, at least one each.
        model: Hub name or path of a pretrained model with a fast tokenizer.
        max_length: Tokens of a window, special ones included; fewer where the tokenizer's own limit is lower.
            Default 128.
        cache: Folder of features that are known. Default: none.
        device: Where the model runs, as for ``clear_peft.hardware.choose_device``. Default ``auto``.
        trust_remote_code: Whether code that comes with the model may run. Default False.
        step: Called with how many different sentences are done, and of how many.

    Returns:
        (W, V, D) float32, word after word, sentence after sentence; V is 3, or 2 of a model of one or two
        layers.

    Raises:
        InputError: If the model cannot be loaded, gives no hidden states for each token or numbers that are
            not finite, or has too few positions for ``max_length``, its tokenizer is a slow one, or a
            sentence has no token.
    """
    first: dict[str, int] = {}
    texts = [json.dumps(list(words)) for words in sentences]
    for row, text in enumerate(texts):
        first.setdefault(text, row)
    rows = np.fromiter(first.values(), np.int64, len(first))
    sizes = np.array([len(sentences[row]) for row in rows])
    starts = np.cumsum(sizes) - sizes
    keys = [key_of(f"{i} {text}") for text, size in zip(first, sizes, strict=True) for i in range(size)]
    store = None if cache is None else FeatureCache(cache, model, max_length, "words")
    known, features = np.zeros(len(keys), bool), None
    if store is not None:
        known, _, features = store.read(keys)
    todo = np.flatnonzero(~np.logical_and.reduceat(known, starts))
    if len(todo):
        with quick_imports():
            from clear_peft.pipeline.frozen_encoder import FrozenEncoder  # torch takes seconds

        encoder = FrozenEncoder(
            model, max_length=max_length, device=device, trust_remote_code=trust_remote_code
        )
        if cache is not None:
            # what was downloaded has a version only now
            store = FeatureCache(cache, model, max_length, "words")
        batch_size = max(1, min(_BATCH, _TOKENS // max(max_length, 1)))
        for start in range(0, len(todo), _PART):
            part = todo[start : start + _PART]
            made = encoder.word_means([sentences[row] for row in rows[part]], rows[part], batch_size)
            _check_finite(made, np.repeat(rows[part], sizes[part]), model)
            made = as_stored(made)
            if features is None:
                features = np.empty((len(keys), *made.shape[1:]), np.float32)
            places = ranges(starts[part], sizes[part])
            features[places] = made
            if store is not None:
                store.add([keys[i] for i in places.tolist()], made, np.zeros(len(places), bool))
            if step is not None:
                step(start + len(part), len(todo))
    assert features is not None  # a word is known or was encoded
    if len(first) == len(texts):
        return features
    place = {text: i for i, text in enumerate(first)}
    of = np.array([place[text] for text in texts])
    return features[ranges(starts[of], sizes[of])]


def _check_finite(features: npt.NDArray[np.float32], rows: npt.NDArray[np.int64], model: str) -> None:
    broken = ~np.isfinite(features).all(axis=(1, 2))
    if broken.any():
        raise InputError(
            f"The model {model!r} makes numbers that are not finite of words in "
            f"{row_listing(np.unique(rows[broken]).tolist())}: give another model."
        )
