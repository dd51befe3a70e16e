"""Runs on a base model in half precision, or on a quantized one, from training to export."""

import json
from dataclasses import replace
from importlib.util import find_spec

import numpy as np
import pytest
import torch
from safetensors import safe_open
from transformers import AutoModelForSequenceClassification

from clear_peft import CleaRClassifier
from clear_peft.data import load_examples
from clear_peft.errors import InputError
from clear_peft.pipeline import quantization, train
from clear_peft.pipeline.inference import load_run
from clear_peft.pipeline.merging import export
from clear_peft.pipeline.training import arguments_of
from clear_peft.run_folder import RunConfig
from clear_peft.trainer.compat import CHECKPOINTING
from tiny_text import keyword_table, tiny_checkpoint

pytestmark = pytest.mark.filterwarnings("ignore::UserWarning", "ignore::FutureWarning")

needs_bitsandbytes = pytest.mark.skipif(find_spec("bitsandbytes") is None, reason="needs bitsandbytes")
BASES = [
    pytest.param({"dtype": "bfloat16"}, id="bf16"),
    pytest.param({"dtype": "bfloat16", "peft": "prefix"}, id="bf16-prefix"),
    pytest.param({"dtype": "bfloat16", "gradient_checkpointing": True}, id="bf16-checkpointing"),
    pytest.param({"quantization": "4bit"}, id="4bit", marks=needs_bitsandbytes),
    pytest.param(
        {"quantization": "4bit", "peft": "adapter", "gradient_checkpointing": True},
        id="4bit-adapter",
        marks=needs_bitsandbytes,
    ),
    pytest.param(
        {"quantization": "8bit", "dtype": "bfloat16", "peft": "apt"}, id="8bit-apt", marks=needs_bitsandbytes
    ),
]


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    folder = tmp_path_factory.mktemp("place")
    keyword_table(60, seed=0, noise=0.2).to_csv(folder / "train.csv", index=False)
    keyword_table(30, seed=1).to_csv(folder / "test.csv", index=False)
    tiny_checkpoint(folder / "model")
    return folder


def config_of(place, output, **options):
    sizes = {"epochs": 3, "max_length": 32, "batch_size": 8, "learning_rate": 0.01, "device": "cpu"}
    places = {
        "model": str(place / "model"),
        "data": str(place / "train.csv"),
        "test": str(place / "test.csv"),
    }
    return RunConfig(output=str(output), **places | sizes | options)


@pytest.mark.parametrize("options", BASES)
def test_a_run_is_loaded_as_it_was_trained(place, tmp_path, options):
    metrics = train(config_of(place, tmp_path / "run", **options))
    assert metrics["test"]["accuracy"] > 0.5
    run = load_run(tmp_path / "run", device="cpu")
    assert (run.config.dtype, run.config.quantization) == (
        options.get("dtype", "float32"),
        options.get("quantization"),
    )
    assert run.model.dtype == getattr(torch, run.config.dtype)
    kinds = {type(module).__name__ for module in run.model.modules()}
    assert ("Linear4bit" in kinds, "Linear8bitLt" in kinds) == (
        run.config.quantization == "4bit",
        run.config.quantization == "8bit",
    )
    test = load_examples(str(place / "test.csv"), names=run.names).examples
    accuracy = (run.logits(test).argmax(axis=1) == test.labels).mean()
    assert accuracy == pytest.approx(metrics["test"]["accuracy"])
    (weights,) = (tmp_path / "run" / "adapter").glob("*.safetensors")
    with safe_open(weights, "pt") as file:
        assert {file.get_slice(name).get_dtype() for name in file.keys()} == {"F32"}  # noqa: SIM118


@pytest.mark.parametrize("options", [BASES[0], BASES[3]])
def test_the_cards_code_loads_the_same_base(place, tmp_path, options, capsys, monkeypatch):
    if "quantization" in options:  # what bitsandbytes does without a gradient wants a width of 64
        monkeypatch.setattr("bitsandbytes.nn.modules.has_avx512bf16", lambda: False)
    train(config_of(place, tmp_path / "run", **options))
    adapter = tmp_path / "run" / "adapter"
    text = (adapter / "README.md").read_text(encoding="utf-8")
    said = "dtype `bfloat16`" if "dtype" in options else "its linear layers quantized (`4bit`, bitsandbytes)"
    assert said in text
    code = text.split("```python\n")[1].split("```")[0]
    code = code.replace("path/to/this/folder", str(adapter))
    code = code.replace("path/to/the/base/model", str(place / "model")).replace("a text", "wheat and barley")
    found: dict = {}
    exec(compile(code, "card", "exec"), found)
    assert "['farming']" in capsys.readouterr().out
    ours = load_run(tmp_path / "run", device="cpu").model.get_base_model().bert
    theirs = found["model"].get_base_model().bert
    for name, parameter in ours.encoder.named_parameters():
        assert torch.equal(parameter.data, theirs.encoder.get_parameter(name).data)


