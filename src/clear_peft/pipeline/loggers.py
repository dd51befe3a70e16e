"""Where else a run's figures go while it trains: TensorBoard, wandb and the like, through transformers."""

import os
from collections.abc import Sequence
from pathlib import Path

from transformers.integrations import integration_utils
from transformers.integrations.integration_utils import INTEGRATION_TO_CALLBACK, TensorBoardCallback

from clear_peft.errors import InputError
from clear_peft.trainer import CleaRTrainer

# what transformers calls a package where its own name for the logger is another
_PACKAGES = {"azure_ml": "azureml", "comet_ml": "comet", "flyte": "flytekit"}


def check_loggers(names: Sequence[str]) -> None:
    """Refuse loggers that training could not report to.

    Args:
        names: As in ``TrainingArguments.report_to``.

    Raises:
        InputError: If transformers has none of that name, or its package is not installed.
    """
    for name in names:
        if name not in INTEGRATION_TO_CALLBACK:
            raise InputError(
                f"report_to names {name!r}, which transformers does not know: choose from "
                f"{', '.join(sorted(INTEGRATION_TO_CALLBACK))}."
            )
        if not getattr(integration_utils, f"is_{_PACKAGES.get(name, name)}_available")():
            raise InputError(
                f"report_to names {name!r}, whose package is not installed or not set up: install it, or "
                "leave it out."
            )


def keep_logs(trainer: CleaRTrainer, folder: Path) -> None:
    """Let TensorBoard's files go into a folder, unless its own environment variable names another."""
    for callback in trainer.callback_handler.callbacks:
        if isinstance(callback, TensorBoardCallback) and callback.logging_dir is None:
            callback.logging_dir = os.fspath(folder)
