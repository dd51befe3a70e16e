"""What a run is told: the options of ``clear-peft train`` and the contents of ``config.yaml``."""

import math
import os
import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from types import UnionType
from typing import Any, Self, get_args, get_origin, get_type_hints

import yaml

from clear_peft.baselines import get_method
from clear_peft.errors import InputError
from clear_peft.files import atomic_write, refuse_links_out
from clear_peft.tuners import available_methods

CONFIG_NAME = "config.yaml"
_MOST_BRACKETS = 500  # the time that YAML takes grows with the square of their depth
_SCIENTIFIC = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)[eE][+-]?\d+", re.ASCII)


@dataclass(frozen=True, kw_only=True)
class RunConfig:
    """Everything that decides the outcome of a run.

    Attributes:
        model: Name on the Hugging Face hub, or path, of the pretrained model.
        data: Training table: a CSV, TSV, JSONL or Parquet file, or a hub data set ``name[:config][@split]``.
        output: Run folder.
        text_column: Column of the texts.
        label_column: Column of the given labels, which may be wrong.
        clean_label_column: Column of true labels, if they are known: read for evaluation alone.
        id_column: Column of ids, copied into the list of label issues.
        group_column: Column that says which rows belong together, such as those of one customer or document:
            none is judged by a fit that has seen another's label, and none is held out without the others.
        validation: Validation table; by default rows of ``data`` are held out, with their doubtful labels.
        validation_fraction: Share of the rows that is held out.
        test: Test table, evaluated once at the end.
        test_every_epoch: Whether it is evaluated after every epoch too, for curves; nothing is chosen on it.
        peft: PEFT method, see ``clear_peft.tuners.available_methods()``.
        peft_options: Further fields of the PEFT method's configuration.
        target_modules: Names of the layers to adapt; by default the PEFT method's own.
        method: How to train, one of ``clear_peft.baselines.METHODS``.
        preset: ``recommended`` or ``paper``.
        training: Further fields of ``CleaRConfig``, over the preset and the method.
        epochs: Passes over the training rows; ``clear`` spends up to two on finding wrong labels.
        batch_size: Examples per step.
        learning_rate: Peak of a linear schedule; by default 1e-3, and 5e-5 for ``full``.
        max_length: Tokens per text; what is longer is cut.
        seed: Seed of the split, the initial weights, the batches and the gates.
        trust_remote_code: Whether code that comes with a hub model may run.
        report_to: Loggers that get the figures of every epoch too: ``tensorboard`` (in the run folder),
            ``wandb``, ``trackio``, ``mlflow`` and whatever else ``transformers`` reports to.
    """

    model: str
    data: str
    output: str
    text_column: str = "text"
    label_column: str = "label"
    clean_label_column: str | None = None
    id_column: str | None = None
    group_column: str | None = None
    validation: str | None = None
    validation_fraction: float = 0.1
    test: str | None = None
    test_every_epoch: bool = False
    peft: str = "lora"
    peft_options: dict[str, Any] = field(default_factory=dict)
    target_modules: list[str] | None = None
    method: str = "clear"
    preset: str = "recommended"
    training: dict[str, Any] = field(default_factory=dict)
    epochs: int = 10
    batch_size: int = 32
    learning_rate: float | None = None
    max_length: int = 128
    seed: int = 0
    trust_remote_code: bool = False
    report_to: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        """Refuse what can be refused before anything is loaded."""
        for option in fields(self):
            check_type(option.name, getattr(self, option.name), _TYPES[option.name])
        get_method(self.method)
        for name, value, known in (
            ("peft", self.peft, available_methods()),
            ("preset", self.preset, ("recommended", "paper")),
        ):
            if value not in known:
                raise InputError(f"There is no {name} {value!r}: choose from {', '.join(known)}.")
        for name in ("epochs", "batch_size", "max_length"):
            if getattr(self, name) < 1:
                raise InputError(f"{name} is {getattr(self, name)}: give a whole number of at least 1.")
        if not 0 <= self.seed < 2**32:
            raise InputError(f"seed is {self.seed}: give a whole number between 0 and {2**32 - 1}.")
        if self.test_every_epoch and self.test is None:
            raise InputError("test_every_epoch needs a test table: give test.")
        if not 0 < self.validation_fraction < 1:
            raise InputError(
                f"validation_fraction is {self.validation_fraction}: give a share between 0 and 1."
            )
        if self.learning_rate is not None and not 0 < self.learning_rate < float("inf"):
            raise InputError(f"learning_rate is {self.learning_rate}: give a positive number.")
        if not self.output or "\0" in self.output:
            raise InputError(f"output is {self.output!r}: give a folder.")

    @property
    def peak_learning_rate(self) -> float:
        """The learning rate, the default resolved."""
        return self.learning_rate or (1e-3 if get_method(self.method).adapter else 5e-5)

    @classmethod
    def from_mapping(cls, values: Mapping[str, Any], source: str) -> Self:
        """Make a configuration from what a YAML file holds.

        Raises:
            InputError: If a key is unknown or missing, or a value has the wrong type or range.
        """
        missing = [name for name in ("model", "data", "output") if values.get(name) is None]
        if missing:
            raise InputError(f"{source} lacks {', '.join(missing)}: add it.")
        try:
            return cls(**values)
        except InputError as error:
            raise InputError(f"{source}: {error}") from error

    def save(self, folder: str | os.PathLike[str]) -> None:
        """Write ``config.yaml``."""
        text = yaml.safe_dump(asdict(self), sort_keys=False, allow_unicode=True)
        atomic_write(Path(folder) / CONFIG_NAME, text)

    @classmethod
    def load(cls, folder: str | os.PathLike[str]) -> Self:
        """Read the ``config.yaml`` of a run folder, which may come from a stranger."""
        path = Path(folder) / CONFIG_NAME
        if not path.is_file():
            raise InputError(
                f"{folder} is no run folder (it has no {CONFIG_NAME}): give one that train has written."
            )
        refuse_links_out(folder)
        return cls.from_mapping(read_yaml(path), str(path))


