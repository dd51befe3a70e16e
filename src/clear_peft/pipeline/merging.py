"""A finished run as one transformers model, for whatever serves such models."""

import os
from dataclasses import dataclass
from fnmatch import fnmatch
from pathlib import Path

import torch

from clear_peft.baselines import get_method
from clear_peft.data.checks import listing
from clear_peft.errors import InputError
from clear_peft.files import replaced_folder
from clear_peft.pipeline.inference import load_run
from clear_peft.pipeline.onnx_model import check_onnx_installed, write_onnx
from clear_peft.pipeline.push import MODEL_FILES, TOKENIZER_FILES
from clear_peft.run_folder import layout

ONNX = "model.onnx"
_MADE = {"config.json", layout.LABELS}
_WRITTEN = (*MODEL_FILES, *TOKENIZER_FILES, layout.LABELS, "generation_config.json", ONNX, f"{ONNX}.data")
# of the largest logit: merging adds up weights instead of outputs, and ONNX adds in another order
_TOLERANCE = 1e-3


@dataclass(frozen=True)
class Exported:
    """How near an exported model is to its run.

    Attributes:
        difference: The largest difference of a logit between run and model, on the names of the classes.
        onnx: The same between model and ONNX model, as a share of the largest logit; None without ONNX.
    """

    difference: float
    onnx: float | None


def export(
    folder: str | os.PathLike[str],
    output: str | os.PathLike[str],
    *,
    onnx: bool = False,
    overwrite: bool = False,
    trust_remote_code: bool = False,
) -> Exported:
    """Write a run as one model in float32, with tokenizer and names of classes; plain transformers loads it.

    Args:
        folder: Run folder.
        output: Folder to write, new or empty.
        onnx: Whether it is written as ``model.onnx``, too, and compared with torch. Default False.
        overwrite: Whether an earlier export there may be replaced. Default False.
        trust_remote_code: Whether code that comes with the model may run. Default False.

    Raises:
        InputError: If the run is not finished, its base model is quantized, its PEFT method adds what is no
            weight of the model, the folder must not or cannot be written to, or what was asked for in ONNX
            needs a package, cannot be exported or is another model. Then nothing is written.
    """
    if onnx:
        check_onnx_installed()
    target = Path(output)
    _check_target(target, overwrite=overwrite)
    if layout.read_finished(folder)[0].quantization is not None:
        raise InputError(
            f"The base model of {folder} is quantized, and an adapter cannot be merged into rounded weights: "
            f"load {Path(folder) / layout.ADAPTER} beside it instead."
        )
    run = load_run(folder, device="cpu", trust_remote_code=trust_remote_code)
    run.model.float()
    batch = run.tokenizer(list(run.names.names), padding=True, return_tensors="pt")
    model = run.model.eval()
    with torch.inference_mode():
        before = model(**batch).logits
    if get_method(run.config.method).adapter:
        try:
            model = model.merge_and_unload()
        except (AttributeError, NotImplementedError, ValueError, TypeError) as problem:
            raise InputError(
                f"{run.config.peft} cannot be merged into the weights of the model: load "
                f"{Path(folder) / layout.ADAPTER} beside it instead."
            ) from problem
    with torch.inference_mode():
        after = model.eval()(**batch).logits
    error = float((after - before).abs().max())
    if not error <= _TOLERANCE * float(before.abs().max()):
        raise InputError(
            f"The merged model is another one: its logits differ by {error:.2g}. Load "
            f"{Path(folder) / layout.ADAPTER} beside the model instead."
        )
    onnx_error = None
    try:
        with replaced_folder(target) as part:
            model.save_pretrained(part)
            run.tokenizer.save_pretrained(part)
            run.names.save(part / layout.LABELS)
            if onnx:
                names, length = run.names.names, run.config.max_length
                onnx_error = write_onnx(model, run.tokenizer, names, length, part / ONNX)
                if not onnx_error <= _TOLERANCE:
                    raise InputError(
                        f"The ONNX model is another one: its logits differ by {onnx_error:.2g} of the "
                        "largest. Leave --onnx out."
                    )
    except OSError as problem:
        reason = (problem.strerror or str(problem)).lower()
        raise InputError(f"Cannot write {output}: {reason}; give another --output.") from problem
    return Exported(error, onnx_error)


def _check_target(target: Path, *, overwrite: bool) -> None:
    if not target.exists():
        return
    held = {entry.name for entry in target.iterdir()} if target.is_dir() else {target.name}
    if held and not held >= _MADE:
        raise InputError(f"{target} holds something that is no exported model: give another --output.")
    others = sorted(name for name in held if not any(fnmatch(name, known) for known in _WRITTEN))
    if others:
        raise InputError(
            f"{target} holds {listing(others)} beside an exported model: give another --output, or remove it."
        )
    if held and not overwrite:
        raise InputError(f"{target} holds a model already: give another --output, or --overwrite.")
