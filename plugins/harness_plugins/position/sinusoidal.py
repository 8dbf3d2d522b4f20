"""Sinusoidal absolute positions: fixed sines and cosines added to the embeddings."""

import math

import torch
from torch import Tensor

from harness import ConfigError, Method, ModelSpec, Position, hookimpl


class Sinusoidal(Position):
    """sqrt(D) x_i + p_i with p_(i, 2j) = sin(i / 10000^(2j/D)) and p_(i, 2j+1) the cosine.

    Paper: Vaswani et al. 2017, arXiv:1706.03762, sections 3.4 and 3.5
    Raises: ConfigError for an odd model width
    """

    name = "sinusoidal"

    def build(self, spec: ModelSpec) -> None:
        if spec.dim % 2:
            raise ConfigError(f"position=sinusoidal pairs components, but model.dim={spec.dim} is odd")

    def embed(self, x_BTD: Tensor, position_BT: Tensor) -> Tensor:
        width = x_BTD.shape[-1]
        even = torch.arange(0, width, 2, device=x_BTD.device)
        wide = torch.float64 if x_BTD.dtype == torch.float64 else torch.float32
        angle = position_BT[..., None].to(wide) * torch.exp(even.to(wide) * (-math.log(10000.0) / width))
        table = torch.stack((angle.sin(), angle.cos()), dim=-1).flatten(-2)
        return x_BTD * math.sqrt(width) + table.to(x_BTD.dtype)


@hookimpl
def harness_methods() -> list[type[Method]]:
    return [Sinusoidal]