def read_yaml(path: str | os.PathLike[str]) -> dict[str, Any]:
    """Read options from YAML, without running anything that it says.

    Raises:
        InputError: If there is no such file, or it holds anything but options with values of their types.
    """
    try:
        text = Path(path).read_text(encoding="utf-8")
        if sum(map(text.count, "[{")) > _MOST_BRACKETS:
            raise ValueError("it nests too deeply")
        values = yaml.safe_load(text)
    except OSError as error:
        raise InputError(
            f"Cannot read {path}: {(error.strerror or str(error)).lower()}; give a YAML file."
        ) from error
    except UnicodeDecodeError as error:
        raise InputError(f"{path} is not YAML (it is not UTF-8): give a YAML file.") from error
    except (yaml.YAMLError, RecursionError, ValueError) as error:  # ValueError: a date such as 2024-99-99
        reason = " ".join(str(error).split())
        raise InputError(f"{path} is not YAML ({reason}): mend it there.") from error
    if not isinstance(values, dict):
        raise InputError(f"{path} holds no options: write lines such as `epochs: 10`.")
    unknown = sorted(str(key) for key in values if key not in _TYPES)
    if unknown:
        raise InputError(
            f"{path} has unknown keys ({', '.join(unknown[:5])}): choose from {', '.join(_TYPES)}."
        )
    for name, value in values.items():
        try:
            if _TYPES[name] not in (str, str | None):  # a model may be called 1e3
                value = values[name] = with_numbers(value)
            if value is not None:
                check_type(name, value, _TYPES[name])
        except InputError as error:
            raise InputError(f"{path}: {error}") from error
        except RecursionError as error:
            raise InputError(f"{path}: {name} holds itself: write out what it is to hold.") from error
    return values


def with_numbers(value: Any) -> Any:
    """YAML 1.1 takes 1e-3 and 1.0e3 for text: make it a number, at any depth."""
    if isinstance(value, dict):
        return {key: with_numbers(item) for key, item in value.items()}
    if isinstance(value, list):
        return [with_numbers(item) for item in value]
    return float(value) if isinstance(value, str) and _SCIENTIFIC.fullmatch(value) else value


_TYPES: dict[str, Any] = get_type_hints(RunConfig)
_TYPE_NAMES = {str: "text", int: "a whole number", float: "a number", bool: "true or false"}


def check_type(name: str, value: object, kind: Any) -> None:
    """Refuse a value of another type, of those that the options of a run have.

    Args:
        name: Of the option, for the sentence.
        value: Its value.
        kind: ``str``, ``int``, ``float``, ``bool``, ``list[str]`` or ``dict[str, Any]``, or one or None.

    Raises:
        InputError: If it is of another type.
    """
    if get_origin(kind) is UnionType:
        if value is None:
            return
        kind = get_args(kind)[0]
    if get_origin(kind) is dict:
        fits, wanted = isinstance(value, dict) and _is_plain(value), "options by name, as JSON can hold them"
    elif get_origin(kind) is list:
        fits, wanted = isinstance(value, list) and all(isinstance(v, str) for v in value), "a list of names"
    else:
        accepted = (int, float) if kind is float else kind
        fits = isinstance(value, accepted) and (kind is bool or not isinstance(value, bool))
        wanted = _TYPE_NAMES[kind]
    if not fits:
        raise InputError(f"{name} is {value!r}: give {wanted}.")


def _is_plain(value: object) -> bool:
    if isinstance(value, dict):
        return all(isinstance(key, str) and _is_plain(item) for key, item in value.items())
    if isinstance(value, list):
        return all(map(_is_plain, value))
    if isinstance(value, float):
        return math.isfinite(value)
    return value is None or isinstance(value, str | int)
