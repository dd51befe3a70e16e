"""The names of the PEFT methods and the paper's settings for them; imports neither torch nor peft."""

from dataclasses import dataclass

_OWN_NAMES = ("lora", "adapter", "prefix", "bitfit", "dora")
_PEFT_NAMES = (
    "adalora",
    "adamss",
    "beft",
    "boft",
    "c3a",
    "deft",
    "delora",
    "fourierft",
    "frod",
    "glora",
    "gralora",
    "hira",
    "hra",
    "ia3",
    "ln_tuning",
    "loha",
    "lokr",
    "miss",
    "oft",
    "osf",
    "peanut",
    "psoft",
    "pvera",
    "randlora",
    "road",
    "shira",
    "supertuning",
    "tinylora",
    "unilora",
    "vblora",
    "vera",
    "waveft",
)


@dataclass(frozen=True)
class PaperSettings:
    """What the CleaR paper sets per PEFT method.

    Attributes:
        ceiling: γ, the probability with which a certainly clean example is routed through the adapter.
        temperature: T of the teacher's softmax.
        smoothing: β, the weight of the previous epoch's loss in the loss that is clustered.
    """

    ceiling: float
    temperature: float
    smoothing: float


_AS_LORA = PaperSettings(ceiling=0.85, temperature=1.0, smoothing=0.0)

PAPER_SETTINGS: dict[str, PaperSettings] = {
    **dict.fromkeys(_OWN_NAMES + _PEFT_NAMES, _AS_LORA),
    "adapter": PaperSettings(ceiling=0.7, temperature=0.5, smoothing=0.9),
    "bitfit": PaperSettings(ceiling=0.9, temperature=1.0, smoothing=0.0),
}
"""Settings of every method; the ones that the paper does not try get LoRA's."""


def available_methods() -> tuple[str, ...]:
    """Return the names that `build` takes, the paper's four first."""
    return _OWN_NAMES + _PEFT_NAMES
