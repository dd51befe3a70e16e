"""What a trainer is given: refused, completed, and read."""

from collections.abc import Callable
from typing import Any

from datasets import Dataset as HubDataset

from clear_peft.errors import InputError
from clear_peft.routing import Router
from clear_peft.trainer import columns
from clear_peft.trainer.config import LARGER_IS_BETTER, CleaRConfig
from clear_peft.trainer.estimate import blocks
from clear_peft.trainer.head import LinearProbeInit
from clear_peft.trainer.row_passes import RowPasses
from clear_peft.trainer.store import Rows
from clear_peft.trainer.tasks import SingleLabel


def checked(model: Any, args: CleaRConfig | None, kwargs: dict[str, Any]) -> CleaRConfig:
    """The settings, if model and settings are such as a ``CleaRTrainer`` can train by.

    Raises:
        InputError: If not.
    """
    if model is None:
        raise InputError("The gates need a model that is there: give model, and no model_init.")
    if not isinstance(args, CleaRConfig):
        kind = type(args).__name__
        raise InputError(
            f"args is a {kind}: give a CleaRConfig, which takes all that TrainingArguments takes."
        )
    if args.n_gpu > 1:
        raise InputError(
            f"{args.n_gpu} GPUs are visible to one process: start it with torchrun or accelerate launch, or "
            "set CUDA_VISIBLE_DEVICES to one of them."
        )
    if args.label_smoothing_factor or kwargs.get("compute_loss_func"):
        raise InputError(
            "The loss is the trainer's own: leave out label_smoothing_factor and compute_loss_func, or "
            "override per_example_loss."
        )
    return args


def datasets(training: Any, evaluation: Any, task: SingleLabel, args: CleaRConfig) -> tuple[Any, Any]:
    """The training set, with ids, and the evaluation set, held out of it where there is none and is to be."""
    if training is None:
        return None, evaluation
    if evaluation is None and args.eval_strategy != "no" and isinstance(training, HubDataset):
        fraction, seed = args.validation_fraction, args.seed
        training, evaluation = columns.hold_out_rows(training, task.num_labels, fraction, seed)
    return columns.with_ids(training), evaluation


def router(model: Any, args: CleaRConfig) -> Router | None:
    """The gates of the model, if there are to be any."""
    return Router(model, max_gate_prob=args.max_gate_prob, seed=args.seed) if args.clean_routing else None


def metrics(given: Callable | None, task: SingleLabel, args: CleaRConfig) -> Callable | None:
    """``compute_metrics``: the task's own where none is given and epochs are compared by one of them."""
    own = args.metric_name.removeprefix("eval_") in LARGER_IS_BETTER.keys() - {"loss"}
    return task.metrics if given is None and own else given


def head(passes: RowPasses, training: Rows, args: CleaRConfig) -> LinearProbeInit | None:
    """What initialises the head of the model, if it is to begin as a linear probe."""
    if not (args.clean_routing and args.probe_init):
        return None
    some, *_ = blocks(training.labels, args.seed)
    return LinearProbeInit(passes.head_inputs, training.labels, some, training.groups)
