"""Bottleneck adapters: down, nonlinearity, up, with the last map zero at the start."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from harness import ConfigError, Kept, Peft, match_modules, replace_module

from ._own import OwnPeft, Wrapper


@dataclass(frozen=True, kw_only=True)
class BottleneckConfig(Peft.Config):
    """Options of both kinds of adapter."""

    bottleneck: int = 16
    """Width between the two maps."""
    target_modules: list[str] = field(default_factory=list)
    """Names of the modules that get an adapter; empty for the method's usual ones."""

    def __post_init__(self) -> None:
        if self.bottleneck < 1:
            raise ConfigError(f"peft.bottleneck={self.bottleneck} must be at least 1")


class Bottleneck(nn.Module):
    """up(relu(down(x))); zero at the start.

    Shapes: BTD -> BTD
    """

    def __init__(self, width: int, bottleneck: int, like: Tensor) -> None:
        super().__init__()
        self.down = nn.Linear(width, bottleneck)
        self.up = nn.Linear(bottleneck, width)
        nn.init.zeros_(self.up.weight)
        nn.init.zeros_(self.up.bias)
        self.to(like.device)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.up(torch.relu(self.down(x.to(self.down.weight.dtype)))).to(x.dtype)
        return out


class Serial(Wrapper):
    """y = f(x); y + adapter(y)."""

    def __init__(self, base_layer: nn.Module, adapter: Bottleneck) -> None:
        super().__init__(base_layer)
        self.adapter = adapter

    def forward(self, x: Tensor, *args: Any, **kwargs: Any) -> Any:
        out = self.base_layer(x, *args, **kwargs)
        if not self.enabled:
            return out
        y, *rest = out if isinstance(out, tuple) else (out,)  # a mixture gives its routing too
        y = y + self.adapter(self.read(x, y))
        return (y, *rest) if isinstance(out, tuple) else y

    def read(self, x: Tensor, y: Tensor) -> Tensor:
        """What the adapter reads, of the module's input and output."""
        return y


class Parallel(Serial):
    """f(x) + adapter(x)."""

    def read(self, x: Tensor, y: Tensor) -> Tensor:
        return x


class BottleneckPeft(OwnPeft):
    """Puts an adapter around each target."""

    Config = BottleneckConfig
    config: BottleneckConfig
    kept = Kept(inputs=False)
    usual: Sequence[str] = ()
    """Modules that get an adapter where the options name none."""
    wrapper: type[Serial] = Serial

    def targets(self, model: nn.Module) -> list[str]:
        """Names of the modules that get an adapter."""
        wanted = self.config.target_modules or self.usual
        return match_modules(model, wanted, where="peft.target_modules")

    def apply(self, model: nn.Module) -> nn.Module:
        weight = model.get_input_embeddings().weight  # type: ignore[operator]
        model.requires_grad_(False)
        for name in self.targets(model):
            adapter = Bottleneck(weight.shape[1], self.config.bottleneck, weight)
            replace_module(model, name, self.wrapper(model.get_submodule(name), adapter))
        return model

    def trainable_parameters(self, model: nn.Module) -> int:
        """2 d m + m + d for each adapter."""
        d: int = model.get_input_embeddings().weight.shape[1]  # type: ignore[operator]
        m = self.config.bottleneck
        return len(self.targets(model)) * (2 * d * m + m + d)
