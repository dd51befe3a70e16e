"""Features by a frozen model: means over real tokens of three layers, from the cache where they are known."""

import subprocess
import sys
import warnings

import numpy as np
import pytest
import torch
from tokenizers import Tokenizer
from transformers import AutoConfig, AutoModel, AutoTokenizer, PreTrainedTokenizerFast

from clear_peft.errors import ClearWarning, InputError
from clear_peft.pipeline import frozen_encoder
from clear_peft.pipeline.encoder import encode, name_texts, similarities
from clear_peft.pipeline.feature_cache import FeatureCache, as_stored, key_of
from tiny_models import CONFIGS
from tiny_text import keyword_table, tiny_checkpoint

TEXTS = keyword_table(23, seed=0)["text"].tolist()


def _checkpoint(folder, architecture, **changes):
    """The tokenizer of the tiny checkpoint with a model of any architecture."""
    tiny_checkpoint(folder)
    tokenizer = AutoTokenizer.from_pretrained(folder, padding_side="left")
    tokenizer.model_input_names = ["input_ids", "attention_mask"]
    tokenizer.save_pretrained(folder)
    (folder / "model.safetensors").unlink()
    config = AutoConfig.for_model(architecture, **{**CONFIGS.get(architecture, {}), **changes})
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        AutoModel.from_config(config).save_pretrained(folder)
    return str(folder)


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return str(tiny_checkpoint(tmp_path_factory.mktemp("model")))


@pytest.fixture
def forwards(monkeypatch):
    """Texts that go through a model from here on."""
    passed = []
    real = frozen_encoder.FrozenEncoder.layer_means

    def counted(self, texts, rows, batch_size):
        passed.extend(texts)
        return real(self, texts, rows, batch_size)

    monkeypatch.setattr(frozen_encoder.FrozenEncoder, "layer_means", counted)
    return passed


@pytest.fixture
def in_float32(monkeypatch):
    monkeypatch.setattr(frozen_encoder, "bf16_pays", lambda device: False)


@pytest.mark.parametrize(
    ("architecture", "layers", "chosen"),
    [("gpt2", 6, [3, 5, 6]), ("llama", 2, [1, 2]), ("bert", 1, [0, 1]), ("t5", 3, [1, 2, 3])],
)
def test_features_are_means_over_own_tokens_of_three_layers(
    tmp_path, in_float32, architecture, layers, chosen
):
    name = {"gpt2": "n_layer", "t5": "num_layers"}.get(architecture, "num_hidden_layers")
    folder = _checkpoint(tmp_path, architecture, **{name: layers})
    features = encode(TEXTS, folder, batch_size=5)
    assert features.shape == (23, len(chosen), 32)
    assert features.dtype == np.float32
    tokenizer = Tokenizer.from_file(f"{folder}/tokenizer.json")
    whole = AutoModel.from_pretrained(folder).eval()
    whole = whole.get_encoder() if architecture == "t5" else whole
    for text, row in zip(TEXTS, features, strict=True):
        with torch.no_grad():  # one text, no padding
            ids = torch.tensor([tokenizer.encode(text).ids])
            states = whole(input_ids=ids, output_hidden_states=True).hidden_states
        expected = np.stack([states[layer][0].mean(dim=0).numpy() for layer in chosen])
        np.testing.assert_allclose(row, expected, rtol=2e-3, atol=1e-4)  # rounded to float16


def test_bf16_changes_little(model, monkeypatch):
    exact, rough = (
        (monkeypatch.setattr(frozen_encoder, "bf16_pays", lambda device, on=on: on), encode(TEXTS, model))[1]
        for on in (False, True)
    )
    assert not np.array_equal(exact, rough)
    lengths = np.linalg.norm(exact, axis=-1) * np.linalg.norm(rough, axis=-1)
    assert ((exact * rough).sum(axis=-1) / lengths).min() > 0.999


def test_equal_texts_are_encoded_once(model, forwards):
    features = encode([TEXTS[0], TEXTS[1], TEXTS[0]], model)
    assert sorted(forwards) == sorted(TEXTS[:2])
    assert np.array_equal(features[0], features[2])
    assert not np.array_equal(features[0], features[1])


