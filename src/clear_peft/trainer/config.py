"""The settings of a run, and the two presets."""

import json
import math
from dataclasses import dataclass, field, fields
from typing import Any

from transformers import TrainingArguments

from clear_peft.errors import InputError
from clear_peft.label_quality import BetaMixtureCleanliness, CleanlinessEstimator, GaussianMixtureCleanliness
from clear_peft.losses import OBJECTIVES
from clear_peft.tuners import PAPER_SETTINGS

ESTIMATORS: dict[str, CleanlinessEstimator] = {
    "gaussian": GaussianMixtureCleanliness(),
    "beta": BetaMixtureCleanliness(),
    # as the paper: raw losses, the plain posterior, always two components
    "paper": GaussianMixtureCleanliness(scale="loss", monotone=False),
}
# of the epochs, and epochs
_WARM_UP, _LONGEST_WARM_UP = 0.2, 2
JUDGES = ("probe", "model", "steps")


@dataclass
class CleaRConfig(TrainingArguments):
    """``transformers.TrainingArguments`` and the settings of clean routing.

    The defaults are the preset ``recommended``; ``CleaRConfig(output_dir=…, **preset("paper", "lora"))``
    is the paper's recipe.

    Args:
        clean_routing: Whether to score, estimate and route at all; False trains plainly on the given
            labels, with the same loop.
        gate_ceiling: γ, the probability that a surely clean example passes a block's PEFT modules.
        route: Whether gates follow how sure an example's target is (the probability of its likeliest class;
            p, where the target is its label) once p is used; otherwise they open with γ as in the warm-up,
            and what the estimate does to targets and draws is seen alone.
        warm_up_epochs: Of ``num_train_epochs``, those of plain cross entropy, with gates of probability γ,
            before the clean probabilities are used; below 1, a share of them (rounded up; none of a single
            epoch if the probe judges). The estimate is as good as the model that makes it, and a model that
            is trained for long repeats wrong labels. Default: a fifth of them, two at the most.
        fresh_start: Whether, if wrong labels show when the warm-up ends, training begins anew from the
            initial adapter and head, for the epochs that are left: what was learnt from wrong labels is
            forgotten. The step size follows its schedule. If none show, training goes on.
        probe_head: Whether the head of the model begins, and after a fresh start begins anew, as a linear
            probe of what it is given, whatever it was before (linear probing before fine-tuning: Kumar et
            al. 2022, arXiv 2202.10054). A model whose head ends in no linear layer begins as it is.
        average_decay: d of the running average of the weights that scores the labels and, after a fresh
            start, is evaluated and saved; 0: the last weights.
        judge: Whose predictions say what to doubt, and teach. ``probe``: a linear probe on the model's hidden
            features, of each row by a fit without it, and the noise model that this shows
            (``clear_peft.label_quality.probe``); a model without hidden states to give out judges itself.
            ``model``: the model's own, in a pass over all rows; its head has begun to repeat the labels that
            it was trained on. ``steps``: what fell out of the epoch's steps, moved to its end; it costs
            nothing, but what the adapter knows of an example is hidden in its steps where gates are closed,
            so that once routing has begun it says less.
        doubt_above: Share of the given labels that must look wrong before training doubts any: of the model
            those that it contradicts, since losses alone do not tell hard examples from wrong labels; of the
            probe, the noise rate that it estimates.
        reestimate: Whether to score and estimate again after every epoch beyond the warm-up, or to keep the
            first estimate, which saves the passes.
        loss_smoothing: β, the weight of the losses of the pass before in those that the estimator sees.
        soft_labels: Whether, after the warm-up, the target of an example is p·label + (1 − p)·teacher, and it
            is drawn the more often the surer its target is; otherwise the target is its label, ``objective``
            counts, and all are drawn alike. The teacher is what the judge predicts; where that is the probe,
            what its predictions and the noise model say if the label is wrong, so that the target is the
            posterior of the true class.
        class_balance: Of soft labels, how far the draws make up for classes that are rare or hard, from 0 (an
            example is drawn by the certainty of its target alone) to 1 (all classes are drawn alike; of a
            target its likeliest class): ``clear_peft.trainer.sampling.balanced``.
        consistency_weight: λ, the weight of the cross entropy to the predictions of the last scoring pass.
        consistency_temperature: T of both sides of that cross entropy.
        objective: The loss of an example under its given label, out of ``clear_peft.losses.OBJECTIVES``.
        objective_options: Its options by name, or as JSON.
        patience: Epochs without a better validation figure after which training stops; 0: it never does.
    """

    # Checked at every step by the trainer itself, which stops instead of hiding it.
    logging_nan_inf_filter: bool = field(default=False)
    clean_routing: bool = field(default=True, metadata={"help": "score, estimate and route"})
    gate_ceiling: float = field(default=1.0, metadata={"help": "γ, routing ceiling"})
    route: bool = field(default=True, metadata={"help": "gates follow how sure a target is"})
    warm_up_epochs: float | None = field(
        default=None, metadata={"help": "epochs, or share, before p is used [default: 0.2, 2 at the most]"}
    )
    fresh_start: bool = field(default=True, metadata={"help": "begin anew after the warm-up"})
    probe_head: bool = field(default=True, metadata={"help": "the head begins as a linear probe"})
    average_decay: float = field(default=0.99, metadata={"help": "d of the weights that score"})
    judge: str = field(default="probe", metadata={"help": f"one of {', '.join(JUDGES)}"})
    doubt_above: float = field(default=0.03, metadata={"help": "least share of labels that look wrong"})
    reestimate: bool = field(default=False, metadata={"help": "estimate after every epoch"})
    estimator: str = field(default="gaussian", metadata={"help": f"one of {', '.join(ESTIMATORS)}"})
    loss_smoothing: float = field(default=0.5, metadata={"help": "β, weight of the last pass's losses"})
    soft_labels: bool = field(default=True, metadata={"help": "targets p·label + (1 − p)·teacher"})
    class_balance: float = field(default=0.5, metadata={"help": "0: drawn by certainty, 1: classes alike"})
    consistency_weight: float = field(default=0.0, metadata={"help": "λ, weight of the teacher's term"})
    consistency_temperature: float = field(default=1.0, metadata={"help": "T of the teacher's term"})
    objective: str = field(default="cross_entropy", metadata={"help": f"one of {', '.join(OBJECTIVES)}"})
    objective_options: dict | str | None = field(default=None, metadata={"help": "options of the objective"})
    patience: int = field(default=0, metadata={"help": "epochs without gain before stopping, 0: never"})

    def __post_init__(self) -> None:
        """Check what is ours, and then let transformers check its own."""
        super().__post_init__()
        if isinstance(self.objective_options, str):  # as transformers' own options of options
            self.objective_options = _parsed(self.objective_options)
        for name, low, high in (
            ("gate_ceiling", 0, 1),
            ("loss_smoothing", 0, 0.999),
            ("average_decay", 0, 0.99999),
            ("doubt_above", 0, 1),
            ("class_balance", 0, 1),
            ("warm_up_epochs", 0, float("inf")),
            ("consistency_weight", 0, float("inf")),
            ("consistency_temperature", 1e-6, float("inf")),
            ("patience", 0, float("inf")),
        ):
            value = getattr(self, name)
            if value is not None and not (isinstance(value, int | float) and low <= value <= high):
                raise InputError(f"{name} is {value!r}: give a number between {low} and {high}.")
        for name, known in (("estimator", ESTIMATORS), ("judge", JUDGES)):
            if getattr(self, name) not in known:
                raise InputError(
                    f"There is no {name} {getattr(self, name)!r}: choose from {', '.join(known)}."
                )
        if self.patience and (self.metric_for_best_model is None or self.eval_strategy == "no"):
            raise InputError(
                f"patience is {self.patience}: give metric_for_best_model and an eval_strategy too, or 0."
            )

    def warm_up(self, epochs: float) -> int:
        """The number of warm-up epochs, of so many that there are; see ``warm_up_epochs``."""
        chosen = self.warm_up_epochs
        if chosen is not None and chosen >= 1:
            return math.ceil(chosen)
        few = math.ceil(min(_WARM_UP * epochs, _LONGEST_WARM_UP) if chosen is None else chosen * epochs)
        # a probe knows something of a model that is not trained: of one epoch none is spent on it
        return min(few, max(0, math.ceil(epochs) - (self.judge == "probe")))

    @property
    def own(self) -> dict[str, Any]:
        """The settings that transformers does not have, by name; what was not given has its default."""
        theirs = {setting.name for setting in fields(TrainingArguments)}
        return {s.name: getattr(self, s.name) for s in fields(self) if s.name not in theirs}

    @property
    def options(self) -> dict[str, Any]:
        """The options of the objective, none if there are none."""
        assert not isinstance(self.objective_options, str)  # parsed
        return self.objective_options or {}


