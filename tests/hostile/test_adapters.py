"""An adapter from a stranger: weights and numbers, or nothing."""

import json

import pytest
import torch
from safetensors.torch import load_file

from clear_peft import InputError
from clear_peft.tuners import build, load_adapter
from tiny_models import tiny


@pytest.fixture
def saved(tmp_path):
    build(tiny("bert")[0], "lora").save_pretrained(tmp_path / "adapter")
    return tmp_path / "adapter"


def _set(folder, **values):
    path = folder / "adapter_config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **values}))


@pytest.mark.parametrize(
    "values",
    [
        {"base_model_name_or_path": "../../etc/passwd", "revision": "../x"},
        {"auto_mapping": {"base_model_class": "Popen", "parent_library": "subprocess"}},
    ],
)
def test_names_of_elsewhere_are_only_names(saved, values):
    _set(saved, **values)
    expected = load_file(saved / "adapter_model.safetensors")
    loaded = load_adapter(tiny("bert")[0], saved)
    name = next(name for name in expected if "lora_A" in name)
    assert torch.equal(
        dict(loaded.named_parameters())[name.replace(".weight", ".default.weight")], expected[name]
    )


@pytest.mark.parametrize(
    "values",
    [
        {
            "peft_type": "MULTITASK_PROMPT_TUNING",
            "prompt_tuning_init": "AVERAGE_SOURCE_TASKS",
            "prompt_tuning_init_state_dict_path": "planted.bin",
            "num_virtual_tokens": 4,
            "token_dim": 32,
            "num_transformer_submodules": 1,
            "num_attention_heads": 2,
            "num_layers": 2,
        },
        {"peft_type": "PROMPT_TUNING", "prompt_tuning_init": "TEXT", "tokenizer_name_or_path": "x/y"},
        {"peft_type": "XLORA", "adapters": {"0": "/etc"}},
        {"peft_type": "nonsense"},
        {"peft_type": ["LORA"]},
        {"peft_type": None},
        {"peft_type": 3},
    ],
)
def test_types_that_read_other_files_are_refused(saved, values):
    _set(saved, **values)
    with pytest.raises(InputError, match="which this package does not train"):
        load_adapter(tiny("bert")[0], saved)


@pytest.mark.parametrize(
    "values",
    [
        {"megatron_config": {"a": 1}, "megatron_core": "antigravity"},
        {"trust_remote_code": True, "tokenizer_kwargs": {"trust_remote_code": True}},
        {"task_type": "NOPE"},
        {"r": "8"},
        {"r": -1},
        {"r": 4096},
        {"target_modules": 3},
        {"modules_to_save": "x" * 100},
    ],
)
def test_settings_that_do_not_fit(saved, values):
    _set(saved, **values)
    with pytest.raises(InputError, match="does not fit"):
        load_adapter(tiny("bert")[0], saved)


ENDLESS = r"([\w.]+)+!"  # doubles its time with every letter of a name
MATCHED = [
    {"target_modules": ENDLESS},
    {"exclude_modules": ENDLESS},
    {"modules_to_save": [ENDLESS]},
    {"rank_pattern": {ENDLESS: 4}},
    {"layers_to_transform": [0], "layers_pattern": ENDLESS},
    {"target_modules": "("},
]


@pytest.mark.parametrize("values", MATCHED)
def test_a_name_without_end(saved, values):
    _set(saved, **values)
    with pytest.raises(InputError, match=r"adapter_config\.json has .* regular expression"):
        load_adapter(tiny("bert")[0], saved)
    with pytest.raises(InputError, match=r"lora has .* regular expression"):
        build(tiny("bert")[0], "lora", options=values)


@pytest.mark.parametrize("text", ["", "[]", "3", "[" * 200_000, '{"peft_type"', "{}"])
def test_settings_that_are_none(saved, text):
    (saved / "adapter_config.json").write_text(text)
    with pytest.raises(InputError, match=r"adapter_config\.json is not an adapter's configuration"):
        load_adapter(tiny("bert")[0], saved)


def test_settings_that_are_not_utf8(saved):
    (saved / "adapter_config.json").write_bytes(b"\xff\xfe")
    with pytest.raises(InputError, match="is not an adapter's configuration"):
        load_adapter(tiny("bert")[0], saved)
