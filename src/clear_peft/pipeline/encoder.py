"""Features of texts by a frozen pretrained model: hidden states of three layers, kept for the next time."""

import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from clear_peft.data.checks import row_listing
from clear_peft.data.tokens import warn_of_cut
from clear_peft.errors import InputError
from clear_peft.lazy import quick_imports
from clear_peft.pipeline.feature_cache import FeatureCache, as_stored, key_of

if TYPE_CHECKING:
    from clear_peft.pipeline.frozen_encoder import FrozenEncoder

# texts between two writes of the cache
PART = 1 << 13
# bounds the memory of a forward
_TOKENS = 1 << 13
_WORD = re.compile(r"[^\W\d_]{2}")
LONG_TEXTS = ("head", "tail", "windows")
_JOINTS = re.compile(r"[_.\-\s]+")


def encode(
    texts: Sequence[str],
    model: str,
    *,
    max_length: int = 128,
    long_texts: str = "head",
    batch_size: int = 64,
    cache: Path | None = None,
    device: str = "auto",
    trust_remote_code: bool = False,
    step: Callable[[int, int], None] | None = None,
) -> npt.NDArray[np.float32]:
    """Encode texts by a frozen model, without gradients, in evaluation mode.

    A text's features are the means over its tokens of the hidden states of a middle layer and the last two,
    not normalised; of windows, over the tokens of all. Equal texts are encoded once, and where all are in
    the cache torch is not imported. Features are rounded to float16, unless a text has one that is too large.
    A warning says how many texts are cut.

    Args:
        texts: N texts, at least one.
        model: Hub name or path of a pretrained model; of an encoder-decoder, the encoder is used.
        max_length: Tokens per text, special ones included; fewer where the tokenizer's own limit is lower.
            Default 128.
        long_texts: What is read of longer texts: their ``head``, their ``tail``, or all of them in
            ``windows`` of that length, which overlap by a quarter. Default ``head``.
        batch_size: Texts of a forward at the most, of like length; fewer where texts may be longer than 128
            tokens. Default 64.
        cache: Folder of features that are known. Default: none.
        device: Where the model runs, as for ``clear_peft.hardware.choose_device``. Default ``auto``.
        trust_remote_code: Whether code that comes with the model may run. Default False.
        step: Called with how many different texts are done, and of how many.

    Returns:
        (N, V, D) float32; V is 3, or 2 of a model of one or two layers.

    Raises:
        InputError: If the model cannot be loaded, gives no hidden states for each token or numbers that are
            not finite, or has too few positions for ``max_length``, or a text has no token.
    """
    if not len(texts):
        raise InputError("There are no texts to encode; give at least one row.")
    if long_texts not in LONG_TEXTS:
        raise InputError(f"There is no long_texts {long_texts!r}: choose from {', '.join(LONG_TEXTS)}.")
    every = [key_of(text) for text in texts]
    first: dict[bytes, int] = {}
    for row, key in enumerate(every):
        first.setdefault(key, row)
    keys, rows = list(first), np.fromiter(first.values(), np.int64, len(first))
    store = None if cache is None else FeatureCache(cache, model, max_length, long_texts)
    known, cut, features = np.zeros(len(keys), bool), np.zeros(len(keys), bool), None
    if store is not None:
        known, cut, features = store.read(keys)
    todo = np.flatnonzero(~known)
    if len(todo):
        with quick_imports():
            from clear_peft.pipeline.frozen_encoder import FrozenEncoder  # torch takes seconds

        encoder = FrozenEncoder(
            model,
            max_length=max_length,
            long_texts=long_texts,
            device=device,
            trust_remote_code=trust_remote_code,
        )
        if cache is not None:
            # what was downloaded has a version only now
            store = FeatureCache(cache, model, max_length, long_texts)
        size = forward_size(max_length, batch_size)
        for start in range(0, len(todo), PART):
            part = todo[start : start + PART]
            given = [texts[row] for row in rows[part]]
            made, cut[part] = encode_by(encoder, given, rows[part], model, size)
            if features is None:
                features = np.empty((len(keys), *made.shape[1:]), np.float32)
            features[part] = made
            if store is not None:
                store.add([keys[i] for i in part], made, cut[part])
            if step is not None:
                step(start + len(part), len(todo))
    assert features is not None  # a text is known or was encoded
    if cut.any():
        warn_of_cut(int(cut.sum()), len(keys), "different texts", max_length)
    if len(keys) == len(texts):
        return features
    place = {key: i for i, key in enumerate(keys)}
    return features[[place[key] for key in every]]


def forward_size(max_length: int, batch_size: int = 64) -> int:
    """How many texts of at most so many tokens a forward takes."""
    return max(1, min(batch_size, _TOKENS // max(max_length, 1)))


def encode_by(
    encoder: "FrozenEncoder", texts: Sequence[str], rows: npt.NDArray[np.int64], model: str, size: int
) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.bool_]]:
    """Encode texts by a model that is loaded, and say which of them are cut.

    Args:
        encoder: The model.
        texts: N texts, at least one.
        rows: Where they stand in the input, for sentences, (N,).
        model: Its name, for sentences.
        size: Texts of a forward at the most.

    Returns:
        Features (N, V, D) float32, rounded as ``as_stored`` does, and (N,) bool.

    Raises:
        InputError: If a text has no token, or the model makes numbers that are not finite.
    """
    features, cut = encoder.layer_means(texts, rows, size)
    _check_finite(features, rows, model)
    return as_stored(features), cut


def name_texts(names: Sequence[str]) -> list[str] | None:
    """The names of classes as texts: underscores, dots and hyphens become spaces.

    Returns:
        C texts; None where no name is a word, such as numbers or single letters, and so says nothing.
    """
    if not any(_WORD.search(name) for name in names):
        return None
    return [_JOINTS.sub(" ", name).strip() or name for name in names]


def similarities(rows: npt.NDArray[np.float32], others: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    """Cosine similarities of rows (N, D) to others (C, D), (N, C)."""
    tiny = np.finfo(np.float32).tiny
    lengths = np.linalg.norm(rows, axis=1, keepdims=True) * np.linalg.norm(others, axis=1)
    return (rows @ others.T) / np.maximum(lengths, tiny)


def _check_finite(features: npt.NDArray[np.float32], rows: npt.NDArray[np.int64], model: str) -> None:
    broken = ~np.isfinite(features).all(axis=(1, 2))
    if broken.any():
        raise InputError(
            f"The model {model!r} makes numbers that are not finite of the text in "
            f"{row_listing(rows[broken].tolist())}: give another model."
        )
