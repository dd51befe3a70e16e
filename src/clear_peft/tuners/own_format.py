"""Files of the adapters that peft lacks: settings as JSON, weights as safetensors, and nothing that runs."""

import json
import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from types import UnionType
from typing import Any, get_args, get_origin

from safetensors import SafetensorError
from safetensors.torch import load_file, save
from torch import Tensor, nn

from clear_peft.errors import InputError
from clear_peft.files import atomic_write, write_json


@dataclass(frozen=True)
class OwnFormat:
    """How an adapter of one kind is written and read.

    Attributes:
        name: What its two files begin with: `{name}_config.json` and `{name}_model.safetensors`.
        called: What messages call the adapter.
        config_class: The frozen dataclass of its settings.
        parts: Of the dotted name of every weight that is saved, one part is among these.
    """

    name: str
    called: str
    config_class: type[Any]
    parts: frozenset[str]

    @property
    def config_name(self) -> str:
        """Name of the file of the settings: where it lies, there is an adapter of this kind."""
        return f"{self.name}_config.json"

    @property
    def weights_name(self) -> str:
        """Name of the file of the weights."""
        return f"{self.name}_model.safetensors"

    def save(self, folder: str | os.PathLike[str], state: Mapping[str, Tensor], config: Any) -> None:
        """Write settings and weights into a folder, made if need be; each file appears whole or not at all.

        Args:
            folder: The folder.
            state: The model's state dict, of which only the adapter's part is written.
            config: Its settings.
        """
        folder = Path(folder)
        folder.mkdir(parents=True, exist_ok=True)
        atomic_write(folder / self.weights_name, save(self._weights(state), {"format": "pt"}))
        write_json(folder / self.config_name, asdict(config))

    def load(self, folder: str | os.PathLike[str], model: nn.Module) -> None:
        """Load the weights into a model that has such an adapter.

        Raises:
            InputError: The file is missing or unreadable, or its names or shapes are not the model's.
        """
        weights, own = self.read_weights(folder), self._weights(model.state_dict())
        wrong = sorted(
            name
            for name in own.keys() | weights.keys()
            if name not in own or name not in weights or own[name].shape != weights[name].shape
        )
        if wrong:
            raise self.unfit(
                folder,
                f"{len(wrong)} weights are missing, unexpected or of another shape, the first is {wrong[0]}",
            )
        model.load_state_dict(weights, strict=False)

    def read_weights(self, folder: str | os.PathLike[str]) -> dict[str, Tensor]:
        """The weights in a folder, by their names in the state dict.

        Raises:
            InputError: The file is missing or unreadable.
        """
        path = Path(folder) / self.weights_name
        if not path.is_file():
            raise InputError(f"{path} does not exist: give the folder of a saved {self.called}.")
        try:
            weights: dict[str, Tensor] = load_file(path)
        except (OSError, SafetensorError) as error:
            raise InputError(f"{path} is not a whole safetensors file ({error}): save it again.") from error
        return weights

    def read_config(self, folder: str | os.PathLike[str]) -> Any:
        """The settings in a folder; every field is of its type.

        Raises:
            InputError: The file is missing or unreadable, or holds something else.
        """
        path = Path(folder) / self.config_name
        try:
            given = json.loads(path.read_text(encoding="utf-8"))
            given = {name: tuple(x) if isinstance(x, list) else x for name, x in given.items()}
            config = self.config_class(**given)
        except OSError as error:
            raise InputError(f"{path} cannot be read: give the folder of a saved {self.called}.") from error
        except (ValueError, TypeError, AttributeError, RecursionError) as error:
            raise InputError(f"{path} is not the configuration of a {self.called}: save it again.") from error
        for field in fields(config):
            value = getattr(config, field.name)
            if not _is_of(value, field.type):
                raise InputError(f"{path} has {value!r:.60} as {field.name}: save it again.")
        return config

    def unfit(self, folder: str | os.PathLike[str], why: str) -> InputError:
        """What to raise over weights that are another model's."""
        path = Path(folder) / self.weights_name
        return InputError(
            f"{path} does not fit this base model ({why}): load it on the model that it was trained on."
        )

    def _weights(self, state: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Choose the adapter's and the head's entries of a state dict."""
        return {
            name: tensor.detach().contiguous()
            for name, tensor in state.items()
            if not self.parts.isdisjoint(name.split("."))
        }


def _is_of(value: Any, annotation: Any) -> bool:
    """Whether a value is of a type, or of one of several; a tuple by its entries."""
    kinds = get_args(annotation) if isinstance(annotation, UnionType) else (annotation,)
    if isinstance(value, tuple):
        entries = {get_args(kind)[0] for kind in kinds if get_origin(kind) is tuple}
        return bool(entries) and all(type(item) in entries for item in value)
    return type(value) in kinds
