"""Frozen features of texts: what a pretrained model makes of them, without any training."""

from collections.abc import Iterator, Sequence
from contextlib import nullcontext
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import normalize

from clear_peft.cpu import faster
from clear_peft.data.checks import row_listing
from clear_peft.data.tokens import check_room, token_lists, window_lists, word_lists
from clear_peft.errors import InputError
from clear_peft.hardware import bf16_pays, choose_device
from clear_peft.pipeline.models import check_length, load_encoder, load_tokenizer

_PADDING = {"input_ids": "pad_token_id", "token_type_ids": "pad_token_type_id"}


@torch.no_grad()
def embed(
    texts: Sequence[str],
    model: str,
    *,
    max_length: int = 128,
    batch_size: int = 64,
    trust_remote_code: bool = False,
) -> np.ndarray:
    """Embed texts by the mean of the last hidden states of their tokens.

    Runs in float32 and evaluation mode, on the GPU if there is one. Any pretrained model will do: of an
    encoder-decoder, the encoder is used.

    Args:
        texts: N texts, at least one.
        model: Hub name or path of the pretrained model.
        max_length: Tokens per text, special ones included; fewer where the tokenizer's own limit is lower.
            Default 128.
        batch_size: Texts per forward, of like length. Default 64.
        trust_remote_code: Whether code that comes with the model may run. Default False.

    Returns:
        Rows of unit length in the order of the texts, (N, D) float32.

    Raises:
        InputError: If the model cannot be loaded, has too few positions for ``max_length``, or a text has no
            token.
    """
    if not len(texts):
        raise InputError("There are no examples to embed; give at least one row.")
    encoder = FrozenEncoder(model, max_length=max_length, trust_remote_code=trust_remote_code)
    places, rows = [], []
    for place, outputs, real in encoder.forwards(texts, range(len(texts)), batch_size):
        places.append(place)
        # scaling to unit length makes the mean of the sum
        rows.append(normalize((outputs.last_hidden_state * real).sum(dim=1)).cpu())
    embeddings = np.empty((len(texts), rows[0].shape[1]), np.float32)
    embeddings[np.concatenate(places)] = torch.cat(rows).numpy()
    return embeddings


