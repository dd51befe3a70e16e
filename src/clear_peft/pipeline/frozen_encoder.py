"""Frozen features of texts: what a pretrained model makes of them, without any training."""

from collections.abc import Iterator, Sequence
from contextlib import nullcontext
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import normalize

from clear_peft.data.tokens import are_longer, check_room, token_lists
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
        device: Where it runs, as for ``clear_peft.hardware.choose_device``.
        trust_remote_code: Whether code that comes with the model may run.

    Raises:
        InputError: If the model cannot be loaded, has too few positions for ``max_length``, or there is no
            such device.
    """

    def __init__(
        self, name: str, *, max_length: int, device: str = "auto", trust_remote_code: bool = False
    ) -> None:
        self._name = name
        self._device = choose_device(device)
        self._tokenizer = load_tokenizer(name, trust_remote_code=trust_remote_code)
        self._max_length = min(max_length, self._tokenizer.model_max_length)
        check_room(self._tokenizer, self._max_length)
        self._model = load_encoder(name, trust_remote_code=trust_remote_code)
        check_length(self._model, self._max_length)
        self._model.to(self._device)

    def forwards(
        self, texts: Sequence[str], rows: Sequence[int] | np.ndarray, batch_size: int, **options: Any
    ) -> Iterator[tuple[np.ndarray, Any, Tensor]]:
        """Pass texts through the model, those of like length together.

        Args:
            texts: N texts.
            rows: Where they stand in the input, for sentences.
            batch_size: B, the texts of a forward at the most.
            **options: For the model.

        Yields:
            Positions of the texts (B,), the model's output, and where tokens are real, (B, T, 1).

        Raises:
            InputError: If a text has no token, or the model does not take text alone.
        """
        columns = token_lists(texts, rows, self._tokenizer, self._max_length)
        order = np.argsort([len(ids) for ids in columns["input_ids"]], kind="stable")
        for start in range(0, len(order), batch_size):
            places = order[start : start + batch_size]
            batch = {
                name: self._padded(name, [lists[i] for i in places.tolist()])
                for name, lists in columns.items()
            }
            try:
                outputs = self._model(**batch, **options)
            except (TypeError, ValueError, AttributeError) as error:
                reason = str(error).strip().partition("\n")[0].rstrip(".")
                raise InputError(
                    f"The model {self._name!r} does not take text alone ({reason}): give a text encoder."
                ) from error
            yield places, outputs, batch["attention_mask"].unsqueeze(-1)

    @torch.no_grad()
    def layer_means(
        self, texts: Sequence[str], rows: Sequence[int] | np.ndarray, batch_size: int
    ) -> np.ndarray:
        """Means over the real tokens of the hidden states of a middle layer and the last two.

        In bf16 where that is faster.

        Args:
            texts: N texts, at least one.
            rows: Where they stand in the input, for sentences.
            batch_size: Texts of a forward at the most.

        Returns:
            (N, V, D) float32; V is 3, or 2 of a model of one or two layers.

        Raises:
            InputError: If a text has no token, or the model has no hidden states of its tokens.
        """
        places, parts = [], []
        with torch.autocast(self._device, torch.bfloat16) if bf16_pays(self._device) else nullcontext():
            for place, outputs, real in self.forwards(texts, rows, batch_size, output_hidden_states=True):
                count = real.sum(dim=1).float()
                means = [(h.float() * real).sum(dim=1) / count for h in self._layers(outputs, real)]
                places.append(place)
                parts.append(torch.stack(means, dim=1).float().cpu())
        features = np.empty((len(texts), *parts[0].shape[1:]), np.float32)
        features[np.concatenate(places)] = torch.cat(parts).numpy()
        return features

    def are_longer(self, texts: Sequence[str], rows: Sequence[int] | np.ndarray) -> np.ndarray:
        """Whether texts have more tokens than the model reads, (N,) bool."""
        return are_longer(texts, rows, self._tokenizer, self._max_length)

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
