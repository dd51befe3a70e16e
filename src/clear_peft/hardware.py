"""What this machine is good at."""


def bf16_pays() -> bool:
    """Whether it multiplies in bf16 faster than in float32."""
    import torch  # seconds

    if torch.cuda.is_available():
        return torch.cuda.is_bf16_supported(including_emulation=False)
    checks = ("_is_amx_tile_supported", "_is_avx512_bf16_supported")  # not in every release
    return any(getattr(torch.cpu, check, lambda: False)() for check in checks)
