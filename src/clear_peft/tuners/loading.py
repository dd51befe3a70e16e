"""A saved adapter back onto its base model; reads safetensors and JSON, never pickles."""

import json
import os
import warnings
from pathlib import Path

from peft import PeftModel, get_peft_model_state_dict, set_peft_model_state_dict
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file
from transformers.modeling_utils import PreTrainedModel

from clear_peft.errors import InputError
from clear_peft.tuners.apt import APT_FORMAT, AptModel
from clear_peft.tuners.bottleneck import BOTTLENECK_FORMAT, BottleneckModel
from clear_peft.tuners.catalogue import ALL_METHODS, newer_peft
from clear_peft.tuners.names import check_names
from clear_peft.tuners.precision import prepare_base
from clear_peft.tuners.prefix import hand_over_prefix
from clear_peft.tuners.quiet import quiet

_PEFT_CONFIG_NAME = "adapter_config.json"
_PEFT_WEIGHTS_NAME = "adapter_model.safetensors"
_OWN_KINDS = {BOTTLENECK_FORMAT.config_name: BottleneckModel, APT_FORMAT.config_name: AptModel}
# peft's other types (mixtures of adapters, prompts of other tasks) read files that their settings name
_PEFT_TYPES = {"PREFIX_TUNING", *(method.upper() for method in ALL_METHODS)}


def load_adapter(model: PreTrainedModel, folder: str | os.PathLike[str]) -> PeftModel | BottleneckModel:
    """Put a saved adapter on its base model, for inference.

    Args:
        model: The base model that the adapter was trained on, changed in place.
        folder: A local folder with an adapter that peft, `BottleneckModel` or `AptModel` has saved.

    Returns:
        The model with its adapter, frozen and in eval mode.

    Raises:
        InputError: The folder holds no adapter or one of a type that this package does not train, its
            settings name layers by regular expressions, its weights are not safetensors or do not fit.
    """
    folder = Path(folder)
    prepare_base(model)
    for name, kind in _OWN_KINDS.items():
        if (folder / name).is_file():
            return kind.from_pretrained(model, folder)
    if not (folder / _PEFT_CONFIG_NAME).is_file():
        raise InputError(
            f"{folder} holds no adapter: it needs {_PEFT_CONFIG_NAME} (peft) or {' or '.join(_OWN_KINDS)}."
        )
    return _load_peft(model, folder)


def _check_settings(path: Path) -> None:
    try:
        settings = json.loads(path.read_text(encoding="utf-8"))
        kind = settings["peft_type"]
    except (OSError, ValueError, RecursionError, KeyError, TypeError) as error:
        raise InputError(f"{path} is not an adapter's configuration: save it again.") from error
    if not isinstance(kind, str) or kind not in _PEFT_TYPES:
        raise InputError(
            f"{path} is of the PEFT type {kind!r:.40}, which this package does not train: load it with peft."
        )
    newer = newer_peft(kind.lower())
    if newer is not None:
        raise InputError(f"{path} is of the PEFT type {kind}: install peft {newer} or later.")
    check_names(settings, str(path))


def _load_peft(model: PreTrainedModel, folder: Path) -> PeftModel:
    _check_settings(folder / _PEFT_CONFIG_NAME)
    path = folder / _PEFT_WEIGHTS_NAME
    if not path.is_file():
        raise InputError(
            f"{path} does not exist: save the adapter as safetensors (pickled weights such as "
            "adapter_model.bin can run code and are not loaded)."
        )
    try:
        with safe_open(path, "pt") as file:
            saved = set(file.keys())
        with quiet():
            warnings.filterwarnings("error", "Found missing adapter keys")
            peft_model = hand_over_prefix(PeftModel.from_pretrained(model, str(folder)))
    except SafetensorError as error:
        raise InputError(f"{path} is not a whole safetensors file ({error}): save it again.") from error
    except (ValueError, TypeError, KeyError, AttributeError, RuntimeError, UserWarning) as error:
        reason = str(error).strip().partition("\n")[0][:300]
        raise InputError(
            f"{folder} does not fit {type(model).__name__} ({reason}): load it on the model that it was "
            "trained on."
        ) from error
    # peft drops weights for layers that the model lacks without a word.
    lost = sorted(saved - get_peft_model_state_dict(peft_model, save_embedding_layers=True).keys())
    if lost:
        raise InputError(
            f"{path} has weights that {type(model).__name__} has no place for ({len(lost)}, the first is "
            f"{lost[0]}): load it on the model that it was trained on."
        )
    # peft leaves prompts and prefixes trainable.
    return peft_model.requires_grad_(False)


def has_adapter(model: object) -> bool:
    """Whether a model is one of peft's or our own tuners'."""
    return isinstance(model, PeftModel | BottleneckModel)


def restore_adapter(model: PeftModel | BottleneckModel, folder: str | os.PathLike[str]) -> None:
    """Load the weights of a checkpoint into the adapter that wrote them; nothing but weights changes.

    Args:
        model: The model, adapter included, as it was when it was saved.
        folder: Folder that its ``save_pretrained`` has written; named adapters have folders of their own.

    Raises:
        InputError: The weights are missing, damaged, or not this adapter's.
    """
    if isinstance(model, BottleneckModel | AptModel):
        model.load_weights(folder)
        return
    for name in model.peft_config:
        _restore(model, name, Path(folder) / ("" if name == "default" else name) / _PEFT_WEIGHTS_NAME)


def _restore(model: PeftModel, name: str, path: Path) -> None:
    try:
        weights = load_file(path)
        with quiet():
            outcome = set_peft_model_state_dict(model, weights, adapter_name=name)
    except (OSError, SafetensorError, RuntimeError, KeyError) as error:
        reason = str(error).strip().partition("\n")[0][:300]
        raise InputError(
            f"{path} is no checkpoint of this adapter ({reason}): choose another one."
        ) from error
    # peft loads the vectors of prompts and prefixes by themselves, and then calls their key unexpected
    surplus = [key for key in outcome.unexpected_keys if key != "prompt_embeddings"]
    if surplus:
        raise InputError(
            f"{path} is no checkpoint of this adapter (it has {surplus[0]}): choose another one."
        )
