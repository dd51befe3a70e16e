"""A classifier as an ONNX model, by torch's own exporter."""

import warnings
from collections.abc import Iterator, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from clear_peft.errors import InputError
from clear_peft.surroundings import pip_install

# besides torch: what its exporter needs, and what runs the model
_PACKAGES = ("onnx", "onnxscript", "onnxruntime")
# tokens of the longest text that is compared: attention grows with their square
_LONGEST = 512
# a file of Protocol Buffers holds less than 2 GiB, structure included
_ONE_FILE = 2**31 - 2**24


def check_onnx_installed() -> None:
    """Refuse where a package is missing.

    Raises:
        InputError: With its name.
    """
    missing = [name for name in _PACKAGES if find_spec(name) is None]
    if missing:
        raise InputError(f"ONNX needs {' and '.join(missing)}: {pip_install('onnx')}.")


def write_onnx(model: Any, tokenizer: Any, names: Sequence[str], max_length: int, path: Path) -> float:
    """Write a classifier as an ONNX model of any batch size and length, and run it beside torch.

    Its inputs are those that the tokenizer makes, (B, L) int64, and its output is ``logits``, (B, C) float32.
    The weights are in the same file, or in ``model.onnx.data`` beside it from 2 GiB on.

    Args:
        model: In evaluation mode, float32, on the CPU.
        tokenizer: Its tokenizer.
        names: Names of the classes: what the compared texts are made of.
        max_length: Tokens per text.
        path: File to write.

    Returns:
        The largest difference between a logit in torch and in onnxruntime, as a share of the largest logit,
        over batches of other sizes than the exporter saw, padded and not.

    Raises:
        InputError: If torch cannot export the architecture.
    """
    batches = _batches(tokenizer, names, max_length)
    example = next(batches)
    axes = tuple({0: "batch", 1: "length"} for _ in example)
    size = sum(weight.numel() * weight.element_size() for weight in model.state_dict().values())
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # the exporter warns of its own ways
            torch.onnx.export(
                _Logits(model, list(example)).eval(),
                tuple(example.values()),
                path,
                dynamo=True,
                input_names=list(example),
                output_names=["logits"],
                dynamic_shapes=(axes,),
                external_data=size > _ONE_FILE,
                verbose=False,
            )
    except torch.onnx.OnnxExporterError as problem:
        raise InputError(
            f"torch cannot export {type(model).__name__} to ONNX: leave --onnx out, and serve the merged "
            "model."
        ) from problem
    return _difference(model, path, batches)


def _difference(model: Any, path: Path, batches: Iterator[dict[str, Tensor]]) -> float:
    from onnxruntime import InferenceSession

    session = InferenceSession(path, providers=["CPUExecutionProvider"])
    largest = difference = 0.0
    for batch in batches:
        with torch.inference_mode():
            expected = model(**batch).logits
        (found,) = session.run(["logits"], {name: ids.numpy() for name, ids in batch.items()})
        largest = max(largest, float(expected.abs().max()))
        difference = max(difference, float((expected - torch.from_numpy(found)).abs().max()))
    return difference / largest


def _batches(tokenizer: Any, names: Sequence[str], max_length: int) -> Iterator[dict[str, Tensor]]:
    """Batches of texts that are made of the names of classes, each of another size and length."""
    short, long = names[0], " ".join(names)
    most = min(max_length, _LONGEST)
    full = " ".join([long] * most)
    for texts in ([short, long], [short], [long, short, f"{long} {short}"], [full, short, long, short]):
        yield dict(tokenizer(texts, padding=True, truncation=True, max_length=most, return_tensors="pt"))


class _Logits(nn.Module):
    """A classifier that takes its inputs by position, and gives its logits alone."""

    def __init__(self, model: nn.Module, names: list[str]) -> None:
        super().__init__()
        self.model, self.names = model, names

    def forward(self, *values: Tensor) -> Tensor:
        return self.model(**dict(zip(self.names, values, strict=True))).logits
