"""Frozen sentence embeddings: what a pretrained model makes of texts, without any training."""

from collections.abc import Sequence

import numpy as np
import torch
from torch.nn.functional import normalize
from transformers import DataCollatorWithPadding

from clear_peft.data import Examples, tokenize
from clear_peft.runs.models import check_length, load_encoder, load_tokenizer


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
    tokenizer = load_tokenizer(model, trust_remote_code=trust_remote_code)
    tokenizer.padding_side = "right"  # padding on the left would shift the positions of causal models
    encoder = load_encoder(model, trust_remote_code=trust_remote_code)
    max_length = min(max_length, tokenizer.model_max_length)
    check_length(encoder, max_length)
    tokens = tokenize(Examples(list(texts), None, np.arange(len(texts))), tokenizer, max_length)
    order = np.argsort(tokens["length"], kind="stable")
    tokens = tokens.remove_columns("length")
    collate = DataCollatorWithPadding(tokenizer)
    device = "cuda" if torch.cuda.is_available() else "cpu"
    encoder.to(device)
    rows = []
    for start in range(0, len(order), batch_size):
        batch = collate([tokens[i] for i in order[start : start + batch_size].tolist()]).to(device)
        hidden = encoder(**batch).last_hidden_state
        real = batch["attention_mask"].unsqueeze(-1)
        # scaling to unit length makes the mean of the sum
        rows.append(normalize((hidden * real).sum(dim=1)).cpu())
    embeddings = np.empty((len(order), rows[0].shape[1]), np.float32)
    embeddings[order] = torch.cat(rows).numpy()
    return embeddings