def _parsed(options: str) -> dict[str, Any]:
    try:
        values = json.loads(options)
    except ValueError as error:
        raise InputError(f'objective_options is no JSON ({error}): write e.g. {{"q": 0.5}}.') from error
    if not isinstance(values, dict):
        raise InputError(f"objective_options is {options!r}: write a JSON object.")
    return values


def preset(name: str, peft_method: str = "lora") -> dict[str, Any]:
    """Settings of a preset, to be passed to ``CleaRConfig``.

    Args:
        name: ``recommended`` (the defaults) or ``paper`` (its recipe, with its ceiling, temperature and
            smoothing for the PEFT method; inference is deterministic).
        peft_method: A name out of ``clear_peft.tuners.available_methods()``. Default ``lora``.

    Raises:
        InputError: If there is no such preset or PEFT method.
    """
    if name == "recommended":
        return {}
    if name != "paper":
        raise InputError(f"There is no preset {name!r}: choose recommended or paper.")
    if peft_method not in PAPER_SETTINGS:
        raise InputError(f"There is no PEFT method {peft_method!r}: choose from {', '.join(PAPER_SETTINGS)}.")
    paper = PAPER_SETTINGS[peft_method]
    return {
        "gate_ceiling": paper.ceiling,
        "warm_up_epochs": 3,
        "fresh_start": False,
        "probe_head": False,
        "average_decay": 0.0,
        "judge": "model",
        "doubt_above": 0.0,
        "reestimate": True,
        "estimator": "paper",
        "loss_smoothing": paper.smoothing,
        "soft_labels": False,
        "class_balance": 0.0,
        "consistency_weight": 1.0,
        "consistency_temperature": paper.temperature,
    }
