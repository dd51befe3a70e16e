"""Base models whose linear layers are quantized by bitsandbytes."""

import logging
from importlib.util import find_spec

import torch
from transformers import BitsAndBytesConfig

from clear_peft.errors import InputError
from clear_peft.hardware import bf16_pays
from clear_peft.surroundings import pip_install


def check_installed() -> None:
    """Refuse to quantize without bitsandbytes.

    Raises:
        InputError: If it is not installed.
    """
    if find_spec("bitsandbytes") is None:
        raise InputError(f"quantization needs bitsandbytes: {pip_install('quantization')}.")
    # of every 8-bit layer, in every forward, it warns that inputs are rounded to float16, as they should be
    logging.getLogger("bitsandbytes.autograd._functions").setLevel(logging.ERROR)


def settings(quantization: str, exact: list[str], device: str) -> BitsAndBytesConfig:
    """How transformers is to quantize a model.

    Args:
        quantization: ``4bit`` (NF4, multiplied in bf16 where that is faster, else in float32) or ``8bit``
            (LLM.int8(), its threshold as bitsandbytes has it).
        exact: Names of the modules that are not quantized.
        device: Kind of device that the model will run on.
    """
    if quantization == "8bit":
        return BitsAndBytesConfig(load_in_8bit=True, llm_int8_skip_modules=exact)
    return BitsAndBytesConfig(
        load_in_4bit=True,
        bnb_4bit_quant_type="nf4",
        bnb_4bit_compute_dtype=torch.bfloat16 if bf16_pays(device) else torch.float32,
        llm_int8_skip_modules=exact,
    )