def test_export_writes_float32(place, tmp_path):
    train(config_of(place, tmp_path / "run", dtype="bfloat16"))
    made = export(tmp_path / "run", tmp_path / "merged")
    assert made.difference < 1e-4
    model = AutoModelForSequenceClassification.from_pretrained(tmp_path / "merged").eval()
    assert {parameter.dtype for parameter in model.parameters()} == {torch.float32}
    run = load_run(tmp_path / "run", device="cpu")
    batch = run.tokenizer(["old wheat", "the rudder"], padding=True, return_tensors="pt")
    with torch.no_grad():
        np.testing.assert_allclose(model(**batch).logits, run.model(**batch).logits, atol=0.1)


@needs_bitsandbytes
def test_a_quantized_base_is_not_merged(place, tmp_path):
    train(config_of(place, tmp_path / "run", quantization="8bit", epochs=1, method="plain"))
    for onnx in (False, True) if find_spec("onnx") else (False,):
        with pytest.raises(InputError, match="is quantized, and an adapter cannot be merged"):
            export(tmp_path / "run", tmp_path / "merged", onnx=onnx)
    assert not (tmp_path / "merged").exists()


@needs_bitsandbytes
def test_a_classifier_on_a_quantized_base(place, tmp_path):
    table = keyword_table(60, seed=0, noise=0.1)
    made = CleaRClassifier(
        str(place / "model"), epochs=2, max_length=32, batch_size=8, device="cpu", quantization="4bit"
    )
    made.fit(table["text"], table["label"]).save(tmp_path / "saved")
    again = CleaRClassifier.load(tmp_path / "saved", device="cpu")
    np.testing.assert_array_equal(again.predict_proba(table["text"]), made.predict_proba(table["text"]))


def test_without_bitsandbytes_nothing_is_loaded_or_written(place, tmp_path, monkeypatch):
    monkeypatch.setattr(quantization, "find_spec", lambda name: None)
    config = config_of(place, tmp_path / "run", quantization="4bit")
    with pytest.raises(InputError, match="needs bitsandbytes: pip install 'bitsandbytes>="):
        train(config)
    assert not (tmp_path / "run").exists()


def test_weights_that_are_quantized_already_are_refused(place, tmp_path):
    tiny_checkpoint(tmp_path / "model")
    path = tmp_path / "model" / "config.json"
    known = {"quant_method": "bitsandbytes", "load_in_4bit": True}
    path.write_text(json.dumps({**json.loads(path.read_text()), "quantization_config": known}))
    with pytest.raises(InputError, match="are quantized already"):
        train(replace(config_of(place, tmp_path / "run"), model=str(tmp_path / "model")))


def test_float16_is_not_trained_without_scaled_gradients(place, tmp_path):
    with pytest.raises(InputError, match="gradients vanish unless they are scaled"):
        train(config_of(place, tmp_path / "run", dtype="float16"))
    checkpoint = AutoModelForSequenceClassification.from_pretrained(place / "model", dtype=torch.float16)
    tiny_checkpoint(tmp_path / "model")
    checkpoint.save_pretrained(tmp_path / "model")
    held = replace(config_of(place, tmp_path / "run", dtype="auto"), model=str(tmp_path / "model"))
    with pytest.raises(InputError, match="gradients vanish unless they are scaled"):
        train(held)
    assert not (tmp_path / "run").exists()
    train(replace(held, dtype="float32", epochs=1, method="plain"))
    config = tmp_path / "run" / "config.yaml"
    config.write_text(config.read_text().replace("dtype: float32", "dtype: auto"))
    run = load_run(tmp_path / "run", device="cpu")
    assert run.model.dtype == torch.float16
    test = load_examples(str(place / "test.csv"), names=run.names).examples
    assert np.isfinite(run.logits(test)).all()


def test_float16_on_a_gpu_scales_its_gradients(place, tmp_path, monkeypatch):
    monkeypatch.setattr("clear_peft.pipeline.training.choose_device", lambda name: "cuda")
    arguments = arguments_of(config_of(place, tmp_path, dtype="float16"))
    assert (arguments.fp16, arguments.bf16) == (True, False)


@pytest.mark.parametrize("wanted", [True, False])
def test_gradient_checkpointing_is_a_setting_of_transformers(place, tmp_path, wanted):
    arguments = arguments_of(config_of(place, tmp_path, gradient_checkpointing=wanted))
    assert getattr(arguments, CHECKPOINTING) is wanted
