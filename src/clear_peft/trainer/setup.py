"""What a trainer is given: refused, completed, and read."""

from collections.abc import Callable, Sequence
from typing import Any

import accelerate
from datasets import Dataset as HubDataset
from packaging.version import Version
from transformers import TrainingArguments

from clear_peft.errors import InputError
from clear_peft.label_quality import LossMixture
from clear_peft.routing import Router
from clear_peft.trainer import columns
from clear_peft.trainer.config import MEASURED, CleaRConfig
from clear_peft.trainer.head import LinearProbeInit
from clear_peft.trainer.multilabel import MultiLabel
from clear_peft.trainer.row_passes import RowPasses
from clear_peft.trainer.store import Rows, hold_out_rows
from clear_peft.trainer.tasks import SingleLabel
from clear_peft.trainer.words import WordLabels
from clear_peft.tuners import BottleneckModel
from clear_peft.tuners.anatomy import labels_tokens
from clear_peft.tuners.apt import AptModel
from clear_peft.tuners.plans import plan_of

Task = SingleLabel | MultiLabel | WordLabels
# of accelerate: until 1.14, processes but the first do not find the head's weights in a checkpoint of FSDP
_SHARDED_ADAPTERS = Version("1.15")


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
    check_processes(args)
    if args.label_smoothing_factor or kwargs.get("compute_loss_func"):
        raise InputError(
            "The loss is the trainer's own: leave out label_smoothing_factor and compute_loss_func, or "
            "override per_example_loss."
        )
    return args


def check_processes(args: TrainingArguments) -> None:
    """Refuse what rows have no gates of their own in.

    Raises:
        InputError: If several GPUs belong to one process.
    """
    if args.n_gpu > 1:
        raise InputError(
            f"{args.n_gpu} GPUs are visible to one process: start it with torchrun or accelerate launch, or "
            "set CUDA_VISIBLE_DEVICES to one of them."
        )


def check_sharding(trainer: Any) -> None:
    """Refuse shards that have not been tried: what is allowed is FSDP2 and ZeRO, for methods of peft.

    Args:
        trainer: One of transformers, whose accelerator knows.

    Raises:
        InputError: If it is FSDP1, has settings that fail, or the PEFT method is one of this package.
    """
    state = trainer.accelerator.state
    plugin, zero = (getattr(state, f"{name}_plugin", None) for name in ("fsdp", "deepspeed"))
    if plugin is None and zero is None:
        return
    if plugin is not None:
        _check_fsdp(plugin)
    model, name = trainer.model, "DeepSpeed" if plugin is None else "FSDP"
    if plan_of(model) is not None or isinstance(model, BottleneckModel | AptModel):
        raise InputError(
            f"{name} is for methods of peft, such as lora or dora: choose one, or leave {name} out."
        )


def _check_fsdp(plugin: Any) -> None:
    if plugin.fsdp_version != 2:
        raise InputError(
            "Clean routing needs FSDP2: set fsdp_version: 2 (accelerate launch: --fsdp_version 2)."
        )
    if Version(accelerate.__version__) < _SHARDED_ADAPTERS:
        raise InputError(
            f"accelerate {accelerate.__version__} cannot load sharded adapters again: install accelerate "
            f"{_SHARDED_ADAPTERS} or later."
        )
    if plugin.activation_checkpointing:
        raise InputError(
            "FSDP's activation checkpointing renames the weights, which a restart then does not find: set "
            "gradient_checkpointing=True instead."
        )
    if plugin.cpu_ram_efficient_loading:
        raise InputError(
            "accelerate loses track of the head's weights where the first process alone loads the model: "
            "give --fsdp_cpu_ram_efficient_loading false."
        )


def task_of(model: Any, args: CleaRConfig, mixture: LossMixture | None, known: Sequence[type[Task]]) -> Task:
    """What is to be predicted of a row, as the model says.

    Args:
        model: The classifier.
        args: Settings, which are checked.
        mixture: Of losses, if one is given.
        known: What the trainer can train.

    Raises:
        InputError: If settings do not fit, or the trainer cannot train it.
    """
    problem = getattr(getattr(model, "config", None), "problem_type", None)
    kind: type[Task] = MultiLabel if problem == MultiLabel.problem_type else SingleLabel
    instead = f"without problem_type={MultiLabel.problem_type!r}"
    if labels_tokens(model):
        kind, instead = WordLabels, "by AutoModelForSequenceClassification"
    if kind not in known or (kind is MultiLabel and mixture is not None):
        what = "This training method" if kind not in known else "A mixture of losses"
        raise InputError(f"{what} is for one label a row: leave it out, or load the model {instead}.")
    task = kind(model)
    task.check(model, args)
    return task


def datasets(training: Any, evaluation: Any, task: Task, args: CleaRConfig) -> tuple[Any, Any]:
    """The training set, with ids, and the evaluation set, held out of it where there is none and is to be."""
    if training is None:
        return None, evaluation
    if evaluation is None and args.eval_strategy != "no" and isinstance(training, HubDataset):
        fraction, seed = args.validation_fraction, args.seed
        rows = task.rows(training, args.length_column_name, "training")
        training, evaluation = hold_out_rows(training, rows, fraction, seed)
    return columns.with_ids(training), evaluation


def router(model: Any, args: CleaRConfig) -> Router | None:
    """The gates of the model, if there are to be any."""
    return Router(model, max_gate_prob=args.max_gate_prob, seed=args.seed) if args.clean_routing else None


def metrics(given: Callable | None, task: Task, args: CleaRConfig) -> Callable | None:
    """``compute_metrics``: the task's own where none is given and epochs are compared by one of them."""
    own = args.metric_name.removeprefix("eval_") in MEASURED.keys() - {"loss"}
    return task.metrics if given is None and own else given


def head(passes: RowPasses, training: Rows, task: Task, args: CleaRConfig) -> LinearProbeInit | None:
    """What initialises the head of the model, if it is to begin as a linear probe."""
    if not (args.clean_routing and args.probe_init):
        return None
    some, *_ = training.blocks(args.seed)
    return LinearProbeInit(passes.head_inputs, training.labels, some, training.groups, task.fit_head)
