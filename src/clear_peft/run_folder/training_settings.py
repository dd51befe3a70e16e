"""What ``training`` of a run may hold; says so without torch and transformers, whose imports take seconds."""

import ast
from collections.abc import Collection
from functools import cache
from importlib.util import find_spec
from pathlib import Path

import clear_peft
from clear_peft.errors import InputError

_NOT_TRAINING = {
    # where a run writes, what it reads and to whom it speaks is not for a stranger's config.yaml to say
    "accelerator_config",
    "output_dir",
    "push_to_hub",
    "report_to",
    "resume_from_checkpoint",
    # a run names its labels, judges every row, and measures all rows of a table together
    "batch_eval_metrics",
    "dataloader_drop_last",
    "eval_do_concat_batches",
    "label_names",
    "prediction_loss_only",
    # no run shards a model
    "deepspeed",
    "fsdp",
    "fsdp_config",
    "parallelism_config",
}
_NOT_BEGINNING = ("hub_", "trackio_")
# what has an option of its own
_OPTIONS = {
    "num_train_epochs": "epochs",
    "per_device_train_batch_size": "batch_size",
    "learning_rate": "learning_rate",
    "seed": "seed",
    "class_weights": "class_weights",
}


def check_training(names: Collection[str]) -> None:
    """Refuse settings that ``CleaRConfig`` does not have, or that are not for ``training`` to set.

    Args:
        names: Of the settings.

    Raises:
        InputError: If there are such.
    """
    outside = sorted(name for name in names if name in _NOT_TRAINING or name.startswith(_NOT_BEGINNING))
    if outside:
        raise InputError(f"training cannot set {', '.join(outside)}: leave it out.")
    for name in names:
        if name in _OPTIONS:
            raise InputError(f"training cannot set {name}: set {_OPTIONS[name]} beside it.")
    unknown = sorted(set(names) - known_settings())
    if unknown:
        raise InputError(f"CleaRConfig has no {', '.join(unknown)}: mend what training holds.")


@cache
def known_settings() -> frozenset[str]:
    """What ``CleaRConfig`` takes, read from its source and that of ``transformers.TrainingArguments``."""
    transformers = find_spec("transformers")
    assert transformers is not None
    assert transformers.origin is not None
    theirs = _fields(Path(transformers.origin).parent / "training_args.py", "TrainingArguments")
    return theirs | _fields(Path(clear_peft.__file__).parent / "trainer" / "config.py", "CleaRConfig")


def _fields(source: Path, name: str) -> frozenset[str]:
    """Fields of a dataclass."""
    module = ast.parse(source.read_text(encoding="utf-8"))
    found = next(node for node in module.body if isinstance(node, ast.ClassDef) and node.name == name)
    return frozenset(
        node.target.id
        for node in found.body
        if isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name) and node.target.id[0] != "_"
    )
