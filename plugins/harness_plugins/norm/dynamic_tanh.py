"""Dynamic tanh (DyT): a learned squashing function in place of a norm."""

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from harness import ConfigError, Method, ModelSpec, Norm, hookimpl


class DynamicTanh(Norm):
    """tanh(alpha x) * weight + bias, with one learned number alpha a norm; no statistics of the input.

    Paper: Zhu et al. 2025, arXiv:2503.10622, section 4
    Differs: the bias is there where norms of the model have one
    Raises: ConfigError if alpha is not positive
    """

    name = "dynamic_tanh"
    unread = frozenset({"norm_offset"})

    @dataclass(frozen=True, kw_only=True)
    class Config(Norm.Config):
        alpha: float = 0.5
        """Value at which alpha starts; wider models want less."""

        def __post_init__(self) -> None:
            if not self.alpha > 0:
                raise ConfigError(f"norm.alpha={self.alpha} must be positive")

    config: Config

    def build(self, dim: int, spec: ModelSpec) -> nn.Module:
        return DyT(dim, alpha=self.config.alpha, bias=self.has_bias(spec))


class DyT(nn.Module):
    """The layer.

    Shapes: B...D -> B...D; alpha (1), weight and bias (D)
    """

    def __init__(self, dim: int, *, alpha: float, bias: bool) -> None:
        super().__init__()
        self.alpha = nn.Parameter(torch.full((1,), alpha))
        self.weight = nn.Parameter(torch.ones(dim))
        self.bias = nn.Parameter(torch.zeros(dim)) if bias else None

    def forward(self, x: Tensor) -> Tensor:
        out = torch.tanh(self.alpha * x) * self.weight
        return out if self.bias is None else out + self.bias


@hookimpl
def harness_methods() -> list[type[Method]]:
    return [DynamicTanh]
