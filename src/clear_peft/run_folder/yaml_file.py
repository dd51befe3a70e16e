"""Options in a YAML file, perhaps a stranger's."""

import os
import re
from pathlib import Path
from typing import Any

from clear_peft.errors import InputError

_MOST_BRACKETS = 500  # the time that YAML takes grows with the square of their depth
_SCIENTIFIC = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)[eE][+-]?\d+", re.ASCII)


def read_mapping(path: str | os.PathLike[str]) -> dict[Any, Any]:
    """Read options by their names, without running anything that the file says.

    Raises:
        InputError: If there is no such file, or it holds anything else.
    """
    import yaml

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
    return values


def with_numbers(value: Any) -> Any:
    """YAML 1.1 takes 1e-3 and 1.0e3 for text: make it a number, at any depth."""
    if isinstance(value, dict):
        return {key: with_numbers(item) for key, item in value.items()}
    if isinstance(value, list):
        return [with_numbers(item) for item in value]
    return float(value) if isinstance(value, str) and _SCIENTIFIC.fullmatch(value) else value
