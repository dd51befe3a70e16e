"""Prefix tuning, whose vectors a model takes as a cache of keys and values."""

from typing import Any

from peft import PeftModel, PeftModelForSequenceClassification, PeftType
from torch import Tensor
from transformers.modeling_utils import PreTrainedModel

from clear_peft.errors import InputError
from clear_peft.tuners.internals import cache_name


def takes_prefix(model: PreTrainedModel) -> bool:
    """Whether a model can be given a cache; peft finds out in the first forward, and for T5 not even then."""
    return cache_name(model) is not None and not model.config.is_encoder_decoder


def hand_over_prefix(model: PeftModel) -> PeftModel:
    """The same model: its prefix, if it has one, goes by the name that its transformers has for a cache.

    That is ``past_key_values``, as peft up to 0.21 calls it, or since transformers 5.24 ``cache``.
    """
    prefixes = any(config.peft_type == PeftType.PREFIX_TUNING for config in model.peft_config.values())
    classifies = type(model) is PeftModelForSequenceClassification
    if prefixes and classifies and cache_name(model.get_base_model()) == "cache":
        model.__class__ = PrefixModel
    return model


class PrefixModel(PeftModelForSequenceClassification):
    """A model that hands its prefix over as ``cache``; saved, it is what peft's own is."""

    def _prefix_tuning_forward(
        self, input_ids: Tensor | None = None, inputs_embeds: Tensor | None = None, **inputs: Any
    ) -> Any:
        given = input_ids if inputs_embeds is None else inputs_embeds
        assert given is not None
        prefix = self.get_prompt(len(given))
        length = prefix.get_seq_length()
        outputs = self.base_model(input_ids=input_ids, inputs_embeds=inputs_embeds, cache=prefix, **inputs)
        if prefix.get_seq_length() == length:  # no attention has added its keys
            name = type(self.base_model).__name__
            raise InputError(f"prefix has no effect on {name}, which drops it: use lora, adapter or bitfit.")
        return outputs
