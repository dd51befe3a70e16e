"""Sentence embeddings: the mean over real tokens, whatever the batch, for every kind of model."""

import numpy as np
import pytest
import torch
from tokenizers import Tokenizer
from transformers import AutoConfig, AutoModel, AutoTokenizer

from clear_peft.errors import InputError
from clear_peft.pipeline.frozen_encoder import embed
from tiny_models import CONFIGS
from tiny_text import keyword_table, tiny_checkpoint

TEXTS = keyword_table(23, seed=0)["text"].tolist()


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    """The tokenizer of the tiny checkpoint with a model of any architecture, made once."""
    made = {}

    def make(architecture):
        if architecture not in made:
            folder = tiny_checkpoint(tmp_path_factory.mktemp(architecture))
            if architecture != "bert":
                tokenizer = AutoTokenizer.from_pretrained(folder, padding_side="left")
                tokenizer.model_input_names = ["input_ids", "attention_mask"]
                tokenizer.save_pretrained(folder)
                (folder / "model.safetensors").unlink()
                config = AutoConfig.for_model(architecture, **CONFIGS[architecture])
                with torch.random.fork_rng(devices=[]):
                    torch.manual_seed(0)
                    AutoModel.from_config(config).save_pretrained(folder)
            made[architecture] = str(folder)
        return made[architecture]

    return make


@pytest.mark.parametrize("architecture", ["bert", "gpt2", "llama", "t5"])
def test_a_row_is_the_mean_of_the_texts_own_tokens(checkpoint, architecture):
    folder = checkpoint(architecture)
    rows = embed(TEXTS, folder, batch_size=5)
    assert rows.shape == (23, 32)
    assert rows.dtype == np.float32
    tokenizer = Tokenizer.from_file(f"{folder}/tokenizer.json")
    model = AutoModel.from_pretrained(folder).eval()
    model = model.get_encoder() if architecture == "t5" else model
    for text, row in zip(TEXTS, rows, strict=True):
        with torch.no_grad():  # one text, no padding
            ids = torch.tensor([tokenizer.encode(text).ids])
            hidden = model(input_ids=ids).last_hidden_state[0]
        expected = hidden.mean(dim=0).numpy()
        np.testing.assert_allclose(row, expected / np.linalg.norm(expected), atol=1e-5)


def test_rows_have_unit_length_and_texts_of_one_kind_are_nearer(checkpoint):
    table = keyword_table(60, seed=1)
    rows = embed(table["text"].tolist(), checkpoint("bert"))
    np.testing.assert_allclose(np.linalg.norm(rows, axis=1), 1, atol=1e-6)
    alike = table["label"].to_numpy()[:, None] == table["label"].to_numpy()
    cosine = rows @ rows.T
    assert cosine[alike].mean() > cosine[~alike].mean() + 0.05


def test_texts_are_cut_at_max_length_and_at_the_tokenizers_own(checkpoint):
    long = "wheat " * 200
    short = embed([long, "wheat wheat anchor"], checkpoint("bert"), max_length=4)
    np.testing.assert_allclose(short[0], short[1], atol=1e-6)
    assert np.isfinite(embed([long], checkpoint("bert"))).all()  # 64 positions


def test_the_global_generator_is_left_as_it_was(checkpoint):
    before = torch.get_rng_state()
    embed(TEXTS, checkpoint("bert"))
    assert torch.equal(torch.get_rng_state(), before)


def test_wrong_input_is_refused(checkpoint, tmp_path):
    with pytest.raises(InputError, match="no examples"):
        embed([], checkpoint("bert"))
    with pytest.raises(InputError, match="Cannot load the tokenizer"):
        embed(TEXTS, str(tmp_path))
    folder = tiny_checkpoint(tmp_path / "model")
    (folder / "model.safetensors").unlink()
    with pytest.raises(InputError, match="Cannot load the model"):
        embed(TEXTS, str(folder))
