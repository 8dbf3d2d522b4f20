"""Feed-forward: the position-wise layer."""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn

from harness.method import Method
from harness.spec import ModelSpec


class FeedForward(nn.Module, Method):
    """Position-wise network D -> ffn_dim -> D with layers `up_proj`, `down_proj` and, where gated,
    `gate_proj` (names that PEFT, quantizers and importers rely on).

    Shapes: x_BTD -> BTD
    """

    axis = "feed_forward"
    default = "swiglu"
    gated: bool = False

    @classmethod
    def kept_values(cls, config: Any, spec: ModelSpec) -> float:
        """Values that a token keeps in one layer until the backward pass, its input and output apart."""
        return (4.0 if cls.gated else 2.0) * spec.ffn_dim

    def __init__(self, config: Any, spec: ModelSpec, layer: int) -> None:
        nn.Module.__init__(self)
        Method.__init__(self, config)
        self.spec, self.layer = spec, layer
        self.build(spec)

    def build(self, spec: ModelSpec) -> None:
        """Create the layers."""
        self.up_proj = nn.Linear(spec.dim, spec.ffn_dim, bias=spec.bias)
        if self.gated:
            self.gate_proj = nn.Linear(spec.dim, spec.ffn_dim, bias=spec.bias)
        self.down_proj = nn.Linear(spec.ffn_dim, spec.dim, bias=spec.bias)

    def activation(self, x: Tensor) -> Tensor:
        """The non-linearity, element by element."""
        raise NotImplementedError

    def forward(self, x_BTD: Tensor) -> Tensor:
        hidden = self.up_proj(x_BTD)
        if self.gated:
            return self.down_proj(self.activation(self.gate_proj(x_BTD)) * hidden)  # type: ignore[no-any-return]
        return self.down_proj(self.activation(hidden))  # type: ignore[no-any-return]
