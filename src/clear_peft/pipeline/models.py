"""Pretrained models and tokenizers, by hub name or path."""

import copy
import re
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from transformers import (
    AutoConfig,
    AutoModel,
    AutoModelForSequenceClassification,
    AutoModelForTokenClassification,
    AutoTokenizer,
)

from clear_peft.data import LabelNames
from clear_peft.data.labels import SEVERAL_LABELS
from clear_peft.data.reach import hub_or_cache
from clear_peft.errors import ClearWarning, InputError
from clear_peft.pipeline.packages import MINILM, minilm
from clear_peft.pipeline.quantization import check_installed, settings
from clear_peft.tuners.anatomy import head_names, pooler_names

# what transformers raises over a name, a folder or a file that is not what it should be; ImportError where
# a tokenizer needs a package that is not installed
_REFUSALS = (
    OSError,
    ValueError,
    KeyError,
    TypeError,
    AttributeError,
    RuntimeError,
    ImportError,
    SafetensorError,
)
_LAYER = re.compile(r"\.\d+\.")  # layers are numbered, heads and poolers are not
_READ_FROM_THE_END = {"xlnet"}  # padded on the left


def load_tokenizer(name: str, *, trust_remote_code: bool = False, long_texts: str | None = None) -> Any:
    """Load a tokenizer; one without a padding token pads with its end of sequence.

    Args:
        name: Hub name or path.
        trust_remote_code: Whether code that comes with it may run. Default False.
        long_texts: Which tokens of a text that is too long it keeps: ``head`` or ``tail``. Default: as it
            was saved.

    Raises:
        InputError: If there is none of that name.
    """
    with _loading("tokenizer", name):
        tokenizer = AutoTokenizer.from_pretrained(name, trust_remote_code=trust_remote_code)
    if len(tokenizer) <= len(tokenizer.all_special_tokens):
        # transformers makes one without words where there are no tokenizer files
        raise InputError(f"{name!r} holds no tokenizer: give a model that comes with its own.")
    if tokenizer.pad_token is None:
        if tokenizer.eos_token is None:
            raise InputError(f"The tokenizer {name!r} has no padding token: choose another model.")
        tokenizer.pad_token = tokenizer.eos_token
    if long_texts is not None:
        tokenizer.truncation_side = {"head": "right", "tail": "left"}[long_texts]
    return tokenizer


def load_classifier(
    name: str,
    names: LabelNames,
    tokenizer: Any,
    *,
    dtype: str = "float32",
    quantization: str | None = None,
    device: str | torch.device = "cpu",
    trust_remote_code: bool = False,
    new_head: bool = True,
) -> Any:
    """Load a pretrained model with a classification head for the given labels.

    Decoders read a text off its last token that is no padding. So the model takes for padding what the
    tokenizer pads with, and the tokenizer pads on the right, where padding shifts no position.

    Args:
        name: Hub name or path.
        names: The labels; the model's ``problem_type`` says whether a text may have several. Where words have
            them, the head is one for tokens.
        tokenizer: The model's tokenizer; its padding side is set.
        dtype: Of the weights: ``float32``, ``bfloat16``, ``float16``, or ``auto``, as in the checkpoint.
        quantization: ``4bit`` or ``8bit``: the linear layers, but for head and pooler, are quantized by
            bitsandbytes. Default: they are not.
        device: Where a quantized model is put, and will run. Any other is on the CPU at first.
        trust_remote_code: Whether code that comes with the model may run. Default False.
        new_head: Whether a head of another size may be replaced by a new one. Default True.

    Raises:
        InputError: If there is no such model, its architecture has no classification head, or bitsandbytes is
            not installed.
    """
    labels = dict(enumerate(names.names))
    kind, what = AutoModelForSequenceClassification, "sequence"
    problem: dict[str, str] = {
        "problem_type": SEVERAL_LABELS if names.several else "single_label_classification"
    }
    if names.words:
        kind, what, problem = AutoModelForTokenClassification, "token", {}
    if quantization is not None:
        check_installed()
    with _loading("model", name):
        config = AutoConfig.from_pretrained(
            name,
            id2label=labels,
            label2id={label: i for i, label in labels.items()},
            **problem,
            trust_remote_code=trust_remote_code,
        )
        if type(config) not in kind._model_mapping and not trust_remote_code:
            raise InputError(
                f"{config.model_type!r}, the architecture of {name!r}, has no {what}-classification head "
                "in transformers: choose another model."
            )
        if getattr(config, "quantization_config", None) is not None:
            raise InputError(
                f"The weights of {name!r} are quantized already: give the model that it was made from, and "
                "quantization."
            )
        quantized: dict[str, Any] = {}
        if quantization is not None:
            exact = _head_and_pooler(kind, config, trust_remote_code=trust_remote_code)
            quantized = {
                "quantization_config": settings(quantization, exact, torch.device(device).type),
                "device_map": {"": str(device)},
            }
        model, found = kind.from_pretrained(
            name,
            config=config,
            dtype=dtype if dtype == "auto" else getattr(torch, dtype),
            ignore_mismatched_sizes=new_head,
            trust_remote_code=trust_remote_code,
            use_safetensors=True,
            output_loading_info=True,
            **quantized,
        )
    _warn_of_random_layers(name, found)
    model.config.get_text_config().pad_token_id = tokenizer.pad_token_id
    if config.model_type not in _READ_FROM_THE_END:
        tokenizer.padding_side = "right"
    return model


