"""LoRA and the methods that start, scale or train the same two matrices otherwise."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, TypeVar

from torch import nn

from harness import ConfigError

from ._library import LowRank, LowRankConfig

T = TypeVar("T")


@dataclass(frozen=True, kw_only=True)
class LoRAConfig(LowRankConfig):
    """Options of LoRA: rank and scale can differ between layers."""

    rank_pattern: dict[str, int] = field(default_factory=dict)
    """Ranks of layers that differ from `rank`: {down_proj: 16}. A key is a layer's name, its end after a dot,
    or a regular expression for either; the first that matches counts."""
    alpha_pattern: dict[str, float] = field(default_factory=dict)
    """Alphas of layers that differ from `alpha`, by keys of the same kind."""

    def __post_init__(self) -> None:
        super().__post_init__()
        for name in ("rank_pattern", "alpha_pattern"):
            for key in getattr(self, name):
                try:
                    re.compile(key)
                except re.error as error:
                    raise ConfigError(f"peft.{name}: {key!r} is no regular expression: {error}") from error
        for key, rank in self.rank_pattern.items():
            if rank < 1:
                raise ConfigError(f"peft.rank_pattern: {key}: {rank} must be at least 1")


class LoRAFamily(LowRank):
    """Base of the methods that the peft library's LoraConfig describes."""

    Config = LoRAConfig
    config: LoRAConfig

    def ranks(self, layers: Iterable[str]) -> dict[str, int]:
        pattern = self.config.rank_pattern
        return {name: matched(pattern, name, self.config.rank) for name in layers}

    def targets(self, model: nn.Module) -> list[str]:
        names = super().targets(model)
        for option in ("rank_pattern", "alpha_pattern"):
            refuse_idle_keys(getattr(self.config, option), names, where=f"peft.{option}")
        return names

    def lora_config(self, model: nn.Module, **more: Any) -> Any:
        """The library's config, with what a method says of its own."""
        from peft import LoraConfig

        return LoraConfig(
            r=self.config.rank,
            lora_alpha=self.config.alpha,
            lora_dropout=self.config.dropout,
            rank_pattern=dict(self.config.rank_pattern),
            alpha_pattern=dict(self.config.alpha_pattern),
            **self.scope(model),
            **more,
        )


def key_of(pattern: Mapping[str, Any], name: str) -> str | None:
    """The first key that matches a layer's name or its end after a dot, as the peft library has it."""
    return next((key for key in pattern if re.match(rf"(.*\.)?({key})$", name)), None)


def matched(pattern: Mapping[str, T], name: str, default: T) -> T:
    """What a pattern says of a layer."""
    key = key_of(pattern, name)
    return default if key is None else pattern[key]


def refuse_idle_keys(pattern: Mapping[str, Any], names: Iterable[str], *, where: str) -> None:
    """Refuse a key that is no layer's first match.

    Raises: ConfigError naming the keys and the layers
    """
    names = list(names)
    idle = sorted(set(pattern) - {key_of(pattern, name) for name in names})
    if idle:
        last = sorted({name.rpartition(".")[2] for name in names})
        raise ConfigError(
            f"{where}: {', '.join(idle)} matches no adapted layer that no key before it does; adapted are "
            f"{', '.join(last)}"
        )
