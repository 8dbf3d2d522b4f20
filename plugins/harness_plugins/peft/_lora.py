"""LoRA and the methods that start, scale or train the same two matrices otherwise."""

from __future__ import annotations

import re
import warnings
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

from torch import nn

from harness import ConfigError, IncompatibleError

from ._library import LowRank, LowRankConfig
from ._scope import Experts, fused_experts

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

    def experts_problem(self, model: nn.Module) -> str | None:
        message = super().experts_problem(model)
        if message is not None or not self.config.dropout:
            return message
        experts = [name for name, layer in self.layers(model).items() if isinstance(layer, Experts)]
        if not experts:
            return None
        return (
            f"peft.dropout={self.config.dropout} cannot drop inputs of experts that lie in one parameter "
            f"({experts[0]}): its update is added to the weights; use peft.dropout=0, or name other layers"
        )

    def apply(self, model: nn.Module) -> nn.Module:
        with experts_as_named():
            return super().apply(model)

    def load(self, model: nn.Module, directory: Path, *, trainable: bool) -> nn.Module:
        """Raises: IncompatibleError where the adapter stands on experts that the model does not have"""
        from peft import LoraConfig

        here = {word for name in fused_experts(model) for word in ends_of(name)}
        asked = LoraConfig.from_pretrained(str(directory)).target_parameters or ()
        if lost := sorted(name for name in asked if name not in here):
            raise IncompatibleError(
                f"the adapter of peft={self.name} stands on experts in one parameter ({lost[0]}), which this "
                "model does not have: packing gives each expert a layer of its own; merge the adapter before "
                "(quantize.merge=true), or pack before tuning"
            )
        with experts_as_named():
            return super().load(model, directory, trainable=trainable)

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


@contextmanager
def experts_as_named() -> Iterator[None]:
    """Within the context the peft library adapts what it is told, experts or not.

    Else it takes every layer called as transformers 4 called those of experts (gate_proj, say) for experts:
    of a mixture with dense or shared layers it would adapt the experts twice, and the others not at all. And
    it warns of keys of rank and alpha that match no module, without counting parameters, which
    `refuse_idle_keys` does.
    """
    from peft.utils import transformers_weight_conversion as conversion

    converting = conversion.convert_peft_config_for_transformers
    conversion.convert_peft_config_for_transformers = lambda *args, **kwargs: None
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", r"The following (rank|alpha)_pattern keys", RuntimeWarning)
            yield
    finally:
        conversion.convert_peft_config_for_transformers = converting


def ends_of(name: str) -> list[str]:
    """A dotted name and all its ends: a.b.c, b.c and c."""
    parts = name.split(".")
    return [".".join(parts[first:]) for first in range(len(parts))]


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
