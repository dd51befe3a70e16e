"""A grid file in, the cells to run out."""

import hashlib
import json
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, fields
from functools import cached_property
from importlib.resources import files
from itertools import product
from pathlib import Path
from typing import Any

import yaml

from clear_peft.baselines import METHODS
from clear_peft.bench.packaged import PACKAGED
from clear_peft.errors import InputError
from clear_peft.noise import NoiseSpec
from clear_peft.run_folder.config import RunConfig
from clear_peft.run_folder.training_settings import check_training
from clear_peft.run_folder.yaml_file import with_numbers

TRUE_LABELS, GIVEN_LABELS = "none", "given"
TRUE_NOISE_RATE = "true noise rate"

_SECTIONS = ("model", "train", "peft", "data", "noise", "methods", "cells")
_AXES = ("data", "noise", "methods", "peft", "seeds")
_SOURCE_KEYS = {
    "train": str,
    "test": str,
    "package": str,
    "train_rows": int,
    "test_rows": int,
    "text_column": str,
    "label_column": str,
    "clean_label_column": str,
    "verified_rows": int,
}
# what a cell sets itself
_SET_BY_CELL = {
    "model",
    "data",
    "output",
    "test",
    "validation",
    "text_column",
    "label_column",
    "clean_label_column",
    "verified_column",
    "id_column",
    "peft",
    "seed",
    "test_every_epoch",
}
_SETTINGS = [f.name for f in fields(RunConfig) if f.name not in _SET_BY_CELL]


@dataclass(frozen=True)
class Cell:
    """One run of a benchmark: everything that decides its outcome, and no path of this machine.

    Attributes:
        model: Hub name, path, or ``package:minilm``.
        data: Name of the data set in the grid.
        data_source: Where it is, as in the grid.
        noise: Name of the noise in the grid; ``none`` are the true labels, ``given`` those of the data.
        noise_spec: Fields of ``NoiseSpec``; empty for ``none`` and ``given``.
        peft: PEFT method.
        method: Label of the training method in the grid.
        method_settings: Fields of ``RunConfig`` that it sets over ``train``.
        train: Fields of ``RunConfig`` of every cell of this PEFT method.
        seed: Seed of the noise and of the training.
    """

    model: str
    data: str
    data_source: Mapping[str, Any]
    noise: str
    noise_spec: Mapping[str, Any]
    peft: str
    method: str
    method_settings: Mapping[str, Any]
    train: Mapping[str, Any]
    seed: int

    @cached_property
    def key(self) -> str:
        """Hash of the whole description, the same on every machine."""
        return key_of(asdict(self))

    @property
    def name(self) -> str:
        """What a person calls it."""
        return f"{self.data} {self.noise} {self.peft} {self.method} seed {self.seed}"


