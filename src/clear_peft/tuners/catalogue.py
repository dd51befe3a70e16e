"""The names of the PEFT methods; imports neither torch nor peft."""

from importlib.metadata import version

_OWN_NAMES = ("lora", "adapter", "prefix", "bitfit", "dora", "apt", "rosa", "metapeft")
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
# of every supported version of peft, the paper's four first
ALL_METHODS = _OWN_NAMES + _PEFT_NAMES

# Methods that leave the weights of the base model alone, or know of bitsandbytes. peft's DoRA of 8-bit layers
# fails with bitsandbytes 0.50, at least on CPUs.
_ON_8BIT = ("lora", "adapter", "prefix", "apt", "metapeft")
ON_QUANTIZED = {"4bit": (*_ON_8BIT, "dora"), "8bit": _ON_8BIT}

# The version of peft from which on a method can be had. BitFit is made of BEFT; loaded by peft 0.19, a saved
# AdaMSS does not give its logits again.
_SINCE = {
    **dict.fromkeys(("gralora", "peanut", "psoft", "pvera", "tinylora"), (0, 19)),
    **dict.fromkeys(("adamss", "beft", "bitfit", "deft", "frod", "glora", "hira", "unilora"), (0, 20)),
    **dict.fromkeys(("rosa", "supertuning"), (0, 21)),
}


def available_methods() -> tuple[str, ...]:
    """Return the names that `build` takes, the paper's first, without those that the installed peft lacks."""
    major, minor, *_ = version("peft").split(".")
    installed = int(major), int(minor)
    return tuple(method for method in ALL_METHODS if _SINCE.get(method, installed) <= installed)


def newer_peft(method: str) -> str | None:
    """The version of peft that a method waits for; None if it is there, or there is no such method."""
    if method in available_methods() or method not in _SINCE:
        return None
    return ".".join(map(str, _SINCE[method]))
