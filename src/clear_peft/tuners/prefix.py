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


def check_takes_prefix(model: PreTrainedModel, method: str) -> None:
    """Refuse a model that cannot be given a cache.

    Raises:
        InputError: Says so of the method.
    """
    if not takes_prefix(model):
        raise InputError(
            f"{method} does not work with {type(model).__name__}, whose attention takes no cached keys and "
            "values: use lora, adapter or bitfit."
        )


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
    """A model that hands its prefix over by its cache's own name; saved, it is what peft's own is."""

    _method = "prefix"

    def _prefix(self, rows: int, attention_mask: Tensor | None) -> Any:
        """Make the cache that holds the prefix.

        Args:
            rows: Number of examples, B.
            attention_mask: (B, prefix + T), 0 where there is padding; or None.
        """
        return self.get_prompt(rows)

    def activation_checkpointing_enable(self, *_: Any, **__: Any) -> None:
        """Refuse it: a layer that is run again may not be given a cache, and so no prefix.

        Raises:
            InputError: Always.
        """
        raise InputError(f"{self._method} does not work with gradient checkpointing: leave it off.")

    # by the name that it had before transformers 5.23
    gradient_checkpointing_enable = activation_checkpointing_enable

    def _prefix_tuning_forward(
        self,
        input_ids: Tensor | None = None,
        attention_mask: Tensor | None = None,
        inputs_embeds: Tensor | None = None,
        **inputs: Any,
    ) -> Any:
        given = input_ids if inputs_embeds is None else inputs_embeds
        name = cache_name(self.base_model)
        assert given is not None
        assert name is not None
        prefix = self._prefix(len(given), attention_mask)
        length = prefix.get_seq_length()
        inputs |= {"input_ids": input_ids, "inputs_embeds": inputs_embeds, "attention_mask": attention_mask}
        outputs = self.base_model(**inputs, **{name: prefix})
        if prefix.get_seq_length() == length:  # no attention has added its keys
            raise InputError(
                f"{self._method} has no effect on {type(self.base_model).__name__}, which drops it: "
                "use lora, adapter or bitfit."
            )
        return outputs
