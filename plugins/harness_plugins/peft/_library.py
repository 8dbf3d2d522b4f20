"""Shared by the methods that the `peft` library has: one adapter, its config, merge and checks."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from torch import nn

from harness import (
    ConfigError,
    IncompatibleError,
    PackedLinear,
    Peft,
    Problem,
    linear_layers,
    match_modules,
    weight_matrix,
)

if TYPE_CHECKING:
    from harness import CellView


class LibraryPeft(Peft):
    """Applies a `peft` config to any Hugging Face causal model."""

    @abstractmethod
    def library_config(self, model: nn.Module) -> Any:
        """The `peft` config for this model."""
        raise NotImplementedError

    def apply(self, model: nn.Module) -> nn.Module:
        from peft import get_peft_model

        return get_peft_model(model, self.library_config(model))  # type: ignore[no-any-return]

    def merge(self, model: nn.Module) -> nn.Module:
        if not self.mergeable:
            return super().merge(model)
        if any(isinstance(module, PackedLinear) for module in model.modules()):
            raise IncompatibleError(
                f"peft={self.name} cannot be merged into packed weights: the sum is not on the grid; "
                "tune and merge before quantizing, or keep the adapter"
            )
        return model.merge_and_unload()  # type: ignore[operator,no-any-return]


@dataclass(frozen=True, kw_only=True)
class LinearConfig(Peft.Config):
    """Options of adapters on linear layers."""

    target_modules: list[str] = field(default_factory=list)
    """Names of the linear layers to adapt, e.g. [q_proj, v_proj]; empty for all but the output head."""


@dataclass(frozen=True, kw_only=True)
class LowRankConfig(LinearConfig):
    """Options of low-rank adapters."""

    rank: int = 8
    """Rank r of the update; at most the smaller side of every adapted layer."""
    alpha: float = 16.0
    """The update is scaled by alpha / rank."""
    dropout: float = 0.0
    """Probability of dropping an input of the adapter."""

    def __post_init__(self) -> None:
        if self.rank < 1:
            raise ConfigError(f"peft.rank={self.rank} must be at least 1")
        if not 0 <= self.dropout < 1:
            raise ConfigError(f"peft.dropout={self.dropout} must be in [0, 1)")


def linear_targets(model: nn.Module, config: LinearConfig) -> dict[str, nn.Module]:
    """The linear layers to adapt, packed ones included, by name.

    Raises: EffectError listing the modules that exist, if the names match nothing
    """
    packed = {n: m for n, m in model.named_modules() if isinstance(m, PackedLinear)}
    layers = {**linear_layers(model), **packed}
    if not config.target_modules:
        return layers
    wanted = match_modules(model, config.target_modules, where="peft.target_modules")
    found = {name: layers[name] for name in wanted if name in layers}
    if not found:
        names = sorted({name.rpartition(".")[2] for name in layers})
        raise ConfigError(
            f"peft.target_modules={list(config.target_modules)} are no linear layers; "
            f"linear layers are {', '.join(names)}"
        )
    return found


def layer_size(layer: nn.Module) -> tuple[int, int]:
    """(in, out) of a linear layer, without unpacking it."""
    if isinstance(layer, PackedLinear):
        return layer.in_features, layer.out_features
    out_features, in_features = weight_matrix(layer).shape
    return in_features, out_features


def rank_problems(config: LowRankConfig, model: nn.Module) -> Iterable[str]:
    """Layers that the rank is too large for."""
    for name, layer in linear_targets(model, config).items():
        if config.rank > min(layer_size(layer)):
            yield (
                f"rank {config.rank} is above the size of layer {name}, "
                f"{layer_size(layer)[0]} x {layer_size(layer)[1]}; use at most {min(layer_size(layer))}"
            )
            return


class LowRank(LibraryPeft):
    """Base of LoRA, AdaLoRA and DoRA."""

    mergeable = True
    Config = LowRankConfig
    config: LowRankConfig

    @classmethod
    def check(cls, config: Any, cell: CellView, meta_model: nn.Module | None) -> Iterable[Problem]:
        found = list(super().check(config, cell, meta_model))
        yield from found
        if meta_model is not None and not found:
            for message in rank_problems(config, meta_model):
                yield Problem(where="peft.rank", message=message)

    def targets(self, model: nn.Module) -> list[str]:
        return list(linear_targets(model, self.config))

    def apply(self, model: nn.Module) -> nn.Module:
        for message in rank_problems(self.config, model):
            raise ConfigError(f"peft.rank: {message}")
        return super().apply(model)

    def trainable_parameters(self, model: nn.Module) -> int:
        """r * (in + out) for each adapted layer."""
        return sum(self.config.rank * sum(layer_size(m)) for m in linear_targets(model, self.config).values())
