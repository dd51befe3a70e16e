"""Where it computes, and how precisely; what this machine lacks is faked or refused."""

import numpy as np
import pytest
import torch
from transformers.utils import import_utils

from clear_peft import CleaRClassifier, find_label_issues, preset
from clear_peft.errors import InputError
from clear_peft.hardware import DEVICES, bf16_pays, check_device, choose_device
from clear_peft.pipeline.training import arguments_of
from clear_peft.run_folder import RunConfig

BACKENDS = {"cuda": torch.cuda, "mps": torch.backends.mps, "xpu": torch.xpu}


@pytest.fixture
def machine(monkeypatch):
    """Fake what this machine has besides its CPU."""

    def with_devices(*names):
        for name, backend in BACKENDS.items():
            monkeypatch.setattr(backend, "is_available", lambda has=name in names: has)
        monkeypatch.setattr(torch.backends.mps, "is_built", lambda: "mps" in names)
        monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda **_: True)
        import_utils.is_torch_mps_available.cache_clear()

    # what accelerate sets for it
    monkeypatch.setenv("PYTORCH_ENABLE_MPS_FALLBACK", "1")
    yield with_devices
    monkeypatch.undo()
    import_utils.is_torch_mps_available.cache_clear()


@pytest.mark.parametrize(
    ("has", "auto"), [((), "cpu"), (("cuda",), "cuda"), (("mps",), "cpu"), (("xpu",), "cpu")]
)
def test_auto_is_a_cuda_gpu_or_the_cpu(machine, has, auto):
    machine(*has)
    assert choose_device() == auto
    for name in ("cpu", *has):
        assert choose_device(name) == name


@pytest.mark.parametrize("name", ["cuda", "mps", "xpu"])
def test_a_device_that_is_not_here_is_refused(machine, name):
    machine("mps" if name == "cuda" else "cuda")
    for check in (choose_device, check_device):
        with pytest.raises(InputError, match=f"device is '{name}', and torch .* give auto or cpu or "):
            check(name)


def test_a_device_that_nobody_knows_is_refused():
    for check in (choose_device, check_device):
        with pytest.raises(InputError, match="no device 'gpu': choose from auto, cpu, cuda, mps, xpu"):
            check("gpu")
    with pytest.raises(InputError, match="There is no device 'gpu'"):
        RunConfig(model="m", data="d", output="o", device="gpu")


def test_only_a_cuda_gpu_and_some_cpus_compute_in_bf16(machine, monkeypatch):
    machine("cuda", "mps", "xpu")
    for able in (True, False):
        for check in ("_is_amx_tile_supported", "_is_avx512_bf16_supported"):
            monkeypatch.setattr(torch.cpu, check, lambda able=able: able, raising=False)
        pays = {name: bf16_pays(name) for name in DEVICES[1:]}
        assert pays == {"cpu": able, "cuda": True, "mps": False, "xpu": False}


@pytest.mark.parametrize("name", ["recommended", "paper"])
def test_training_on_apple_s_gpu_is_in_float32(machine, tmp_path, name):
    machine("mps")
    config = RunConfig(model="m", data="d", output=str(tmp_path), device="mps", preset=name)
    made = arguments_of(config)
    assert made.device.type == "mps"
    assert (made.bf16, made.fp16, made.use_cpu, made.dataloader_pin_memory) == (False, False, False, False)
    assert preset(name)["use_cpu"], "auto leaves it alone"


def test_the_cpu_is_taken_where_it_is_asked_for(machine, tmp_path):
    machine("mps")
    made = arguments_of(RunConfig(model="m", data="d", output=str(tmp_path), device="cpu"))
    assert (made.device.type, made.use_cpu) == ("cpu", True)


def test_where_to_train_is_said_once(machine, tmp_path):
    machine("mps")
    config = RunConfig(model="m", data="d", output=str(tmp_path), device="mps", training={"use_cpu": True})
    with pytest.raises(InputError, match="device is 'mps', and transformers takes 'cpu': leave use_cpu out"):
        arguments_of(config)


def test_python_refuses_it_too(machine):
    machine()
    texts, labels = ["a", "b"] * 10, [0, 1] * 10
    for call in (
        lambda: CleaRClassifier(device="cuda").fit(texts, labels),
        lambda: CleaRClassifier.load("nowhere", device="cuda"),
        lambda: find_label_issues(None, labels, embeddings=np.eye(20), device="cuda"),
    ):
        with pytest.raises(InputError, match="device is 'cuda', and torch"):
            call()
