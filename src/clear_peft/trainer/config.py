"""The settings of a training, and the two presets."""

import json
import math
from dataclasses import dataclass, field, fields
from typing import Any, NamedTuple

from transformers import TrainingArguments

from clear_peft.errors import InputError
from clear_peft.hardware import bf16_pays, choose_device
from clear_peft.label_quality import GaussianLossMixture, LossMixture, PaperMixture
from clear_peft.losses import LOSSES
from clear_peft.tuners import available_methods

MIXTURES: dict[str, LossMixture] = {"gaussian": GaussianLossMixture(), "paper": PaperMixture()}
ESTIMATORS = ("probe", "losses")
GATES_IN_SCORING = ("open", "random")
WEIGHTED_ACCURACY, WEIGHTED_MACRO_F1 = "weighted_accuracy", "weighted_macro_f1"
# of one label a row alone, and of several alone
OF_SINGLE_LABEL = ("accuracy", WEIGHTED_ACCURACY)
OF_MULTI_LABEL = (
    "micro_f1",
    "mean_average_precision",
    "weighted_micro_f1",
    "weighted_mean_average_precision",
)
# of labels of words
OF_WORDS = ("accuracy", WEIGHTED_ACCURACY, "span_f1")
CLASS_WEIGHTS = ("none", "balanced")
# of what we measure, whether more of it is better: with one label a row, and at all
LARGER_IS_BETTER = {
    "loss": False,
    "accuracy": True,
    "macro_f1": True,
    WEIGHTED_ACCURACY: True,
    WEIGHTED_MACRO_F1: True,
}
MEASURED = LARGER_IS_BETTER | dict.fromkeys((*OF_MULTI_LABEL, *OF_WORDS), True)
# of the epochs, and epochs
_WARM_UP, _LONGEST_WARM_UP = 0.2, 2


def _setting(default: Any, text: str) -> Any:
    """A field with its help, as transformers' parser shows it."""
    return field(default=default, metadata={"help": text})


# lowest and highest value
_RANGES = {
    "max_gate_prob": (0, 1),
    "warm_up_epochs": (0, math.inf),
    "ema_epochs": (0, math.inf),
    "noise_threshold": (0, 1),
    "loss_ema": (0, 0.999),
    "class_balance": (0, 1),
    "consistency_weight": (0, math.inf),
    "consistency_temperature": (1e-6, math.inf),
    "patience": (0, math.inf),
    "validation_fraction": (1e-6, 0.99),
    # transformers takes any number for these
    "per_device_train_batch_size": (1, math.inf),
    "per_device_eval_batch_size": (1, math.inf),
    "gradient_accumulation_steps": (1, math.inf),
    "eval_accumulation_steps": (1, math.inf),
    "dataloader_num_workers": (0, math.inf),
    "data_seed": (0, 2**32 - 1),
}
_SAMPLING = next(
    s.metadata["choices"] for s in fields(TrainingArguments) if s.name == "train_sampling_strategy"
)


