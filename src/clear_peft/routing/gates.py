"""A counter-based generator of gates: the same draw wherever and whenever an example is seen.

The gate of an example at a block is a pure function of (seed, step, example id, block). It does not
depend on the layout of the batch, the number of ranks, gradient accumulation, or a resume.
"""

import torch
from torch import Tensor

# Weyl increment and finaliser of SplitMix64 (Steele, Lea & Flood 2014), as signed 64-bit integers.
_INCREMENT = 0x9E3779B97F4A7C15 - (1 << 64)
_MULTIPLIERS = (0xBF58476D1CE4E5B9 - (1 << 64), 0x94D049BB133111EB - (1 << 64))
_BITS = 24  # as many as float32 holds exactly: u < 1 always holds, u < 0 never


def _shift(z: Tensor, bits: int) -> Tensor:
    # torch shifts signed integers arithmetically; the hash needs zeros from the left
    return (z >> bits) & ((1 << (64 - bits)) - 1)


def _mix(z: Tensor) -> Tensor:
    z = z + _INCREMENT
    z = (z ^ _shift(z, 30)) * _MULTIPLIERS[0]
    z = (z ^ _shift(z, 27)) * _MULTIPLIERS[1]
    return z ^ _shift(z, 31)


def uniform(example_ids: Tensor, num_blocks: int, *, seed: int, step: int) -> Tensor:
    """Uniform numbers keyed by (seed, step, example id, block).

    Args:
        example_ids: int64 tensor of shape (B,).
        num_blocks: L, the number of blocks.
        seed: any integer below 2⁶³ in magnitude.
        step: any integer below 2⁶³ in magnitude.

    Returns:
        float32 tensor of shape (B, L) in [0, 1), on the device of ``example_ids``.
    """
    key = int(_mix(_mix(torch.tensor(seed)) ^ torch.tensor(step)))
    blocks = torch.arange(num_blocks, device=example_ids.device)
    bits = _mix(_mix(example_ids.long() ^ key)[:, None] ^ blocks)
    return _shift(bits, 64 - _BITS).float() * 2.0**-_BITS


def draw_gates(
    probability: Tensor, example_ids: Tensor, num_blocks: int, *, seed: int = 0, step: int = 0
) -> Tensor:
    """Draw m_{i,l} ~ Bernoulli(probability_i), independently over examples i and blocks l.

    Args:
        probability: float tensor of shape (B,), the probability of an open gate (γ·p_i of the paper).
        example_ids: int64 tensor of shape (B,).
        num_blocks: L, the number of blocks.
        seed: seed of the run. Default 0.
        step: optimizer step. Default 0.

    Returns:
        bool tensor of shape (B, L): True routes the example through the block's PEFT modules. A
        probability of 1 always opens, 0 never.
    """
    return uniform(example_ids, num_blocks, seed=seed, step=step) < probability.float()[:, None]
