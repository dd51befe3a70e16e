"""A tiny text classification checkpoint with its tokenizer, and a table that it can learn: no network."""

from pathlib import Path

import numpy as np
import pandas as pd
import torch
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors
from transformers import BertConfig, BertForSequenceClassification, PreTrainedTokenizerFast

KEYWORDS = {
    "farming": ("wheat", "barley", "tractor", "harvest", "plough", "orchard"),
    "sailing": ("anchor", "harbour", "rudder", "mast", "keel", "tide"),
    "weaving": ("loom", "yarn", "shuttle", "thread", "cloth", "spindle"),
}
_FILLER = ("the", "a", "of", "and", "old", "new", "with", "under", "great", "small", "very", "seldom")
_SPECIAL = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")


def tiny_checkpoint(folder: Path, positions: int = 64) -> Path:
    """Write a random BERT (2 layers, width 32) and its word-level tokenizer; returns the folder.

    The same weights at every call; the global generator is left as it was.
    """
    words = [*_SPECIAL, *_FILLER, *(word for group in KEYWORDS.values() for word in group)]
    vocabulary = {word: i for i, word in enumerate(words)}
    core = Tokenizer(models.WordLevel(vocabulary, unk_token="[UNK]"))
    core.normalizer = normalizers.Lowercase()
    core.pre_tokenizer = pre_tokenizers.Whitespace()
    core.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]",
        pair="[CLS] $A [SEP] $B [SEP]",
        special_tokens=[("[CLS]", vocabulary["[CLS]"]), ("[SEP]", vocabulary["[SEP]"])],
    )
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=core,
        unk_token="[UNK]",
        pad_token="[PAD]",
        cls_token="[CLS]",
        sep_token="[SEP]",
        mask_token="[MASK]",
        model_max_length=positions,
    )
    config = BertConfig(
        vocab_size=len(words),
        hidden_size=32,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=48,
        max_position_embeddings=positions,
        type_vocab_size=2,
        pad_token_id=0,
        initializer_range=0.2,  # at 0.02 a model of this size hardly tells words apart
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = BertForSequenceClassification(config)
        # as after pretraining, words of one kind are neighbours: else an adapter has nothing to build on
        embeddings = model.bert.embeddings.word_embeddings.weight.data
        for group in KEYWORDS.values():
            embeddings[[vocabulary[word] for word in group]] += 2 * torch.randn(config.hidden_size)
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def keyword_table(rows: int, seed: int, noise: float = 0.0) -> pd.DataFrame:
    """Texts whose keywords tell the class, all different.

    Args:
        rows: Number of rows; the classes take turns.
        seed: Seed of everything random.
        noise: Share of the rows whose ``label`` is one of the other classes.

    Returns:
        ``text``, ``label`` (as given) and ``clean_label``.
    """
    rng = np.random.default_rng(seed)
    names = list(KEYWORDS)
    clean = np.arange(rows) % len(names)
    given = clean.copy()
    wrong = rng.permutation(rows)[: round(noise * rows)]
    given[wrong] = (given[wrong] + rng.integers(1, len(names), len(wrong))) % len(names)
    texts: list[str] = []
    seen: set[str] = set()
    for label in clean:
        while True:
            words = [
                *rng.choice(KEYWORDS[names[label]], rng.integers(2, 4)),
                *rng.choice(_FILLER, rng.integers(2, 7)),
            ]
            text = " ".join(rng.permutation(words))
            if text not in seen:
                break
        seen.add(text)
        texts.append(text)
    return pd.DataFrame(
        {"text": texts, "label": [names[i] for i in given], "clean_label": [names[i] for i in clean]}
    )
