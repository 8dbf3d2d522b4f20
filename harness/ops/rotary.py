"""Rotary arithmetic: inverse frequencies, angles, rotation.

Shapes: H head dim, R rotated share of H (even), T tokens, B batch, N heads
"""

from collections.abc import Sequence

import torch
from torch import Tensor

from harness.errors import ConfigError


def inverse_frequencies(rotary_dim: int, base: float, device: torch.device | None = None) -> Tensor:
    """theta_i = base ** (-2i / R), in radians per position.

    Paper: Su et al. 2021, arXiv:2104.09864, section 3.3
    Shapes: -> R/2, float32
    """
    where = torch.get_default_device() if device is None else device
    # A shape is all that is asked of a meta device, whose first division would load 800 modules of torch.
    real = torch.device("cpu") if where.type == "meta" else where
    exponent = torch.arange(0, rotary_dim, 2, dtype=torch.int64, device=real).float() / rotary_dim
    return (1.0 / (base**exponent)).to(where)


def cos_sin(
    inv_freq: Tensor, position_BT: Tensor, *, dtype: torch.dtype, factor: float = 1.0
) -> tuple[Tensor, Tensor]:
    """Cosine and sine of position * frequency, times `factor`; computed in float32 or better.

    Shapes: inv_freq R/2, position_BT -> two of B1TR
    """
    wide = torch.float64 if dtype == torch.float64 else torch.float32
    angle = position_BT[:, None, :, None].to(wide) * inv_freq.to(wide)
    angle = torch.cat((angle, angle), dim=-1)
    return (angle.cos() * factor).to(dtype), (angle.sin() * factor).to(dtype)


def rotate_pairs(x_BNTH: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """x rotated in the planes (i, i + R/2); components beyond R pass through.

    Differs: the paper pairs (2i, 2i+1); halves are the layout of Llama checkpoints and equal up to a
    permutation of the projections' rows.
    """
    rotary_dim = cos.shape[-1]
    if rotary_dim < x_BNTH.shape[-1]:
        turned = rotate_pairs(x_BNTH[..., :rotary_dim], cos, sin)
        return torch.cat((turned, x_BNTH[..., rotary_dim:]), dim=-1)
    first, second = x_BNTH.chunk(2, dim=-1)
    return x_BNTH * cos + torch.cat((-second, first), dim=-1) * sin


def check_rotation_factors(factors: Sequence[float], *, where: str) -> None:
    """Refuse divisors of frequencies that are not above 0; `where` is the option's key.

    Raises: ConfigError
    """
    if any(not factor > 0 for factor in factors):
        raise ConfigError(f"{where}={list(factors)} must all be above 0")


def rotation_factors(stated: Sequence[float], *, pairs: int, ntk: float = 1.0, where: str) -> Tensor:
    """What each frequency is divided by: as stated, else NTK's s^(i / (pairs - 1)); `where` is the key.

    Shapes: -> R/2, as many as `pairs`
    Raises: ConfigError where not as many are stated
    """
    factors = list(stated) or [ntk ** (i / max(1, pairs - 1)) for i in range(pairs)]
    if len(factors) != pairs:
        raise ConfigError(f"{where} has {len(factors)} factors, but the model has {pairs} rotations a head")
    return torch.tensor(factors)
