"""Tiny random classification models, one per architecture, built from their configurations alone."""

from typing import Any

import torch
from transformers import (
    AutoConfig,
    AutoModelForImageClassification,
    AutoModelForSequenceClassification,
    TrainingArguments,
)
from transformers.modeling_utils import PreTrainedModel

_LENGTHS = (9, 4, 7, 2)
_VOCABULARY = 99
_TEXT = {"vocab_size": _VOCABULARY, "pad_token_id": 1, "bos_token_id": 0, "eos_token_id": 2}
_ENCODER = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 48}
_DECODER = {**_TEXT, **_ENCODER, "num_key_value_heads": 1, "max_position_embeddings": 64}
_BERT = {**_TEXT, **_ENCODER, "max_position_embeddings": 64, "type_vocab_size": 1}

CONFIGS: dict[str, dict[str, Any]] = {
    "bert": _BERT,
    "roberta": _BERT,
    "distilbert": {**_TEXT, "dim": 32, "n_layers": 2, "n_heads": 2, "hidden_dim": 48},
    "electra": {**_BERT, "embedding_size": 16},
    "mpnet": _BERT,
    "deberta-v2": {
        **_BERT,
        "relative_attention": True,
        "pos_att_type": ["p2c", "c2p"],
        "position_biased_input": False,
        "position_buckets": 8,
        "norm_rel_ebd": "layer_norm",
        "share_att_key": True,
    },
    "modernbert": {**_TEXT, **_ENCODER, "cls_token_id": 0, "sep_token_id": 2, "reference_compile": False},
    "gpt2": {**_TEXT, "n_embd": 32, "n_layer": 2, "n_head": 2, "n_positions": 64},
    "llama": _DECODER,
    "qwen3": {**_DECODER, "head_dim": 16},
    "opt": {**_TEXT, **_ENCODER, "ffn_dim": 48, "word_embed_proj_dim": 32, "max_position_embeddings": 64},
    "t5": {
        "vocab_size": _VOCABULARY,
        "d_model": 32,
        "d_kv": 16,
        "d_ff": 48,
        "num_layers": 2,
        "num_heads": 2,
        "pad_token_id": 1,
        "eos_token_id": 2,
        "decoder_start_token_id": 1,
    },
    "vit": {**_ENCODER, "image_size": 16, "patch_size": 8, "num_channels": 3},
}
ARCHITECTURES = tuple(CONFIGS)
# peft's defaults are sized for real models: options for tiny ones
SMALL = {
    "adalora": {"total_step": 10},
    "adamss": {"r": 4, "num_subspaces": 2},
    "boft": {"boft_block_size": 4},
    "c3a": {"block_size": 4},
    "fourierft": {"n_frequency": 8},
    "miss": {"r": 4},
    "oft": {"oft_block_size": 4},
    "psoft": {"r": 4},
    "randlora": {"r": 4},
    "road": {"group_size": 4},
    "shira": {"r": 2},
    "supertuning": {"sparsity": 0.5},
    "vblora": {"vector_length": 16, "num_vectors": 8, "topk": 2},
    "waveft": {"n_frequency": 8},
}
# the field of TrainingArguments, which transformers 5.23 has renamed
CHECKPOINTING = next(
    f"{kind}_checkpointing"
    for kind in ("activation", "gradient")
    if hasattr(TrainingArguments, f"{kind}_checkpointing")
)


def tiny(
    architecture: str, num_labels: int = 3, seed: int = 0
) -> tuple[PreTrainedModel, dict[str, torch.Tensor]]:
    """Build a tiny random classifier in eval mode and a batch of four examples for it.

    Args:
        architecture: One of `ARCHITECTURES` (a transformers `model_type`).
        num_labels: Number of classes.
        seed: Seed of the weights and of the batch; the global generator is left as it was.

    Returns:
        The model, and its batch: `input_ids` and `attention_mask` (4, 9) int64 padded on the right, or
        `pixel_values` (4, 3, 16, 16) float32 for ViT.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        config = AutoConfig.for_model(architecture, num_labels=num_labels, **CONFIGS[architecture])
        auto = (
            AutoModelForImageClassification if architecture == "vit" else AutoModelForSequenceClassification
        )
        model = auto.from_config(config).eval()
        batch = _pixels() if architecture == "vit" else _tokens(config)
    return model, batch


def _pixels() -> dict[str, torch.Tensor]:
    return {"pixel_values": torch.randn(4, 3, 16, 16)}


def _tokens(config: Any) -> dict[str, torch.Tensor]:
    mask = (torch.arange(max(_LENGTHS)) < torch.tensor(_LENGTHS)[:, None]).long()
    ids = torch.randint(3, _VOCABULARY, mask.shape)
    # T5 pools at the end-of-sequence token, which every example must hold once.
    ids[torch.arange(len(_LENGTHS)), torch.tensor(_LENGTHS) - 1] = config.eos_token_id or 2
    return {"input_ids": ids.where(mask.bool(), config.pad_token_id), "attention_mask": mask}
