"""Rotary modules of any model, ours or Hugging Face's: read, replace, and follow the length.

Shapes: inv_freq R/2 inverse frequencies in radians per position, R = rotated share of a head
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from types import MethodType
from typing import Any

import torch
from torch import Tensor, nn

from harness.errors import IncompatibleError


@dataclass(frozen=True, kw_only=True)
class Rotary:
    """Rotary parameters of a model, as a scaling method receives and returns them.

    Shapes: inv_freq is R/2 inverse frequencies in radians per position
    """

    inv_freq: Tensor
    base: float
    head_dim: int
    max_length: int
    """Length the model was trained on, in tokens."""
    attention_factor: float = 1.0
    """Multiplies cos and sin (YaRN's temperature)."""


Scale = Callable[[Rotary, int], Rotary]
"""(parameters, length in tokens) -> parameters for that length."""


def rotary_modules(model: nn.Module) -> list[nn.Module]:
    """The modules that hold inverse frequencies.

    Raises: IncompatibleError where there is none
    """
    found = [module for module in model.modules() if isinstance(getattr(module, "inv_freq", None), Tensor)]
    if not found:
        raise IncompatibleError(
            f"{type(model).__name__} has no rotary position embedding, which this context method changes; "
            "use a model with rotary positions (position=rope or xpos), or context=direct_finetune"
        )
    return found


def trained_length(model: nn.Module) -> int:
    """Tokens the model was trained on, whatever context methods were applied and saved since."""
    config: Any = model.config
    now = getattr(model, "context_length", None)  # set by a method applied in this process
    return int(now or getattr(config, "trained_length", None) or config.max_position_embeddings)


def set_length(model: nn.Module, length: int) -> None:
    """Make every tool that asks the config see the longer context."""
    config: Any = model.config
    if getattr(config, "trained_length", None) is None:
        config.trained_length = config.max_position_embeddings
    config.max_position_embeddings = length
    spec = getattr(config, "spec", None)
    if isinstance(spec, dict) and "max_length" in spec:
        spec["max_length"] = length
    model.context_length = length  # type: ignore[assignment]


def read(module: nn.Module, *, max_length: int) -> Rotary:
    """The parameters of one module."""
    inv_freq: Any = module.inv_freq
    rotated = 2 * inv_freq.numel()
    # theta_1 = base^(-2/R), whatever the library calls its base.
    base = float(inv_freq[1].double()) ** (-rotated / 2) if inv_freq.numel() > 1 else 10000.0
    stated = getattr(getattr(module, "config", None), "base", _parameters(module).get("rope_theta"))
    if stated is not None:
        base = float(stated)
    factor: Any = getattr(module, "attention_factor", getattr(module, "attention_scaling", 1.0))
    return Rotary(
        inv_freq=inv_freq.detach().clone(),
        base=base,
        head_dim=rotated,
        max_length=max_length,
        attention_factor=float(factor),
    )


def write(module: Any, rotary: Rotary) -> None:
    """Replace the parameters of one module."""
    module.inv_freq = rotary.inv_freq.to(module.inv_freq.device, torch.float32)
    if hasattr(module, "original_inv_freq"):
        module.original_inv_freq = module.inv_freq.clone()
    name = "attention_factor" if hasattr(module, "attention_factor") else "attention_scaling"
    setattr(module, name, rotary.attention_factor)
    if hasattr(module, "_last"):
        module._last = None  # our module keeps the cosines of its last call


def rescale(model: nn.Module, scale: Scale, *, length: int) -> None:
    """Replace the frequencies of all rotary modules by those for `length` tokens."""
    for module in rotary_modules(model):
        write(module, scale(read(module, max_length=trained_length(model)), length))


def rescale_dynamically(model: nn.Module, scale: Scale) -> None:
    """Let frequencies follow the length of every sequence that is longer than the trained one."""
    trained = trained_length(model)
    for module in rotary_modules(model):
        follower: Any = module
        follower.follows = Follower(scale, read(module, max_length=trained))
        name = "rotate" if hasattr(module, "rotate") else "forward"
        setattr(follower, f"plain_{name}", getattr(module, name))
        setattr(follower, name, MethodType(_rotate if name == "rotate" else _forward, module))


@dataclass
class Follower:
    """What a module that follows the length remembers."""

    scale: Scale
    trained: Rotary
    length: int = 0

    def update(self, module: nn.Module, position_BT: Tensor) -> None:
        """Set the frequencies for the longest position of this call."""
        length = max(int(position_BT.max()) + 1, self.trained.max_length)
        if length != self.length:
            self.length = length
            write(module, self.scale(self.trained, length))


def _rotate(self: Any, x_BNTH: Tensor, position_BT: Tensor, *, is_key: bool) -> Tensor:
    self.follows.update(self, position_BT)
    return self.plain_rotate(x_BNTH, position_BT, is_key=is_key)  # type: ignore[no-any-return]


def _forward(self: Any, x: Tensor, position_ids: Tensor, *args: Any, **kwargs: Any) -> Any:
    self.follows.update(self, position_ids)
    return self.plain_forward(x, position_ids, *args, **kwargs)


def _parameters(module: nn.Module) -> dict[str, Any]:
    config = getattr(module, "config", None)
    found = getattr(config, "rope_parameters", None) or {}
    return found if isinstance(found, dict) else {}