class FrozenEncoder:
    """A pretrained model and its tokenizer; of an encoder-decoder, the encoder.

    Args:
        name: Hub name or path.
        max_length: Tokens per text, special ones included; fewer where the tokenizer's own limit is lower.
        long_texts: What is read of longer texts: ``head``, ``tail``, or all in ``windows``. Default ``head``.
        device: Where it runs, as for ``clear_peft.hardware.choose_device``.
        trust_remote_code: Whether code that comes with the model may run.

    Raises:
        InputError: If the model cannot be loaded, has too few positions for ``max_length``, its tokenizer
            makes no windows, or there is no such device.
    """

    def __init__(
        self,
        name: str,
        *,
        max_length: int,
        long_texts: str = "head",
        device: str = "auto",
        trust_remote_code: bool = False,
    ) -> None:
        self._name = name
        self._device = choose_device(device)
        self._in_windows = long_texts == "windows"
        self._tokenizer = load_tokenizer(
            name,
            trust_remote_code=trust_remote_code,
            long_texts="head" if self._in_windows else long_texts,
        )
        if self._in_windows and not self._tokenizer.is_fast:
            raise InputError(
                f"The tokenizer {name!r} is a slow one and makes no windows: read the head or the tail of "
                "long texts."
            )
        self._max_length = min(max_length, self._tokenizer.model_max_length)
        check_room(self._tokenizer, self._max_length)
        self._model = load_encoder(name, trust_remote_code=trust_remote_code)
        check_length(self._model, self._max_length)
        self._model.to(self._device)

    def forwards(
        self, texts: Sequence[str], rows: Sequence[int] | np.ndarray, batch_size: int, **options: Any
    ) -> Iterator[tuple[np.ndarray, Any, Tensor]]:
        """Pass texts, or their windows, through the model, those of like length together.

        Args:
            texts: N texts.
            rows: Where they stand in the input, for sentences.
            batch_size: B, the texts or windows of a forward at the most.
            **options: For the model.

        Yields:
            Positions of the texts (B,), one for each window, the model's output, and where tokens are real,
            (B, T, 1).

        Raises:
            InputError: If a text has no token, or the model does not take text alone.
        """
        columns, text_of, _ = self._read(texts, rows)
        for chosen, outputs, real in self._passed(columns, batch_size, **options):
            yield text_of[chosen], outputs, real

    def _read(
        self, texts: Sequence[str], rows: Sequence[int] | np.ndarray
    ) -> tuple[dict[str, Any], np.ndarray, np.ndarray]:
        """Columns of M texts or windows, the text of each, (M,), and which texts are cut, (N,) bool."""
        if self._in_windows:
            every = window_lists(texts, rows, self._tokenizer, self._max_length)
            return *every, np.zeros(len(texts), bool)
        columns, cut = token_lists(texts, rows, self._tokenizer, self._max_length)
        return columns, np.arange(len(texts)), cut

    def _passed(
        self, columns: dict[str, Any], batch_size: int, **options: Any
    ) -> Iterator[tuple[np.ndarray, Any, Tensor]]:
        """Positions of tokenised windows (B,), the model's output, and where tokens are real, (B, T, 1)."""
        order = np.argsort([len(ids) for ids in columns["input_ids"]], kind="stable")
        for start in range(0, len(order), batch_size):
            chosen = order[start : start + batch_size]
            batch = {
                name: self._padded(name, [lists[i] for i in chosen.tolist()])
                for name, lists in columns.items()
            }
            try:
                outputs = self._model(**batch, **options)
            except (TypeError, ValueError, AttributeError) as error:
                reason = str(error).strip().partition("\n")[0].rstrip(".")
                raise InputError(
                    f"The model {self._name!r} does not take text alone ({reason}): give a text encoder."
                ) from error
            yield chosen, outputs, batch["attention_mask"].unsqueeze(-1)

    @torch.no_grad()
    def layer_means(
        self, texts: Sequence[str], rows: Sequence[int] | np.ndarray, batch_size: int
    ) -> tuple[np.ndarray, np.ndarray]:
        """Means over the real tokens of the hidden states of a middle layer and the last two.

        Of a text in windows, over the tokens of all; those in an overlap count twice. In bf16 where that is
        faster.

        Args:
            texts: N texts, at least one.
            rows: Where they stand in the input, for sentences.
            batch_size: Texts or windows of a forward at the most.

        Returns:
            (N, V, D) float32; V is 3, or 2 of a model of one or two layers. And whether texts have tokens
            that are not read, (N,) bool.

        Raises:
            InputError: If a text has no token, or the model has no hidden states of its tokens.
        """
        sums, counts = np.empty((0, 0, 0), np.float32), np.zeros(len(texts), np.float32)
        columns, text_of, cut = self._read(texts, rows)
        with self._in_bf16(), faster(self._device):
            for chosen, outputs, real in self._passed(columns, batch_size, output_hidden_states=True):
                place = text_of[chosen]
                layers = [(h.float() * real).sum(dim=1) for h in self._layers(outputs, real)]
                part = torch.stack(layers, dim=1).float().cpu().numpy()
                if not sums.size:
                    sums = np.zeros((len(texts), *part.shape[1:]), np.float32)
                np.add.at(sums, place, part)
                np.add.at(counts, place, real.sum(dim=(1, 2)).float().cpu().numpy())
        return sums / counts[:, None, None], cut

    @torch.no_grad()
    def word_means(
        self, sentences: Sequence[Sequence[str]], rows: Sequence[int] | np.ndarray, batch_size: int
    ) -> np.ndarray:
        """Means over the tokens of each word of the hidden states of a middle layer and the last two.

        Long sentences are read in windows, which overlap by a quarter; tokens in an overlap count twice. A
        word without a token of its own gets the mean of the other words of its sentence.

        Args:
            sentences: N lists of words, W words in all, at least one each.
            rows: Where they stand in the input, for sentences.
            batch_size: Windows of a forward at the most.

        Returns:
            (W, V, D) float32; V is 3, or 2 of a model of one or two layers.

        Raises:
            InputError: If the tokenizer is a slow one or makes no token of a sentence, or the model has no
                hidden states of its tokens.
        """
        if not self._tokenizer.is_fast:
            raise InputError(
                f"The tokenizer {self._name!r} is a slow one and does not say which token belongs to which "
                "word: give a model with a fast tokenizer."
            )
        columns, sentence_of, pairs = word_lists(sentences, rows, self._tokenizer, self._max_length)
        sizes = np.array([len(words) for words in sentences])
        starts, total = np.cumsum(sizes) - sizes, int(sizes.sum())
        sums, counts = torch.zeros(0), np.zeros(total, np.float32)
        with self._in_bf16(), faster(self._device):
            for chosen, outputs, real in self._passed(columns, batch_size, output_hidden_states=True):
                window = np.repeat(np.arange(len(chosen)), [len(pairs[i]) for i in chosen.tolist()])
                token, word = np.concatenate([pairs[i] for i in chosen.tolist()]).T
                word = word + starts[sentence_of[chosen[window]]]
                part = torch.stack(
                    [h[window, token].float().cpu() for h in self._layers(outputs, real)], dim=1
                )
                if not sums.numel():
                    sums = torch.zeros(total, *part.shape[1:])
                sums.index_add_(0, torch.from_numpy(word), part)
                np.add.at(counts, word, 1)
        means = sums.numpy() / np.maximum(counts, 1)[:, None, None]
        return _filled(means, counts == 0, np.repeat(np.arange(len(sizes)), sizes), np.asarray(rows))

    def _in_bf16(self) -> Any:
        return torch.autocast(self._device, torch.bfloat16) if bf16_pays(self._device) else nullcontext()

    def _layers(self, outputs: Any, real: Tensor) -> list[Tensor]:
        states = getattr(outputs, "hidden_states", None) or ()
        last = len(states) - 1
        chosen = [states[i] for i in sorted({last // 2, last - 1, last})] if last > 0 else []
        if not chosen or any(h.shape != (*real.shape[:2], chosen[-1].shape[-1]) for h in chosen):
            raise InputError(
                f"The model {self._name!r} gives no hidden states for each token: give a text encoder, such "
                "as sentence-transformers/all-MiniLM-L6-v2."
            )
        return chosen

    def _padded(self, name: str, lists: list[list[int]]) -> Tensor:
        # on the right: on the left it would shift the positions of causal models
        filler = getattr(self._tokenizer, _PADDING[name]) if name in _PADDING else 0
        longest = max(map(len, lists))
        return torch.tensor([ids + [filler] * (longest - len(ids)) for ids in lists], device=self._device)


def _filled(means: np.ndarray, empty: np.ndarray, sentence: np.ndarray, rows: np.ndarray) -> np.ndarray:
    """Features of words (W, V, D), those without a token by the others of their sentence, (W,)."""
    for each in np.unique(sentence[empty]):
        own = sentence == each
        if empty[own].all():
            raise InputError(
                f"The tokenizer makes no token of any word in {row_listing([int(rows[each])])}; remove "
                "the sentence."
            )
        means[own & empty] = means[own & ~empty].mean(axis=0)
    return means