def _head_and_pooler(kind: Any, config: Any, *, trust_remote_code: bool) -> list[str]:
    """What is trained as a whole, of a model that has not been loaded."""
    with torch.device("meta"):
        model = kind.from_config(copy.deepcopy(config), trust_remote_code=trust_remote_code)
    return [*head_names(model), *pooler_names(model)]


def load_encoder(name: str, *, trust_remote_code: bool = False) -> Any:
    """Load a pretrained encoder, without a head, in float32 and evaluation mode.

    Raises:
        InputError: If there is none of that name.
    """
    with _loading("model", name):
        model, found = AutoModel.from_pretrained(
            name,
            dtype=torch.float32,
            trust_remote_code=trust_remote_code,
            use_safetensors=True,
            output_loading_info=True,
        )
    _warn_of_random_layers(name, found)
    return (model.get_encoder() if model.config.is_encoder_decoder else model).eval()


def _warn_of_random_layers(name: str, found: dict[str, Any]) -> None:
    """Say that layers were not found in a checkpoint: a new head is as it should be, a new layer is not."""
    new = {*found["missing_keys"], *(key for key, *_ in found["mismatched_keys"])}
    layers = sorted(key for key in new if _LAYER.search(key))
    if layers:
        warnings.warn(
            f"{len(layers)} weights of pretrained layers are not in {name!r}, or of another shape, and begin "
            f"at random (such as {layers[0]}): check that the model is whole.",
            ClearWarning,
            stacklevel=3,
        )


def check_length(model: Any, max_length: int) -> None:
    """Refuse texts that are longer than the model, adapter included, has positions for.

    Raises:
        InputError: With the largest length that the model takes.
    """
    limit = getattr(model.config, "max_position_embeddings", None)
    if limit is None:
        return
    for name, module in model.named_modules():
        padding = getattr(module, "padding_idx", None)
        if name.endswith("position_embeddings") and padding is not None:
            limit = module.num_embeddings - padding - 1  # RoBERTa counts from behind its padding index
    prefix = getattr(getattr(model, "active_peft_config", None), "num_virtual_tokens", None) or 0
    if max_length > limit - prefix:
        taken = f", of which the prefix takes {prefix}" if prefix else ""
        raise InputError(
            f"max_length is {max_length}, but the model has {limit} positions{taken}: "
            f"give at most {limit - prefix}."
        )


@contextmanager
def _loading(what: str, name: str) -> Iterator[None]:
    """Inside, what is wrong with a name, a folder or the connection becomes a sentence."""
    try:
        with hub_or_cache(name):
            yield
    except InputError:
        raise
    except _REFUSALS as error:
        raise _not_found(what, name, error) from error


def _not_found(what: str, name: str, error: Exception) -> InputError:
    if name.startswith((".", "/", "~")) and not Path(name).expanduser().exists():
        return InputError(f"There is no folder {name!r}: give the path of a model, or its name on the hub.")
    if "trust_remote_code" in str(error):
        return InputError(
            f"The {what} {name!r} comes with code of its own: read it, and give --trust-remote-code (in "
            "Python trust_remote_code=True) to run it."
        )
    reason = str(error).strip().partition("\n")[0].rstrip(".")
    return InputError(
        f"Cannot load the {what} {name!r} ({reason}): give a hub name or the path of a folder"
        f"{_installed(name)}."
    )


def _installed(name: str) -> str:
    """Where the package of the demo has this model, for a machine without the hub."""
    with suppress(InputError):
        if name == MINILM:
            return f", such as {str(minilm())!r}, which is the same model"
    return ""