def key_of(description: Mapping[str, Any]) -> str:
    """Hash of a cell's description, 16 hexadecimal digits."""
    # once through JSON, so that what comes out of a store has the same hash
    text = json.dumps(json.loads(json.dumps(description)), sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def shipped_grids() -> dict[str, Path]:
    """The grid files that come with the package, by name."""
    folder = Path(str(files("clear_peft.bench") / "grids"))
    return {path.stem: path for path in sorted(folder.glob("*.yaml"))}


def read_grid(source: str) -> list[Cell]:
    """Read a grid and expand it.

    Args:
        source: A YAML file, or the name of a grid that comes with the package.

    Returns:
        Its cells, each once, by seed and then in the order of the blocks: a grid that is interrupted has
        whole seeds.

    Raises:
        InputError: If there is no such grid, or something in it is wrong; names the file and the key.
    """
    path = Path(source)
    if not path.is_file():
        shipped = shipped_grids()
        if source not in shipped:
            raise InputError(
                f"There is no grid {source!r}: give a YAML file, or one of {', '.join(shipped)}."
            )
        path = shipped[source]
    try:
        values = with_numbers(yaml.safe_load(path.read_text(encoding="utf-8")))
    except (OSError, yaml.YAMLError, RecursionError, ValueError) as error:
        reason = " ".join(str(error).split())
        raise InputError(f"{path} is not YAML ({reason}): mend it there.") from error
    try:
        cells = {cell.key: cell for cell in _cells(values)}
    except InputError as error:
        raise InputError(f"{path}: {error}") from error
    return sorted(cells.values(), key=lambda cell: cell.seed)


def _cells(content: Any) -> Iterator[Cell]:
    grid = _mapping(content, "the grid", _SECTIONS)
    for name in ("model", "data", "methods", "cells"):
        if not grid.get(name):
            raise InputError(f"{name} is missing: add it.")
    if not isinstance(grid["model"], str):
        raise InputError(f"model is {grid['model']!r}: give a hub name, a path, or package:minilm.")
    data = _mapping(grid["data"], "data")
    for name, source in data.items():
        _check_source(source, f"data.{name}")
    noise = {TRUE_LABELS: {}, GIVEN_LABELS: {}} | _mapping(grid.get("noise") or {}, "noise")
    for name, spec in noise.items():
        _check_noise(name, spec)
    train = _mapping(grid.get("train") or {}, "train", _SETTINGS)
    tuned = {
        peft: train | _mapping(settings, f"peft.{peft}", _SETTINGS)
        for peft, settings in _mapping(grid.get("peft") or {}, "peft").items()
    }
    methods = {
        label: _mapping({} if settings is None else settings, f"methods.{label}", _SETTINGS)
        for label, settings in _mapping(grid["methods"], "methods").items()
    }
    methods = {label: {"method": label} | settings for label, settings in methods.items()}
    if not isinstance(grid["cells"], list):
        raise InputError(
            "cells is no list: write blocks such as `- {data: [a], noise: [none], methods: [b]}`."
        )
    for i, block in enumerate(grid["cells"]):
        where = f"cells[{i}]"
        axes: dict[str, Any] = {"peft": ["lora"], "seeds": [0]} | _mapping(block, where, _AXES)
        for axis in _AXES:
            kind, items = (int, "numbers") if axis == "seeds" else (str, "names")
            values = axes.get(axis)
            if not (isinstance(values, list) and values and all(isinstance(v, kind) for v in values)):
                raise InputError(f"{where}.{axis} is {values!r}: give a list of {items}.")
        for axis, known in (("data", data), ("noise", noise), ("methods", methods)):
            for name in axes[axis]:
                if name not in known:
                    raise InputError(
                        f"{where}.{axis} names {name!r}, which is not declared: choose from "
                        f"{', '.join(known)}."
                    )
        for peft, label, seed in product(axes["peft"], axes["methods"], axes["seeds"]):
            _check_run(tuned.get(peft, train) | methods[label], peft, seed, f"{where}, methods.{label}")
        for data_name, noise_name, peft, label, seed in product(
            axes["data"], axes["noise"], axes["peft"], axes["methods"], axes["seeds"]
        ):
            if peft != axes["peft"][0] and not METHODS[methods[label]["method"]].adapter:
                continue  # without an adapter, all of them are one run
            yield Cell(
                model=grid["model"],
                data=data_name,
                data_source=data[data_name],
                noise=noise_name,
                noise_spec=noise[noise_name],
                peft=peft,
                method=label,
                method_settings=methods[label],
                train=tuned.get(peft, train),
                seed=seed,
            )


def _mapping(value: Any, where: str, known: tuple[str, ...] | list[str] | None = None) -> dict[str, Any]:
    if not isinstance(value, dict) or not all(isinstance(key, str) for key in value):
        raise InputError(f"{where} is {value!r}: give options by name.")
    unknown = [key for key in value if known is not None and key not in known]
    if known is not None and unknown:
        raise InputError(f"{where} has the unknown key {unknown[0]!r}: choose from {', '.join(known)}.")
    return value


def _check_source(value: Any, where: str) -> None:
    source = _mapping(value, where, list(_SOURCE_KEYS))
    for key, item in source.items():
        kind = _SOURCE_KEYS[key]
        fits = isinstance(item, kind) and not isinstance(item, bool)
        if not fits or item == "" or (kind is int and item < 1):
            wanted = "text" if kind is str else "a whole number of at least 1"
            raise InputError(f"{where}.{key} is {item!r}: give {wanted}.")
    if "package" in source:
        if source["package"] not in PACKAGED:
            raise InputError(f"{where}.package is {source['package']!r}: choose from {', '.join(PACKAGED)}.")
        surplus = sorted(set(source) - {"package", "train_rows", "test_rows", "verified_rows"})
        if surplus:
            raise InputError(f"{where}.{surplus[0]} cannot be set for packaged data: remove it.")
    elif "train" not in source:
        raise InputError(f"{where} lacks train: name a training table, or a package.")
    elif not source.keys() & {"test", "train_rows"}:
        raise InputError(
            f"{where} lacks test: name a test table, or give train_rows to test on the rows left over."
        )


def _check_noise(name: str, value: Any) -> None:
    if name in (TRUE_LABELS, GIVEN_LABELS):
        if value:
            raise InputError(f"noise.{name} is a reserved name: give your noise another one.")
        return
    spec = _mapping(value, f"noise.{name}", [f.name for f in fields(NoiseSpec)])
    if "kind" not in spec:
        raise InputError(f"noise.{name} lacks its kind: add it.")
    try:
        NoiseSpec(**spec)
    except InputError as error:
        raise InputError(f"noise.{name}: {error}") from error


def _check_run(settings: dict[str, Any], peft: Any, seed: Any, where: str) -> None:
    """Refuse before the first cell runs what the last one would refuse."""
    try:
        run = RunConfig(
            model="-", data="-", output="-", peft=peft, seed=seed, **with_noise_rate(settings, 0.5)
        )
        check_training(run.training)
    except InputError as error:
        raise InputError(f"{where}: {error}") from error


def with_noise_rate(settings: Any, rate: float) -> Any:
    """Put a number in the place of every ``true noise rate``, at any depth."""
    if isinstance(settings, dict):
        return {key: with_noise_rate(value, rate) for key, value in settings.items()}
    return rate if settings == TRUE_NOISE_RATE else settings