@dataclass
class CleaRConfig(TrainingArguments):
    """``transformers.TrainingArguments`` and the settings of robust training.

    The defaults are those of the preset ``recommended``, as far as transformers does not have them:
    ``CleaRConfig(output_dir=…, **preset("recommended"))`` is the whole recipe that the benchmarks run, and
    ``**preset("paper", "lora")`` that of the paper.

    Args:
        clean_routing: Whether labels are estimated and examples routed at all; False trains plainly on the
            given labels, with the same loop.
        max_gate_prob: γ in [0, 1], the probability that a surely clean example passes the PEFT modules of a
            block.
        use_routing: Whether gates follow the confidence of an example's target (the probability of its
            likeliest class) once noise is found; otherwise they stay open with γ, as in the warm-up.
        warm_up_epochs: Epochs of plain cross entropy, with gates of probability γ, before the labels are
            estimated; below 1, a share of the epochs, rounded up. A model that is trained for long repeats
            wrong labels. Default: a fifth of the epochs, two at most, and none of a single epoch if a probe
            estimates.
        restart: Whether, if noise is found, training begins again from the initial adapter and head, for the
            epochs that are left: what was learnt from wrong labels is forgotten. The learning rate keeps to
            its schedule.
        probe_init: Whether the head of the model begins, and at a restart begins again, as a linear probe of
            its inputs (linear probing before fine-tuning: Kumar et al. 2022, arXiv 2202.10054). It replaces a
            head that is trained already, with a warning. A model whose head ends in no linear layer keeps
            its own.
        ema_epochs: Epochs that the exponential moving average of the weights looks back, its decay being
            1 − 1/(the steps of so many epochs). The average scores the labels and, after a restart, is
            evaluated and saved. 0: the last weights.
        label_estimator: ``probe``: linear probes on the model's hidden states, each row predicted by a fit
            without it, and a noise model (``clear_peft.label_quality``); for a model that gives out no hidden
            states, as ``losses``. ``losses``: a mixture model of the losses of the model that is trained.
        noise_threshold: Share of the given labels that must look wrong before training doubts any. By
            ``probe``: the estimated noise rate. By ``losses``: the share that the model contradicts, since
            losses alone do not tell hard examples from wrong labels.
        reestimate_every_epoch: Whether labels are estimated again after every epoch beyond the warm-up.
        loss_mixture: Mixture model of ``losses``: ``gaussian`` (two Gaussians on the log-odds, monotone) or
            ``paper``.
        loss_ema: β in [0, 1), the weight of the losses before in those that the mixture sees.
        soft_labels: Whether, once noise is found, the target of an example is p·label + (1 − p)·prediction,
            the posterior of its true class, and examples whose target is more certain are sampled more often;
            otherwise targets are the labels, ``loss`` counts, and all are sampled alike.
        class_balance: Of soft labels, how far sampling makes up for classes that are rare or hard, from 0
            (by the confidence of the targets alone) to 1 (all classes alike).
        class_weights: ``balanced``: where targets are labels, the loss of a row is divided by how frequent
            its class is in the training set, so that all classes that occur there count alike in an epoch;
            ``none``: all rows count alike.
        consistency_weight: λ, the weight of the cross entropy to the predictions of the last estimate.
        consistency_temperature: T of both sides of that cross entropy.
        dropout_after_warm_up: Whether there is dropout after the warm-up. The authors' code has none.
        scoring_gates: ``open``, or ``random`` with probability γ, as in the authors' code, where the losses
            of the rows are computed.
        loss: The loss of an example under its given label, out of ``clear_peft.losses.LOSSES``.
        loss_options: Its options by name, or as JSON.
        patience: Evaluations without a better figure after which training stops; 0: it never does.
        validation_fraction: Share of the training rows that is held out for validation, where
            ``eval_strategy`` asks for one and no ``eval_dataset`` is given.
    """

    # Checked at every step by the trainer itself, which stops instead of hiding it.
    logging_nan_inf_filter: bool = field(default=False)
    clean_routing: bool = _setting(True, "estimate labels, and route examples by it")
    max_gate_prob: float = _setting(1.0, "γ, highest probability of an open gate")
    use_routing: bool = _setting(True, "gates follow the confidence of the target")
    warm_up_epochs: float | None = _setting(
        None, "epochs, or share of them, before labels are estimated [default: 0.2, 2 at most]"
    )
    restart: bool = _setting(True, "begin again after the warm-up if noise is found")
    probe_init: bool = _setting(True, "the head begins as a linear probe")
    ema_epochs: float = _setting(1.4, "epochs that the moving average of the weights looks back")
    label_estimator: str = _setting("probe", f"one of {', '.join(ESTIMATORS)}")
    noise_threshold: float = _setting(0.03, "least share of labels that look wrong")
    reestimate_every_epoch: bool = _setting(False, "estimate again after every epoch")
    loss_mixture: str = _setting("gaussian", f"one of {', '.join(MIXTURES)}")
    loss_ema: float = _setting(0.5, "β, weight of the losses before")
    soft_labels: bool = _setting(True, "targets p·label + (1 − p)·prediction")
    class_balance: float = _setting(0.5, "0: sampled by confidence, 1: classes alike")
    class_weights: str = _setting("none", f"one of {', '.join(CLASS_WEIGHTS)}, where targets are labels")
    consistency_weight: float = _setting(0.0, "λ, weight of the consistency term")
    consistency_temperature: float = _setting(1.0, "T of the consistency term")
    dropout_after_warm_up: bool = _setting(True, "dropout also after the warm-up")
    scoring_gates: str = _setting("open", f"one of {', '.join(GATES_IN_SCORING)}")
    loss: str = _setting("cross_entropy", f"one of {', '.join(LOSSES)}")
    loss_options: dict | str | None = field(default=None, metadata={"help": "options of the loss"})
    patience: int = _setting(0, "evaluations without gain before stopping, 0: never")
    validation_fraction: float = _setting(0.1, "share of rows held out without eval_dataset")

    def __post_init__(self) -> None:
        """Check what is ours, and then let transformers check its own."""
        super().__post_init__()
        if isinstance(self.loss_options, str):  # as transformers' own options of options
            self.loss_options = _parsed(self.loss_options)
        for name, (low, high) in _RANGES.items():
            value = getattr(self, name)
            number = isinstance(value, int | float) and not isinstance(value, bool)
            if value is not None and not (number and low <= value <= high):
                wanted = f"of at least {low}" if high == math.inf else f"between {low} and {high}"
                raise InputError(f"{name} is {value!r}: give a number {wanted}.")
        if self.lr_scheduler_kwargs is not None and not isinstance(self.lr_scheduler_kwargs, dict):
            raise InputError(f"lr_scheduler_kwargs is {self.lr_scheduler_kwargs!r}: give options by name.")
        if self.optim_args and not all("=" in part for part in self.optim_args.split(",")):
            raise InputError(f"optim_args is {self.optim_args!r}: write name=value, with commas between.")
        for name, known in (
            ("train_sampling_strategy", _SAMPLING),
            ("label_estimator", ESTIMATORS),
            ("loss_mixture", MIXTURES),
            ("scoring_gates", GATES_IN_SCORING),
            ("class_weights", CLASS_WEIGHTS),
        ):
            if getattr(self, name) not in known:
                raise InputError(
                    f"There is no {name} {getattr(self, name)!r}: choose from {', '.join(known)}."
                )
        if self.patience and (self.metric_for_best_model is None or self.eval_strategy == "no"):
            raise InputError(
                f"patience is {self.patience}: give metric_for_best_model and an eval_strategy too, or 0."
            )
        metric = self.metric_name.removeprefix("eval_")
        if metric in MEASURED and self.greater_is_better is not MEASURED[metric]:
            raise InputError(
                f"metric_for_best_model is {metric!r} and greater_is_better {self.greater_is_better}, which "
                "would keep the worst epoch: leave greater_is_better out."
            )

    def warm_up(self, epochs: float) -> int:
        """The number of warm-up epochs, of so many that there are; see ``warm_up_epochs``."""
        chosen = self.warm_up_epochs
        if chosen is not None and chosen >= 1:
            return math.ceil(chosen)
        few = math.ceil(min(_WARM_UP * epochs, _LONGEST_WARM_UP) if chosen is None else chosen * epochs)
        # a probe knows something of a model that is not trained: of one epoch none is spent on it
        return min(few, max(0, math.ceil(epochs) - (self.label_estimator == "probe")))

    @property
    def metric_name(self) -> str:
        """Name in the log of the figure that epochs are compared by."""
        return f"eval_{(self.metric_for_best_model or '').removeprefix('eval_')}"

    @property
    def own(self) -> dict[str, Any]:
        """The settings that transformers does not have, by name; what was not given has its default."""
        theirs = {setting.name for setting in fields(TrainingArguments)}
        return {s.name: getattr(self, s.name) for s in fields(self) if s.name not in theirs}

    @property
    def options(self) -> dict[str, Any]:
        """The options of the loss, none if there are none."""
        assert not isinstance(self.loss_options, str)  # parsed
        return self.loss_options or {}


