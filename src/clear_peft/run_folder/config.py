"""What a run is told: the options of ``clear-peft train`` and the contents of ``config.yaml``.

The command line makes its options of the fields of :class:`RunConfig`, so that importing this is quick: YAML
and NumPy are imported where they are needed.
"""

import os
from collections.abc import Callable, Mapping
from dataclasses import asdict
from functools import wraps
from pathlib import Path
from typing import Any, Self, get_args

from pydantic import (
    ConfigDict,
    Field,
    JsonValue,
    ValidationError,
    ValidationInfo,
    field_validator,
)
from pydantic.dataclasses import dataclass

from clear_peft.baselines import METHODS, get_method
from clear_peft.errors import InputError
from clear_peft.hardware import DEVICES
from clear_peft.run_folder.option import Option, kind_of, limits_of, shown
from clear_peft.run_folder.yaml_file import read_mapping, with_numbers
from clear_peft.tuners import available_methods
from clear_peft.tuners.catalogue import ON_QUANTIZED

CONFIG_NAME = "config.yaml"
# figures to choose an epoch by: of one label a row alone, and of several alone
FIGURE_OF_SPANS = "span_f1"  # where words have labels
FIGURES_OF_ONE_LABEL = ("accuracy", "weighted_accuracy")
FIGURES_OF_SEVERAL_LABELS = (
    "micro_f1",
    "weighted_micro_f1",
    "mean_average_precision",
    "weighted_mean_average_precision",
)
_STRICT = ConfigDict(strict=True, extra="forbid", allow_inf_nan=False)
_DATA, _MODEL, _TRAINING, _OUTPUT = "Data", "Model", "Training", "Output"


class OptionError(InputError):
    """An option of a run is not what it should be.

    Args:
        option: Its name.
        sentence: What it is, and what to give.
    """

    def __init__(self, option: str, sentence: str) -> None:
        super().__init__(sentence)
        self.option = option


def _refusing_in_a_sentence(cls: Any) -> Any:
    """Let a pydantic dataclass refuse values by an :class:`OptionError`."""
    construct = cls.__init__

    @wraps(construct)
    def __init__(self: Any, **values: Any) -> None:  # noqa: N807
        try:
            construct(self, **values)
        except ValidationError as error:
            raise _refusal(error, values) from error

    cls.__init__ = __init__
    return cls


def _option(
    panel: str,
    description: str,
    default: Any = ...,
    *,
    choices: tuple[str, ...] = (),
    factory: Callable[[], Any] | None = None,
    **limits: float,
) -> Any:
    """A field that is an option.

    Args:
        panel: Where ``--help`` shows it.
        description: What it means.
        default: Where it is not given; ``...``: it has to be given.
        choices: Values that it may have; none: any of its type.
        factory: Makes the default, in place of ``default``.
        **limits: ``ge``, ``gt``, ``le`` and ``lt`` of a number, ``min_length`` of text.
    """
    extra: dict[str, Any] = {"panel": panel} | ({"enum": list(choices)} if choices else {})
    made = {"default": default} if factory is None else {"default_factory": factory}
    return Field(**made, description=description, json_schema_extra=extra, **limits)  # type: ignore[call-overload]


