import subprocess
import sys

from clear_peft.tuners import available_methods
from clear_peft.tuners.catalogue import newer_peft

# What peft has and `available_methods` leaves out, and why.
LEFT_OUT = {
    "lora": "listed under our own names",
    "prefix_tuning": "listed as prefix",
    "bone": "called miss now, and gone since peft 0.19",
    "adaption_prompt": "decoders only",
    "shadow": "decoders only",
    "cpt": "causal language models only",
    "cartridge": "needs a cache of keys and values made beforehand",
    "multitask_prompt_tuning": "needs task ids",
    "poly": "needs task ids",
    "prompt_tuning": "lengthens the sequence, no layer to route",
    "p_tuning": "lengthens the sequence, no layer to route",
    "lily": "mixes the examples of a batch",
    "xlora": "needs trained adapters",
    "trainable_tokens": "trains rows of the embedding",
}


def test_methods_are_those_of_peft():
    from peft.mapping import PEFT_TYPE_TO_CONFIG_MAPPING

    peft_names = {peft_type.value.lower() for peft_type in PEFT_TYPE_TO_CONFIG_MAPPING}
    own = {"lora", "dora", "adapter", "prefix", "bitfit", "apt", "rosa", "metapeft"}
    ours = set(available_methods()) - own
    assert ("bitfit" in available_methods()) == ("beft" in peft_names)
    waiting = {name for name in peft_names if newer_peft(name) is not None}
    assert waiting <= {"adamss"}, "what peft has is to be had"
    assert ours == peft_names - LEFT_OUT.keys() - waiting
    assert len(available_methods()) == len(set(available_methods()))


def test_names_are_cheap_and_the_rest_is_lazy():
    code = (
        "import sys, clear_peft.tuners as t; t.available_methods(); "
        "assert not {'torch', 'peft', 'transformers'} & sys.modules.keys(); "
        "assert all(getattr(t, name) is not None for name in t.__all__)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_unknown_attribute():
    import clear_peft.tuners

    assert not hasattr(clear_peft.tuners, "nothing")