def _parsed(options: str) -> dict[str, Any]:
    try:
        values = json.loads(options)
    except ValueError as error:
        raise InputError(f'loss_options is no JSON ({error}): write e.g. {{"q": 0.5}}.') from error
    if not isinstance(values, dict):
        raise InputError(f"loss_options is {options!r}: write a JSON object.")
    return values


class _PaperSettings(NamedTuple):
    """What the paper's authors set per PEFT method."""

    max_gate_prob: float = 0.85
    consistency_temperature: float = 1.0
    loss_ema: float = 0.0


_PAPER = {"adapter": _PaperSettings(0.7, 0.5, 0.9), "bitfit": _PaperSettings(0.9)}


def training_recipe(device: str = "auto") -> dict[str, Any]:
    """How the benchmarks train, by every method: the optimizer's schedule, selection and evaluation.

    Args:
        device: As for ``preset``.
    """
    device = choose_device(device)
    return {
        "num_train_epochs": 10,
        "per_device_train_batch_size": 32,
        "per_device_eval_batch_size": 64,
        "learning_rate": 1e-3,
        "warmup_steps": 0.06,
        "bf16": bf16_pays(device),
        "use_cpu": device == "cpu",  # transformers refuses bf16 on a CPU that nobody asked for
        "dataloader_pin_memory": device == "cuda",
        "train_sampling_strategy": "group_by_length",
        "eval_strategy": "epoch",
        "save_strategy": "epoch",
        "logging_strategy": "epoch",
        "save_total_limit": 1,
        "load_best_model_at_end": True,
        # few rows, many labels wrong: counting each by its clean probability compares epochs better
        "metric_for_best_model": WEIGHTED_ACCURACY,
    }


def preset(name: str, peft_method: str = "lora", device: str = "auto") -> dict[str, Any]:
    """A whole recipe, to be passed to ``CleaRConfig``: what the benchmarks and the command line run.

    Args:
        name: ``recommended``, or ``paper``: its algorithm, with its γ, T and β for the PEFT method, on the
            same schedule (docs/authors-code.md says what differs from the authors' code).
        peft_method: A name out of ``clear_peft.tuners.available_methods()``. Default ``lora``.
        device: Where to train, as for ``clear_peft.hardware.choose_device``. Default ``auto``.

    Raises:
        InputError: If there is no such preset, PEFT method or device.
    """
    if name == "recommended":
        return training_recipe(device)
    if name != "paper":
        raise InputError(f"There is no preset {name!r}: choose recommended or paper.")
    if peft_method not in available_methods():
        raise InputError(
            f"There is no PEFT method {peft_method!r}: choose from {', '.join(available_methods())}."
        )
    return {
        **training_recipe(device),
        "metric_for_best_model": "accuracy",
        "max_grad_norm": 0.0,
        "warm_up_epochs": 3,
        "restart": False,
        "probe_init": False,
        "ema_epochs": 0.0,
        "label_estimator": "losses",
        "noise_threshold": 0.0,
        "reestimate_every_epoch": True,
        "loss_mixture": "paper",
        "soft_labels": False,
        "class_balance": 0.0,
        "consistency_weight": 1.0,
        **_PAPER.get(peft_method, _PaperSettings())._asdict(),
    }
