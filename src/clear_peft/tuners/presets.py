"""From the name of a PEFT method to a PEFT model, with targets and sizes that suit classification."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import fields
from typing import Any

from peft import PeftConfig, PeftModel, PeftType, get_peft_model
from transformers.modeling_utils import PreTrainedModel

from clear_peft.errors import InputError
from clear_peft.tuners.anatomy import (
    block_modules,
    head_names,
    labels_tokens,
    pooler_names,
    projection_names,
)
from clear_peft.tuners.apt import AptConfig, AptModel
from clear_peft.tuners.bitfit import build_bitfit
from clear_peft.tuners.bottleneck import BottleneckConfig, BottleneckModel
from clear_peft.tuners.catalogue import available_methods, newer_peft
from clear_peft.tuners.internals import (
    IA3_TARGETS,
    LORA_TARGETS,
    PEFT_TYPE_TO_CONFIG_MAPPING,
    PEFT_TYPE_TO_TUNER_MAPPING,
    BaseTunerLayer,
    Conv1D,
    ModulesToSaveWrapper,
)
from clear_peft.tuners.names import check_names, check_options
from clear_peft.tuners.plans import GloraPlan, with_plan
from clear_peft.tuners.precision import check_quantization, check_trained_in_float32, prepare_base
from clear_peft.tuners.prefix import check_takes_prefix, hand_over_prefix
from clear_peft.tuners.quiet import explained, quiet
from clear_peft.tuners.relatives import translated

_PEFT_NAMES = {"dora": "lora", "prefix": "prefix_tuning"}
# Query and value projections (one fused matrix in ModernBERT) where peft has none, or, for ViT, not the names
# of all versions of transformers.
_QUERY_VALUE: dict[str, list[str]] = {
    "distilbert": ["q_lin", "v_lin"],
    "mpnet": ["attn.q", "attn.v"],
    "modernbert": ["Wqkv"],
    "vit": ["q_proj", "v_proj", "query", "value"],
}
# handed over by PrefixModel, a model for whole texts
_OF_WHOLE_TEXTS = ("prefix", "apt")
_NOT_OPTIONS = {
    "auto_mapping",
    "base_model_name_or_path",
    "inference_mode",
    "peft_type",
    "peft_version",
    "revision",
    "task_type",
}


def build(
    model: PreTrainedModel,
    method: str,
    *,
    target_modules: Sequence[str] | str | None = None,
    options: Mapping[str, Any] | None = None,
) -> PeftModel | BottleneckModel:
    """Add a PEFT method to a classification model; the classification head is trained and saved with it.

    Adapter and head are in float32, whatever the precision of the model.

    Args:
        model: A transformers model for sequence, token or image classification, changed in place.
        method: One of `available_methods()`. `lora` (r=4, alpha=2r, query and value), `adapter`
            (bottleneck of width 16), `prefix` (20 vectors) and `bitfit` follow the CleaR paper, with the
            pooler trained for the last two; `dora` is LoRA with `use_dora`; `apt` is a prefix with gates, as
            long and with the pooler too (see `AptConfig`); the others are peft's types with peft's defaults.
        target_modules: Ends of the names of the layers to adapt (or, for peft's methods, "all-linear"); by
            default the method's usual ones for the architecture, or else the query and value projections, or
            else all linear layers.
        options: Further fields of the method's configuration, e.g. `{"r": 8}`. `adalora` needs
            `total_step`. `modules_to_save` adds to the head.

    Returns:
        The model, ready to be trained.

    Raises:
        InputError: The method or an option is unknown, the model has no classification head or an adapter
            already, a target is not in it, or the method does not fit the architecture, the precision or the
            quantization of the model, which may have been changed in part: load it afresh.
    """
    if method not in available_methods():
        newer = newer_peft(method)
        why = f"There is no PEFT method {method!r}" if newer is None else f"{method} needs peft {newer}"
        raise InputError(f"{why}: choose from {', '.join(available_methods())}.")
    head = head_names(model)
    if any(isinstance(module, (BaseTunerLayer, ModulesToSaveWrapper)) for module in model.modules()):
        raise InputError(f"This {type(model).__name__} has an adapter already: load the base model afresh.")
    if labels_tokens(model) and method in _OF_WHOLE_TEXTS:
        raise InputError(
            f"{method} is for labels of whole texts: use lora, adapter or bitfit for those of words."
        )
    given = dict(options or {})
    if target_modules is not None:
        given["target_modules"] = target_modules if isinstance(target_modules, str) else list(target_modules)

    check_names(given, method)
    for option in ("target_modules", "modules_to_save"):
        if isinstance(given.get(option), (list, tuple)):
            _check_names(model, option, given[option])

    check_quantization(model, method)
    built_as, given, plan = translated(method, given)
    prepare_base(model)
    built = _built(model, built_as, head, given)
    if isinstance(plan, GloraPlan):
        from clear_peft.tuners.glora import make_supernet  # peft has GLoRA since 0.20

        make_supernet(built)
    check_trained_in_float32(built, method)
    return built if plan is None else with_plan(built, plan)


def _built(
    model: PreTrainedModel, method: str, head: list[str], given: dict[str, Any]
) -> PeftModel | BottleneckModel:
    if method == "adapter":
        return _build_adapter(model, head, given)
    if method == "apt":
        check_options("apt", given, {"num_virtual_tokens", "pool", "modules_to_save"})
        given["modules_to_save"] = (*head, *pooler_names(model), *_also_saved(given))
        return AptModel.added_to(model, AptConfig(**given))
    task_type = "SEQ_CLS" if model.main_input_name == "input_ids" else None
    if labels_tokens(model):
        task_type = "TOKEN_CLS"
    if method == "bitfit":
        check_options(method, given, set())
        with quiet():
            built = build_bitfit(model, [*head, *pooler_names(model)], task_type)
    else:
        built = _build_peft(model, method, head, given, task_type)
    for name, parameter in built.named_parameters():
        if ".ranknum." in name:  # AdaLoRA's divisor: where peft 0.21 casts it, it makes it trainable
            parameter.requires_grad_(False)
    for config in built.peft_config.values():
        if isinstance(getattr(config, "target_modules", None), str):  # peft's own choice may be a pattern
            config.target_modules = sorted(built.base_model.targeted_module_names)
        for name, value in vars(config).items():
            if isinstance(value, set):  # would be saved in another order by every process
                setattr(config, name, sorted(value))
    return built


def _build_adapter(model: PreTrainedModel, head: list[str], given: dict[str, Any]) -> BottleneckModel:
    check_options("adapter", given, {"width", "target_modules", "modules_to_save"})
    if isinstance(given.get("target_modules"), str):
        raise InputError("adapter takes target_modules as a list of names, not as one string.")
    given["modules_to_save"] = (*head, *_also_saved(given))
    if given.get("target_modules") is not None:
        given["target_modules"] = tuple(given["target_modules"])
    return BottleneckModel(model, BottleneckConfig(**given))


def _build_peft(
    model: PreTrainedModel, method: str, head: list[str], given: dict[str, Any], task_type: str | None
) -> PeftModel:
    peft_type = PeftType(_PEFT_NAMES.get(method, method).upper())
    config_class = PEFT_TYPE_TO_CONFIG_MAPPING[peft_type]
    known = {field.name for field in fields(config_class)}
    check_options(method, given, known - _NOT_OPTIONS)
    with explained(model, method):
        defaults: dict[str, Any] = {"task_type": task_type, **_sizes(method, given)}
    if method == "prefix":
        check_takes_prefix(model, method)
        if given.get("prefix_projection"):
            raise InputError(
                "prefix_projection cannot be carried on from a checkpoint, since peft saves only what it "
                "projects to: leave it out."
            )
        head = [*head, *pooler_names(model)]
    if "target_modules" in known:
        defaults["target_modules"] = _targets(model, peft_type)
    if peft_type is PeftType.IA3 and model.config.model_type not in _tuner_targets(peft_type):
        defaults["feedforward_modules"] = []
    if "fan_in_fan_out" in known and any(isinstance(module, Conv1D) for module in model.modules()):
        defaults["fan_in_fan_out"] = True
    saved = [*head, *_also_saved(given)]
    with quiet(), explained(model, method):
        config: PeftConfig = config_class(**{**defaults, **given, "modules_to_save": saved})
        return hand_over_prefix(get_peft_model(model, config))


def _also_saved(given: Mapping[str, Any]) -> Iterable[str]:
    names = given.get("modules_to_save") or ()
    if not isinstance(names, list | tuple | set):
        raise InputError(f"modules_to_save is {names!r:.60}: give a list of names.")
    return names


def _sizes(method: str, given: Mapping[str, Any]) -> dict[str, Any]:
    """The paper's sizes, and what a configuration cannot do without."""
    if method in {"lora", "dora"}:
        rank = given.get("r", 4)
        return {"r": rank, "lora_alpha": 2 * rank, "use_dora": method == "dora"}
    if method == "prefix":
        return {"num_virtual_tokens": 20}
    if method == "adalora" and "orth_reg_weight" in given:
        raise InputError("adalora is trained without its orthogonality penalty: leave orth_reg_weight out.")
    if method == "adalora" and "total_step" not in given:
        raise InputError('adalora needs the number of training steps: give options={"total_step": ...}.')
    return {}


def _targets(model: PreTrainedModel, peft_type: PeftType) -> list[str] | str | None:
    """Choose default targets; None leaves the choice to peft."""
    model_type = model.config.model_type
    if peft_type is PeftType.LN_TUNING:
        # peft's own defaults name norms of other architectures alike, and a final norm outside the blocks.
        return [name for name, module in block_modules(model).items() if "Norm" in type(module).__name__]
    if model_type in _QUERY_VALUE:
        lacking = _lacking(model, _QUERY_VALUE[model_type])
        return [name for name in _QUERY_VALUE[model_type] if name not in lacking]
    if model_type in _tuner_targets(peft_type):
        return None
    return LORA_TARGETS.get(model_type, "all-linear")


def _tuner_targets(peft_type: PeftType) -> Mapping[str, Any]:
    if peft_type is PeftType.IA3:  # the one tuner without the attribute
        return IA3_TARGETS
    return PEFT_TYPE_TO_TUNER_MAPPING[peft_type].target_module_mapping or {}


def _check_names(model: PreTrainedModel, option: str, ends: Iterable[str]) -> None:
    """Peft passes over a name that matches nothing as long as another matches."""
    unknown = _lacking(model, ends)
    if unknown:
        raise InputError(
            f"{option} names {', '.join(unknown)}, which {type(model).__name__} lacks: the layers in its "
            f"blocks are {', '.join(projection_names(model))}."
        )


def _lacking(model: PreTrainedModel, ends: Iterable[str]) -> list[str]:
    """Of these ends of names, those that no module of the model has."""
    names = [f".{name}" for name, _ in model.named_modules()]
    return [end for end in ends if not any(name.endswith(f".{end}") for name in names)]