@_refusing_in_a_sentence
@dataclass(frozen=True, kw_only=True, config=_STRICT)
class RunConfig:
    """Everything that decides the outcome of a run.

    The fields are described where they are declared, and in ``docs/options.md``. A value of another type is
    refused, never turned into one that fits; a whole number is a number.

    Raises:
        InputError: If an option is unknown or missing, or a value has the wrong type or range.
    """

    model: str = _option(_MODEL, "Hub name or path of the pretrained model.")
    data: str = _option(
        _DATA,
        "Training table: a CSV, TSV, JSONL, JSON, Parquet, XLSX or CoNLL file, also packed (.gz), a folder "
        "of Parquet files, or a hub data set NAME[:CONFIG][@SPLIT].",
    )
    output: str = _option(_OUTPUT, "Run folder to write.")
    text_column: str | list[str] = _option(
        _DATA,
        "Column of the texts. Given twice, as for a title and a body, the tokenizer encodes a pair; more are "
        "joined to the second.",
        "text",
        min_length=1,
    )
    label_column: str = _option(_DATA, "Column of the given labels, which may be wrong.", "label")
    label_separator: str | None = _option(
        _DATA,
        "What stands between several labels of a cell, such as ;. An empty cell is then a row without "
        "labels. Lists, as JSON has them, need no separator.",
        None,
    )
    label_columns: list[str] = _option(
        _DATA, "Columns of 0 and 1, one for each of several labels, in place of a label column.", factory=list
    )
    normalize_labels: bool = _option(
        _DATA,
        "Take labels for one that differ only in case, white space, hyphens and underscores between words, "
        "characters that cannot be seen or how Unicode composes letters.",
        False,
    )
    unlabelled: list[str] = _option(
        _DATA,
        "What stands for a missing label besides an empty cell. Rows without a label are not trained on, but "
        "predicted in unlabelled.csv, the least sure first.",
        factory=list,
    )
    encoding: str | None = _option(
        _DATA, "Encoding of the tables, such as cp1252. Default: UTF-8, or UTF-16 where it is marked.", None
    )
    clean_label_column: str | None = _option(
        _DATA, "Column of true labels, if they are known; read for evaluation only.", None
    )
    id_column: str | None = _option(_DATA, "Column of ids, copied into the list of label issues.", None)
    group_column: str | None = _option(
        _DATA,
        "Column that says which rows belong together, such as those of a customer or a document. No row is "
        "judged by a model that has seen the label of another row of its group, and groups are held out as "
        "a whole.",
        None,
    )
    opinion_column: str | list[str] = _option(
        _DATA,
        "Column of another label for the same rows, by a rule, a model or another person; empty cells say "
        "nothing. May be repeated. Labels are judged by what all sources say.",
        factory=list,
    )
    annotator_column: str | list[str] = _option(
        _DATA,
        "Column of an annotator's labels; give two or more in place of a label column, which then is their "
        "consensus. Empty cells say nothing.",
        factory=list,
    )
    verified_column: str | None = _option(
        _DATA,
        "Column that says which rows a person has looked at: their true label, or true where the given one "
        "is right. These rows are believed, and not held out; the others are judged by what they tell.",
        None,
    )
    verified: str | list[str] | None = _option(
        _DATA,
        "corrections.csv of a review or a report, in place of that column: kept and relabelled rows are "
        "verified. Given several times, a later file counts where both name a row.",
        None,
        min_length=1,
    )
    validation: str | None = _option(
        _DATA, "Validation table. Without it, rows of the training table are held out.", None
    )
    validation_fraction: float = _option(
        _DATA, "Share of rows held out for validation when no validation table is given.", 0.1, gt=0, lt=1
    )
    test: str | None = _option(_DATA, "Test table, evaluated once, after training.", None)
    test_every_epoch: bool = _option(
        _DATA, "Evaluate the test table after every epoch too. No epoch is chosen by it.", False
    )
    peft: str = _option(_MODEL, "PEFT method.", "lora", choices=available_methods())
    peft_options: dict[str, JsonValue] = _option(
        _MODEL, 'Further options of the PEFT method, such as {"r": 8}.', factory=dict
    )
    target_modules: list[str] | None = _option(
        _MODEL, "Layers to adapt, by name. Default: those that the PEFT method adapts.", None
    )
    method: str = _option(_TRAINING, "Training method.", "clear", choices=tuple(METHODS))
    preset: str = _option(
        _TRAINING,
        "Settings to begin with; paper is the recipe of the CleaR paper.",
        "recommended",
        choices=("recommended", "paper"),
    )
    training: dict[str, JsonValue] = _option(
        _TRAINING,
        'Further settings of CleaRConfig, such as {"max_gate_prob": 0.9}; they replace those of the preset '
        "and the method.",
        factory=dict,
    )
    select_by: str | None = _option(
        _TRAINING,
        "Figure of the validation rows by which the epoch is chosen. weighted_accuracy and weighted_macro_f1 "
        "count each row by the probability that its label is right, the others trust the given labels. Of "
        "several labels a row, micro-F1 takes the place of accuracy; labels of words have accuracy, "
        "weighted_accuracy and span_f1. Default: as the preset and the method say.",
        None,
        choices=(
            "accuracy",
            "macro_f1",
            "weighted_accuracy",
            "weighted_macro_f1",
            "loss",
            *FIGURES_OF_SEVERAL_LABELS,
            FIGURE_OF_SPANS,
        ),
    )
    class_weights: str = _option(
        _TRAINING,
        "balanced weighs the loss so that all classes count alike, where targets are the given labels; soft "
        "labels of the method clear are sampled by class in any case.",
        "none",
        choices=("none", "balanced"),
    )
    epochs: int = _option(
        _TRAINING,
        "Passes over the training rows. The method clear spends up to two of them on finding wrong labels.",
        10,
        ge=1,
    )
    batch_size: int = _option(_TRAINING, "Rows per training step.", 32, ge=1)
    learning_rate: float | None = _option(
        _TRAINING,
        "Peak learning rate of a linear schedule. Default: 1e-3, for full fine-tuning 5e-5.",
        None,
        gt=0,
    )
    max_length: int = _option(_TRAINING, "Tokens per text; longer texts are cut.", 128, ge=1)
    long_texts: str = _option(
        _TRAINING, "Which tokens of longer texts are kept.", "head", choices=("head", "tail")
    )
    seed: int = _option(
        _TRAINING, "Seed of the split, initial weights, batches and gates.", 0, ge=0, le=2**32 - 1
    )
    device: str = _option(
        _TRAINING,
        "Where to train. auto: a CUDA GPU if there is one, else the CPU.",
        "auto",
        choices=DEVICES,
    )
    dtype: str = _option(
        _MODEL,
        "Precision of the weights of the base model; auto: as in the checkpoint. Adapter and head are in "
        "float32.",
        "float32",
        choices=("auto", "float32", "bfloat16", "float16"),
    )
    quantization: str | None = _option(
        _MODEL,
        "Quantize the linear layers of the base model to so many bits. Needs bitsandbytes.",
        None,
        choices=tuple(ON_QUANTIZED),
    )
    gradient_checkpointing: bool = _option(
        _TRAINING,
        "Compute activations again in the backward instead of keeping them: slower, in less memory.",
        False,
    )
    trust_remote_code: bool = _option(_MODEL, "Run code that comes with a hub model.", False)
    report_to: list[str] = _option(
        _OUTPUT,
        "Loggers that get the figures of every epoch: tensorboard (in the run folder), wandb, trackio, "
        "mlflow and others that transformers knows.",
        factory=list,
    )

    @field_validator(
        "peft",
        "method",
        "preset",
        "select_by",
        "class_weights",
        "device",
        "long_texts",
        "dtype",
        "quantization",
    )
    @classmethod
    def _is_known(cls, value: str | None, info: ValidationInfo) -> str | None:
        known = next(option.choices for option in options() if option.name == info.field_name)
        if value is not None and value not in known:
            raise InputError(f"There is no {info.field_name} {value!r}: choose from {', '.join(known)}.")
        return value

    @field_validator("select_by")
    @classmethod
    def _is_said_once(cls, value: str | None, info: ValidationInfo) -> str | None:
        other = info.data.get("training", {}).get("metric_for_best_model", value)
        if value is not None and other not in (value, f"eval_{value}"):
            raise InputError(
                f"select_by is {value!r}, and training sets metric_for_best_model to {other!r}: leave one of "
                "them out."
            )
        return value

    @field_validator("output")
    @classmethod
    def _names_a_folder(cls, value: str) -> str:
        if not value or "\0" in value:
            raise InputError(f"output is {value!r}: give a folder.")
        return value

    @field_validator("test_every_epoch")
    @classmethod
    def _has_a_test(cls, value: bool, info: ValidationInfo) -> bool:
        if value and info.data.get("test") is None:
            raise InputError("test_every_epoch needs a test table: give test.")
        return value

    @field_validator("dtype", "quantization")
    @classmethod
    def _leaves_the_base_alone(cls, value: str | None, info: ValidationInfo) -> str | None:
        method = info.data.get("method", "clear")
        if value not in ("float32", None) and not get_method(method).adapter:
            raise InputError(
                f"{info.field_name} is {value!r}, and {method} trains all weights, which needs them in "
                "float32: leave it out, or choose another method."
            )
        return value

    @field_validator("quantization")
    @classmethod
    def _goes_with_the_adapter(cls, value: str | None, info: ValidationInfo) -> str | None:
        peft = info.data.get("peft", "lora")
        if value is not None and peft not in ON_QUANTIZED[value]:
            raise InputError(
                f"quantization is {value!r}, which does not go with {peft}: leave it out, or choose peft "
                f"from {', '.join(ON_QUANTIZED[value])}."
            )
        return value

    @field_validator("gradient_checkpointing")
    @classmethod
    def _runs_again(cls, value: bool, info: ValidationInfo) -> bool:
        peft, tuned = info.data.get("peft"), get_method(info.data.get("method", "clear")).adapter
        if value and tuned and peft in ("prefix", "apt"):
            raise InputError(
                f"gradient_checkpointing does not go with {peft}, whose vectors a layer is given only once: "
                "leave it out, or choose lora."
            )
        return value

    @property
    def loading(self) -> dict[str, Any]:
        """How the base model is loaded: arguments of ``clear_peft.pipeline.models.load_classifier``."""
        return {name: getattr(self, name) for name in ("dtype", "quantization", "trust_remote_code")}

    @property
    def reading(self) -> dict[str, Any]:
        """How every table of the run is read: arguments of ``clear_peft.data.load_examples``."""
        names = ("text_column", "label_column", "label_separator", "label_columns", "normalize_labels")
        return {name: getattr(self, name) for name in (*names, "unlabelled", "encoding")}

    @property
    def sources(self) -> dict[str, Any]:
        """Columns in which several sources label the training table, of ``load_examples`` too."""
        return {"opinion_column": self.opinion_column, "annotator_column": self.annotator_column}

    @property
    def peak_learning_rate(self) -> float:
        """The learning rate, the default resolved."""
        return self.learning_rate or (1e-3 if get_method(self.method).adapter else 5e-5)

    @classmethod
    def from_mapping(
        cls, values: Mapping[str, Any], source: str, over: Mapping[str, Any] | None = None
    ) -> Self:
        """Make a configuration from what a YAML file holds.

        Args:
            values: The options in the file.
            source: The file; what is wrong with its values names it.
            over: Options that take the place of the file's. Default: none.

        Raises:
            InputError: If a key is unknown or missing, or a value has the wrong type or range.
        """
        over = over or {}
        try:
            cls(**{**over, **values})  # a file is refused even where its wrong values would be replaced
        except OptionError as error:
            if error.option in over.keys() - values.keys():
                raise
            raise InputError(f"{source}: {error}") from error
        return cls(**{**values, **over})

    def save(self, folder: str | os.PathLike[str]) -> None:
        """Write ``config.yaml``."""
        import yaml

        from clear_peft.files import atomic_write

        text = yaml.safe_dump(asdict(self), sort_keys=False, allow_unicode=True)
        atomic_write(Path(folder) / CONFIG_NAME, text)

    @classmethod
    def load(cls, folder: str | os.PathLike[str]) -> Self:
        """Read the ``config.yaml`` of a run folder, which may come from a stranger."""
        from clear_peft.files import refuse_links_out

        path = Path(folder) / CONFIG_NAME
        if not path.is_file():
            raise InputError(
                f"{folder} is no run folder (it has no {CONFIG_NAME}): give one that train has written."
            )
        refuse_links_out(folder)
        return cls.from_mapping(read_yaml(path), str(path))


