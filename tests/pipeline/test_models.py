"""Models as they are loaded, and how long their texts may be."""

import json
import logging
import warnings

import pytest
import torch
from safetensors.torch import load_file, save_file

from clear_peft.data import LabelNames
from clear_peft.errors import ClearWarning, InputError
from clear_peft.pipeline.models import check_length, load_classifier, load_encoder, load_tokenizer
from clear_peft.tuners import build
from tiny_models import tiny
from tiny_text import tiny_checkpoint


@pytest.mark.parametrize(
    ("architecture", "peft", "limit"),
    [
        ("bert", "lora", 64),
        ("bert", "prefix", 44),
        ("roberta", "lora", 62),
        ("mpnet", "lora", 62),
        ("gpt2", "lora", 64),
        ("opt", "lora", 64),
    ],
)
@pytest.mark.filterwarnings("ignore::UserWarning:peft")
def test_the_longest_text(architecture, peft, limit):
    model = build(tiny(architecture)[0], peft)
    check_length(model, limit)
    with pytest.raises(InputError, match=f"give at most {limit}"):
        check_length(model, limit + 1)

    def run(length):
        ids = torch.full((1, length), 5)
        with torch.no_grad():
            model(input_ids=ids, attention_mask=torch.ones_like(ids))

    run(limit)
    with pytest.raises((IndexError, RuntimeError)):
        run(limit + 1)


def _classifier(folder):
    names = LabelNames(("a", "b", "c"))  # the checkpoint has a head of two classes
    return load_classifier(str(folder), names, load_tokenizer(str(folder)))


def test_a_model_with_code_of_its_own_is_told_how_it_is_allowed(tmp_path):
    config = json.loads((tiny_checkpoint(tmp_path) / "config.json").read_text())
    config |= {"model_type": "mine", "auto_map": {"AutoConfig": "mine.Config"}}
    (tmp_path / "config.json").write_text(json.dumps(config))
    with pytest.raises(InputError, match="comes with code of its own: read it, and give --trust-remote-code"):
        load_encoder(str(tmp_path))


def test_a_new_head_is_as_it_should_be(tmp_path):
    folder = tiny_checkpoint(tmp_path)
    with warnings.catch_warnings():
        warnings.simplefilter("error", ClearWarning)
        _classifier(folder)
        load_encoder(str(folder))


def test_the_classes_of_an_earlier_head_are_not_spoken_of(tmp_path, caplog):
    folder = tiny_checkpoint(tmp_path)
    config = json.loads((folder / "config.json").read_text())
    earlier = dict(enumerate(["entailment", "neutral", "contradiction", "none"]))
    (folder / "config.json").write_text(json.dumps({**config, "id2label": earlier}))
    monitored = logging.getLogger("transformers")
    monitored.addHandler(caplog.handler)
    try:
        model = _classifier(folder)
    finally:
        monitored.removeHandler(caplog.handler)
    assert "num_labels" not in caplog.text
    assert (model.config.num_labels, model.config.label2id) == (3, {"a": 0, "b": 1, "c": 2})


def test_layers_that_begin_at_random_are_told(tmp_path):
    path = tiny_checkpoint(tmp_path) / "model.safetensors"
    weights = load_file(path)
    name = "bert.encoder.layer.1.output.dense.weight"
    told = r"1 weights of pretrained layers .* \(such as .*encoder\.layer\.1\.output\.dense\.weight\)"
    save_file({**weights, name: weights[name][:, :-1].contiguous()}, path, {"format": "pt"})
    with pytest.warns(ClearWarning, match=told):
        _classifier(tmp_path)
    del weights[name]
    save_file(weights, path, {"format": "pt"})
    for load in (_classifier, lambda folder: load_encoder(str(folder))):
        with pytest.warns(ClearWarning, match=told):
            load(tmp_path)


def test_without_the_hub_the_packaged_model_is_named(monkeypatch, tmp_path):
    name = "sentence-transformers/all-MiniLM-L6-v2"
    monkeypatch.setattr("clear_peft.pipeline.models.minilm", lambda: tmp_path / "packaged")
    with pytest.raises(InputError, match=r"or the path of a folder, such as .*packaged', which is the same"):
        load_tokenizer(name)
    with pytest.raises(InputError, match=r"or the path of a folder\.$"):
        load_tokenizer("somebody/else")
