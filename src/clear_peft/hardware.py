"""What this machine has, and what it is good at."""

from clear_peft.errors import InputError

DEVICES = ("auto", "cpu", "cuda", "mps", "xpu")


def choose_device(name: str = "auto") -> str:
    """Where to compute, as torch names it.

    Args:
        name: ``auto``: a CUDA GPU if there is one, else the CPU; or ``cpu``, ``cuda``, ``mps`` (Apple) or
            ``xpu`` (Intel).

    Raises:
        InputError: If there is no such device here.
    """
    if name not in DEVICES:
        raise InputError(f"There is no device {name!r}: choose from {', '.join(DEVICES)}.")
    if name == "cpu":
        return name
    import torch  # seconds

    backends = {"cuda": torch.cuda, "mps": torch.backends.mps, "xpu": torch.xpu}
    there = ["cpu", *(device for device, backend in backends.items() if backend.is_available())]
    if name == "auto":
        return "cuda" if "cuda" in there else "cpu"
    if name not in there:
        raise InputError(
            f"device is {name!r}, and torch {torch.__version__} finds none here: give auto or "
            f"{' or '.join(there)}."
        )
    return name


def check_device(name: str) -> None:
    """Refuse a device that is not here, before anything is read; torch is imported only where one is named.

    Raises:
        InputError: As ``choose_device``.
    """
    if name != "auto":
        choose_device(name)


def bf16_pays(device: str) -> bool:
    """Whether a device of this machine multiplies in bf16 faster than in float32, as far as that is known."""
    import torch  # seconds

    if device == "cuda":
        return torch.cuda.is_bf16_supported(including_emulation=False)
    checks = ("_is_amx_tile_supported", "_is_avx512_bf16_supported")  # not in every release
    return device == "cpu" and any(getattr(torch.cpu, check, lambda: False)() for check in checks)
