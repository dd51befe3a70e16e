import json

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoModelForSequenceClassification

from clear_peft import InputError
from clear_peft.tuners import BottleneckModel, build, load_adapter
from tiny_models import tiny

CONFIGS = {"lora": "adapter_config.json", "adapter": "bottleneck_config.json"}
WEIGHTS = {"lora": "adapter_model.safetensors", "adapter": "bottleneck_model.safetensors"}
pytestmark = pytest.mark.filterwarnings("ignore:Could not find a config file in  -:UserWarning")  # peft 0.20
both = pytest.mark.parametrize("method", ["lora", "adapter"])


@pytest.fixture
def saved(method, tmp_path):
    build(tiny("bert")[0], method).save_pretrained(tmp_path)
    return tmp_path


def resized(**sizes):
    """The tiny BERT with another size."""
    config = tiny("bert")[0].config
    config.update(sizes)
    return AutoModelForSequenceClassification.from_config(config)


@both
def test_the_folder_decides_the_kind(method, saved):
    assert isinstance(load_adapter(tiny("bert")[0], str(saved)), BottleneckModel) == (method == "adapter")


@pytest.mark.parametrize("folder", ["nowhere", "."])
def test_no_adapter(folder, tmp_path):
    with pytest.raises(InputError, match="holds no adapter"):
        load_adapter(tiny("bert")[0], tmp_path / folder)


@both
def test_pickled_weights_are_refused(method, saved):
    weights = saved / WEIGHTS[method]
    torch.save(load_file(weights), saved / "adapter_model.bin")
    weights.unlink()
    with pytest.raises(InputError, match="does not exist"):
        load_adapter(tiny("bert")[0], saved)


@both
def test_cut_weights(method, saved):
    weights = saved / WEIGHTS[method]
    weights.write_bytes(weights.read_bytes()[:-10])
    with pytest.raises(InputError, match="not a whole safetensors file"):
        load_adapter(tiny("bert")[0], saved)


@both
@pytest.mark.parametrize("content", ["", "[]", '{"width": "no"', '{"width": "no"}', '{"nonsense": 1}'])
def test_broken_configuration(method, saved, content):
    (saved / CONFIGS[method]).write_text(content)
    with pytest.raises(InputError):
        load_adapter(tiny("bert")[0], saved)


@pytest.mark.parametrize(
    ("kind", "words"), [("BEFT", "does not exist|install peft 0.20"), ("XLORA", "does not train")]
)
def test_a_type_that_is_newer_or_not_ours(kind, words, tmp_path):
    (tmp_path / CONFIGS["lora"]).write_text(json.dumps({"peft_type": kind}))
    with pytest.raises(InputError, match=words):
        load_adapter(tiny("bert")[0], tmp_path)


@both
@pytest.mark.parametrize("sizes", [{"hidden_size": 64}, {"num_hidden_layers": 1}, {"num_hidden_layers": 3}])
def test_another_base_model(method, saved, sizes):
    model = resized(**sizes)
    if method == "adapter" and sizes == {"num_hidden_layers": 3}:
        load_adapter(model, saved)  # its targets are full names, so the third block stays as it is
        return
    with pytest.raises(InputError, match=r"does not fit|no place for"):
        load_adapter(model, saved)


@both
def test_another_number_of_labels(method, saved):
    with pytest.raises(InputError, match="does not fit"):
        load_adapter(tiny("bert", num_labels=5)[0], saved)


@both
@pytest.mark.parametrize("change", ["missing", "unexpected"])
def test_other_keys(method, saved, change):
    weights = load_file(saved / WEIGHTS[method])
    if change == "missing":
        weights.pop(next(iter(weights)))
    else:
        weights["base_model.model.lora_A.other.weight"] = torch.zeros(1)
    save_file(weights, saved / WEIGHTS[method])
    with pytest.raises(InputError, match=r"does not fit|no place for"):
        load_adapter(tiny("bert")[0], saved)


def test_the_bottlenecks_files_hold_the_adapter_alone(tmp_path):
    tuned = build(tiny("bert")[0], "adapter")
    state = {name: tensor + 1 for name, tensor in tuned.state_dict().items()}
    tuned.save_pretrained(tmp_path / "deep" / "folder", state_dict=state, safe_serialization=True)
    folder = tmp_path / "deep" / "folder"
    assert sorted(path.name for path in folder.iterdir()) == [
        "bottleneck_config.json",
        "bottleneck_model.safetensors",
    ]
    weights = load_file(folder / "bottleneck_model.safetensors")
    trainable = {name: p for name, p in tuned.named_parameters() if p.requires_grad}
    assert weights.keys() == trainable.keys()
    assert all(torch.equal(weights[name], p + 1) for name, p in trainable.items())
    assert json.loads((folder / "bottleneck_config.json").read_text())["modules_to_save"] == ["classifier"]