def test_what_is_cached_is_not_encoded_again(model, forwards, tmp_path):
    first = encode(TEXTS[:9], model, cache=tmp_path)
    assert len(forwards) == 9
    assert np.array_equal(encode(TEXTS[:9][::-1], model, cache=tmp_path), first[::-1])
    assert len(forwards) == 9
    more = encode(TEXTS, model, cache=tmp_path)
    assert sorted(forwards[9:]) == sorted(TEXTS[9:])
    assert np.array_equal(more[:9], first)
    assert np.array_equal(encode(TEXTS, model, cache=tmp_path), more)
    assert len(forwards) == 23


def test_another_length_or_model_is_another_cache(model, forwards, tmp_path):
    encode(TEXTS, model, cache=tmp_path / "cache")
    for _ in range(2):  # the cache knows, too, which are cut
        with pytest.warns(
            ClearWarning, match="23 of 23 different texts are longer than --max-length, 4 tokens"
        ):
            encode(TEXTS, model, cache=tmp_path / "cache", max_length=4)
    assert len(forwards) == 46
    other = tiny_checkpoint(tmp_path / "other")
    before = encode(TEXTS, str(other), cache=tmp_path / "cache")
    assert len(forwards) == 69
    weights = AutoModel.from_pretrained(other)
    with torch.no_grad():
        weights.embeddings.word_embeddings.weight += 1
    weights.save_pretrained(other)  # other weights in the same folder
    after = encode(TEXTS, str(other), cache=tmp_path / "cache")
    assert len(forwards) == 92
    assert not np.allclose(before, after)


@pytest.mark.parametrize(
    "damage", [lambda data: b"x" * 99, lambda data: data[:-1] + b"\x99", lambda data: b""]
)
def test_a_damaged_cache_is_passed_over(model, forwards, tmp_path, damage):
    first = encode(TEXTS, model, cache=tmp_path)
    (file,) = tmp_path.rglob("*.safetensors")
    file.write_bytes(damage(file.read_bytes()))
    np.testing.assert_array_equal(encode(TEXTS, model, cache=tmp_path), first)
    assert len(forwards) == 46


def test_a_cache_that_cannot_be_written_is_no_error(model, tmp_path):
    (tmp_path / "file").write_text("x")
    assert np.array_equal(encode(TEXTS, model, cache=tmp_path / "file"), encode(TEXTS, model))


def test_the_cache_pickles_nothing_and_is_for_its_owner(model, tmp_path):
    encode(TEXTS, model, cache=tmp_path)
    files = [path for path in tmp_path.rglob("*") if path.is_file()]
    assert [path.suffix for path in files] == [".safetensors"]
    assert files[0].parent.stat().st_mode & 0o077 == 0


def test_a_feature_too_large_for_float16_stays_as_it_is(tmp_path):
    features = np.array([[[1.0001, 2]], [[7e4, 1.0001]]], np.float32)
    stored = as_stored(features)
    assert stored[0, 0, 0] == np.float32(np.float16(1.0001)) != features[0, 0, 0]
    assert np.array_equal(stored[1], features[1])
    keys = [key_of("a"), key_of("b"), key_of("c")]
    store = FeatureCache(tmp_path, "model", 128, "head")
    store.add(keys[:2], stored, np.array([True, False]))
    store.add(keys[2:], stored[:1], np.array([True]))
    known, cut, read = FeatureCache(tmp_path, "model", 128, "head").read([*keys[::-1], key_of("d")])
    assert known.tolist() == [True, True, True, False]
    assert cut.tolist() == [True, False, True, False]
    assert np.array_equal(read[:3], stored[[0, 1, 0]])


