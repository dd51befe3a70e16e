"""Features of texts on disk, so that the same text is encoded once."""

import hashlib
import json
import os
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

import numpy as np
import numpy.typing as npt
from safetensors import SafetensorError, safe_open
from safetensors.numpy import load, save

from clear_peft.errors import InputError
from clear_peft.files import atomic_write

# another number whenever the same text and model would give other features
_VERSION = 2
_KEY_BYTES = 32


def default_folder() -> Path:
    """``~/.cache/clear-peft``, or where the environment variable ``CLEAR_PEFT_CACHE`` says."""
    return Path(os.environ.get("CLEAR_PEFT_CACHE") or Path.home() / ".cache" / "clear-peft")


def key_of(text: str) -> bytes:
    """The key of a text: its SHA-256."""
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).digest()


class FeatureCache:
    """What one version of a model makes of texts of at most so many tokens.

    A folder of safetensors files, none of which is ever changed: ``keys``, (M, 32) uint8, ``cut``, (M,) bool,
    whether a text has more tokens, and ``features``, (M, V, D) float16, or float32 where one is too large. A
    file is named by the SHA-256 of what it holds, so a damaged one is seen, and passed over.

    Args:
        folder: Folder of all caches.
        model: Hub name or path of the model.
        max_length: Tokens per text.
        long_texts: What is read of longer texts.
    """

    def __init__(self, folder: Path, model: str, max_length: int, long_texts: str) -> None:
        identity = json.dumps([_VERSION, version_of(model), max_length, long_texts])
        self._folder = folder / hashlib.sha256(identity.encode()).hexdigest()[:32]

    def read(
        self, keys: Sequence[bytes]
    ) -> tuple[npt.NDArray[np.bool_], npt.NDArray[np.bool_], npt.NDArray[np.float32] | None]:
        """Look texts up.

        Args:
            keys: Of N texts, all different.

        Returns:
            Which are known, (N,), which of these are cut, (N,), and their features, (N, V, D), arbitrary for
            the others; None where none is known.
        """
        place = {key: i for i, key in enumerate(keys)}
        known, cut = np.zeros(len(keys), bool), np.zeros(len(keys), bool)
        features: npt.NDArray[np.float32] | None = None
        for path in sorted(self._folder.glob("*.safetensors")):
            if known.all():
                break
            found = _read(path, place)
            if found is None:
                continue
            places, longer, values = found
            if features is None:
                features = np.empty((len(keys), *values.shape[1:]), np.float32)
            if values.shape[1:] == features.shape[1:]:
                features[places], cut[places], known[places] = values, longer, True
        return known, cut, features

    def add(
        self, keys: Sequence[bytes], features: npt.NDArray[np.float32], cut: npt.NDArray[np.bool_]
    ) -> None:
        """Keep the features of M texts, (M, V, D), and which are cut; where nothing can be written, none."""
        half = _is_half(features)
        content = save(
            {
                "keys": np.frombuffer(b"".join(keys), np.uint8).reshape(-1, _KEY_BYTES),
                "cut": cut,
                "features": features.astype(np.float16 if half.all() else np.float32),
            }
        )
        name = f"{hashlib.sha256(content).hexdigest()}.safetensors"
        with suppress(OSError, InputError):
            # features tell much of what the texts say
            self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            atomic_write(self._folder / name, content)


def as_stored(features: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    """Round features to float16 where they fit, so that a first run and a cached one agree."""
    with np.errstate(over="ignore"):
        rounded = features.astype(np.float16).astype(np.float32)
    return np.where(_is_half(features)[:, None, None], rounded, features)


def _is_half(features: npt.NDArray[np.float32]) -> npt.NDArray[np.bool_]:
    """Whether all numbers of a row fit float16, (N,)."""
    return np.abs(features).max(axis=(1, 2)) <= np.finfo(np.float16).max


def _read(
    path: Path, place: dict[bytes, int]
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.bool_], npt.NDArray[np.floating]] | None:
    """Where a file's wanted texts belong, which are cut, and their features; None where none is, or sound."""
    try:
        with safe_open(path, "np") as file:
            keys = [row.tobytes() for row in file.get_tensor("keys")]
        pairs = [(place[key], i) for i, key in enumerate(keys) if key in place]
        if not pairs:
            return None
        content = path.read_bytes()
        if hashlib.sha256(content).hexdigest() != path.stem:
            return None
        arrays = load(content)
        features, cut = arrays["features"], arrays["cut"]
    except (OSError, SafetensorError, KeyError, ValueError):
        return None
    wanted, held = np.array(pairs).T
    return wanted, cut[held], features[held]


def version_of(model: str) -> str:
    """The model and which version of it lies here: a folder may hold other weights tomorrow."""
    folder = Path(model)
    try:
        if folder.is_dir():
            files = [(f.name, f.stat()) for f in sorted(folder.iterdir()) if f.is_file()]
            stamps = [(name, stat.st_size, stat.st_mtime_ns) for name, stat in files]
            return json.dumps([str(folder.resolve()), stamps])
        from huggingface_hub import try_to_load_from_cache  # takes a quarter of a second

        config = try_to_load_from_cache(model, "config.json")  # below a folder named by the commit
    except (OSError, ValueError):
        return model
    return config if isinstance(config, str) else model