def options() -> list[Option]:
    """The options of a run, in the order of their declaration."""
    made = []
    for name, field in RunConfig.__pydantic_fields__.items():  # type: ignore[attr-defined]
        plain = not field.is_required() and field.default_factory is None
        made.append(
            Option(
                name=name,
                kind=kind_of(field.annotation),
                required=field.is_required(),
                default=field.default if plain else None,
                limits=limits_of(field.metadata),
                choices=tuple(field.json_schema_extra.get("enum", ())),
                panel=field.json_schema_extra["panel"],
                meaning=field.description,
                repeated={str, list[str]} <= set(get_args(field.annotation)),
            )
        )
    return made


def _refusal(error: ValidationError, values: Mapping[str, Any]) -> OptionError:
    """What pydantic found wrong with the options of a run, in one sentence; what is missing comes last."""
    known = {option.name: option for option in options()}
    found = error.errors(include_url=False, include_input=False)
    first = next((fault for fault in found if fault["type"] != "missing"), None)
    if first is None:
        missing = [str(fault["loc"][0]) for fault in found]
        return OptionError(missing[0], f"The run lacks {', '.join(missing)}: give a value for each.")
    name = str(first["loc"][0])
    if name not in known:
        return OptionError(name, f"There is no option {name!r}: choose from {', '.join(known)}.")
    raised = first.get("ctx", {}).get("error")
    if isinstance(raised, InputError):
        return OptionError(name, str(raised))
    return OptionError(name, f"{name} is {shown(values[name])}: give {known[name].wanted}.")


def read_yaml(path: str | os.PathLike[str]) -> dict[str, Any]:
    """Read options from YAML, without running anything that it says.

    Raises:
        InputError: If there is no such file, or it holds anything but options by their names.
    """
    values = read_mapping(path)
    kinds = {option.name: option.kind for option in options()}
    unknown = sorted(str(key) for key in values if key not in kinds)
    if unknown:
        raise InputError(
            f"{path} has unknown keys ({', '.join(unknown[:5])}): choose from {', '.join(kinds)}."
        )
    for name, value in values.items():
        if kinds[name] is str:  # a model may be called 1e3
            continue
        try:
            values[name] = with_numbers(value)
        except RecursionError as error:
            raise InputError(f"{path}: {name} holds itself: write out what it is to hold.") from error
    return values