def test_a_cached_pass_imports_no_torch(model, tmp_path):
    encode(TEXTS, model, cache=tmp_path)
    code = (
        "import sys; from pathlib import Path; from clear_peft.pipeline.encoder import encode; "
        f"encode({TEXTS!r}, {model!r}, cache=Path({str(tmp_path)!r})); "
        "sys.exit(bool({'torch', 'transformers', 'datasets', 'peft'} & set(sys.modules)))"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_progress_counts_different_texts(model, monkeypatch):
    monkeypatch.setattr("clear_peft.pipeline.encoder.PART", 10)
    steps = []
    encode([*TEXTS, *TEXTS], model, step=lambda done, total: steps.append((done, total)))
    assert steps == [(10, 23), (20, 23), (23, 23)]


def test_models_that_are_no_text_encoders_are_refused(tmp_path):
    sizes = {"hidden_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 48}
    parts = {
        "text_config": {**sizes, "vocab_size": 99},
        "vision_config": {**sizes, "image_size": 8, "patch_size": 4},
    }
    clip = _checkpoint(tmp_path / "clip", "clip", projection_dim=16, **parts)
    with pytest.raises(InputError, match=r"does not take text alone \(.*\): give a text encoder"):
        encode(TEXTS, clip)
    shrinking = {
        "architectures": ["FunnelModel"],
        "block_sizes": [1, 1],
        "d_model": 32,
        "n_head": 2,
        "d_head": 16,
        "d_inner": 48,
        "vocab_size": 99,
    }
    funnel = _checkpoint(tmp_path / "funnel", "funnel", **shrinking)
    with pytest.raises(InputError, match="gives no hidden states for each token"):
        encode(TEXTS, funnel)


def test_numbers_that_are_not_finite_are_refused(tmp_path):
    folder = tiny_checkpoint(tmp_path)
    broken = AutoModel.from_pretrained(folder)
    with torch.no_grad():
        broken.embeddings.word_embeddings.weight.fill_(torch.nan)
    broken.save_pretrained(folder)
    with pytest.raises(InputError, match="not finite of the text in 23 rows"):
        encode(TEXTS, str(folder))


def test_wrong_input_is_refused(model, tmp_path):
    with pytest.raises(InputError, match="no texts"):
        encode([], model)
    with pytest.raises(InputError, match="choose more than 2"):
        encode(TEXTS, model, max_length=2)
    with pytest.raises(InputError, match="Cannot load the tokenizer"):
        encode(TEXTS, str(tmp_path))


def test_names_become_texts_where_they_are_words():
    assert name_texts(["card_arrival", "lost-card", "a.b c"]) == ["card arrival", "lost card", "a b c"]
    assert name_texts(["0", "1", "-1"]) is None
    assert name_texts(["A", "B"]) is None
    assert name_texts(["--", "word"]) == ["--", "word"]


def test_similarities_are_cosines():
    rows = np.array([[3, 4], [0, 0], [-1, 0]], np.float32)
    found = similarities(rows, np.array([[1, 0], [0, 2]], np.float32))
    np.testing.assert_allclose(found, [[0.6, 0.8], [0, 0], [-1, 0]], atol=1e-7)


@pytest.mark.parametrize("long_texts", ["head", "tail", "windows"])
def test_what_is_read_of_long_texts(model, in_float32, tmp_path, long_texts):
    texts = [*TEXTS, " ".join(TEXTS[:5])]
    room = 6  # of 8 tokens
    with warnings.catch_warnings(record=True) as noted:
        warnings.simplefilter("always")
        features = encode(texts, model, max_length=8, long_texts=long_texts, cache=tmp_path)
        again = encode(texts, model, max_length=8, long_texts=long_texts, cache=tmp_path)
    assert np.array_equal(features, again)
    assert [one.category for one in noted] == [ClearWarning] * (0 if long_texts == "windows" else 2)
    tokenizer = AutoTokenizer.from_pretrained(model)
    whole = AutoModel.from_pretrained(model).eval()
    for text, row in zip(texts, features, strict=True):
        ids = tokenizer(text, add_special_tokens=False)["input_ids"]
        read = {
            "head": [ids[:room]],
            "tail": [ids[-room:]],
            "windows": [ids[at : at + room] for at in range(0, max(len(ids) - 1, 1), room - 1)],
        }[long_texts]
        tokens = []
        for part in read:
            part = torch.tensor([[tokenizer.cls_token_id, *part, tokenizer.sep_token_id]])
            with torch.no_grad():
                states = whole(part, output_hidden_states=True).hidden_states
            tokens.append(torch.stack([states[layer][0] for layer in (1, 2)], dim=1))
        expected = torch.cat(tokens).mean(dim=0).numpy()
        np.testing.assert_allclose(row[-2:], expected, rtol=2e-3, atol=2e-3)


def test_windows_need_a_fast_tokenizer_and_a_known_word(model, monkeypatch):
    with pytest.raises(InputError, match="no long_texts 'middle': choose from head, tail, windows"):
        encode(TEXTS, model, long_texts="middle")
    monkeypatch.setattr(PreTrainedTokenizerFast, "is_fast", False)
    with pytest.raises(InputError, match="makes no windows"):
        encode(TEXTS, model, long_texts="windows")
