"""A finished run on the Hugging Face hub: its adapter and card, and nothing else of its folder."""

import json
import os
import warnings
from fnmatch import fnmatch
from pathlib import Path

from clear_peft.data.checks import listing
from clear_peft.errors import ClearWarning, InputError
from clear_peft.files import refuse_links_out
from clear_peft.report.card import hub_name
from clear_peft.run_folder import layout

# what the tokenizers of transformers write
TOKENIZER_FILES = (
    "tokenizer*.json",
    "special_tokens_map.json",
    "added_tokens.json",
    "vocab.json",
    "vocab.txt",
    "merges.txt",
    "*.model",
    "chat_template.jinja",
    "bpe.codes",
    "byte_maps.json",
    "dict.txt",
    "emoji.json",
    "entity_vocab.json",
    "normalizer.json",
    "prophetnet.tokenizer",
    "source.spm",
    "target.spm",
    "target_vocab.json",
    "vocab-src.json",
    "vocab-tgt.json",
    "word_pronunciation.json",
    "word_shape.json",
)
MODEL_FILES = ("config.json", "model*.safetensors", "model.safetensors.index.json")
# each may name a base model by its place on this machine
_CONFIGS = ("adapter_config.json", "bottleneck_config.json", "apt_config.json")
# what peft, transformers, their tokenizers and our own formats write: whatever else lies there stays here
_FILES = (
    layout.CARD,
    layout.LABELS,
    *_CONFIGS,
    "adapter_model.safetensors",
    "bottleneck_model.safetensors",
    "apt_model.safetensors",
    *MODEL_FILES,
    *TOKENIZER_FILES,
)


def push(folder: str | os.PathLike[str], repo_id: str, *, private: bool = False) -> tuple[str, list[str]]:
    """Upload ``adapter/`` of a run as a model of the hub, in one commit.

    A base model that is a local folder is not named: the path would travel, and mean nothing elsewhere.

    Args:
        folder: Run folder.
        repo_id: Name of the repository on the hub, with or without its owner; made if it is not there.
        private: Whether only its owner may see it. Default False.

    Returns:
        Address of the repository, and the names of the files that it got.

    Raises:
        InputError: If the run is not finished, there is no token, the repository is public although it should
            be private, or the hub refuses.
    """
    from huggingface_hub import CommitOperationAdd, HfApi, get_token
    from huggingface_hub.errors import HTTPError  # type: ignore[attr-defined]  # of httpx, or of httpx2

    layout.read_finished(folder)
    refuse_links_out(folder)
    adapter = Path(folder) / layout.ADAPTER
    held = sorted(path.name for path in adapter.iterdir())
    names = [name for name in held if any(fnmatch(name, known) for known in _FILES)]
    others = [name for name in held if name not in names]
    if others:
        warnings.warn(
            f"Not sent: {listing(others)}, which no adapter or tokenizer is known to write.",
            ClearWarning,
            stacklevel=2,
        )
    if get_token() is None:
        raise InputError("There is no token of the hub: run `hf auth login`, or set HF_TOKEN.")
    operations = [CommitOperationAdd(name, _content(adapter / name)) for name in names]
    api = HfApi()
    try:
        made = api.create_repo(repo_id, private=private or None, exist_ok=True)
        if private and not api.repo_info(made.repo_id).private:
            raise InputError(
                f"{made.repo_id} is there already, and public: make it private on the hub, or give another "
                "--repo-id."
            )
        api.create_commit(made.repo_id, operations, commit_message="Upload by clear-peft")
    except InputError:
        raise
    except (HTTPError, OSError, ValueError) as error:
        reason = str(error).strip().partition("\n")[0].rstrip(".:")
        raise InputError(
            f"Cannot push to {repo_id!r} ({reason}): check the name, your token and the network."
        ) from error
    return str(made), names


def _content(path: Path) -> Path | bytes:
    """What is uploaded of a file: all of it, but for the place of a base model on this machine."""
    if path.name not in _CONFIGS:
        return path
    config = json.loads(path.read_text(encoding="utf-8"))
    base = config.get("base_model_name_or_path")
    if base is None or hub_name(base) is not None:
        return path
    warnings.warn(
        f"The base model is a local folder, {base}, and {path.name} on the hub names none: write its "
        "name there, if the hub has it.",
        ClearWarning,
        stacklevel=3,
    )
    return json.dumps({**config, "base_model_name_or_path": None}, indent=2).encode()
