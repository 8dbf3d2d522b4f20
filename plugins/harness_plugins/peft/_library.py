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
    """Names of the layers to adapt, e.g. [q_proj, v_proj]; empty for all linear layers but the output head,
    which is adapted where it is named (lm_head); lora and dora take the input embeddings too."""


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


def linear_targets(
    model: nn.Module, config: LinearConfig, *, embeddings: bool = False
) -> dict[str, nn.Module]:
    """The layers to adapt by name: linear ones, packed ones included, and of those that are named also the
    output head and, where asked for, the input embeddings.

    Raises: EffectError or ConfigError for every name that matches nothing to adapt, listing what exists;
        IncompatibleError for a head or embeddings that share their weights
    """
    packed = {n: m for n, m in model.named_modules() if isinstance(m, PackedLinear)}
    layers = {**linear_layers(model), **packed}
    if not config.target_modules:
        return layers
    words, head = ends(model)
    modules = dict(model.named_modules())
    outer = {n: m for n, m in modules.items() if m is head or (embeddings and m is words)}
    layers |= outer
    wanted = match_modules(model, config.target_modules, where="peft.target_modules")
    found = {name: layers[name] for name in wanted if name in layers}
    taken = {part for name in found for part in (name, name.rpartition(".")[2])}
    strange = [name for name in config.target_modules if name not in taken]
    if strange:
        names = sorted({name.rpartition(".")[2] for name in layers})
        raise ConfigError(
            f"peft.target_modules={list(config.target_modules)}: {', '.join(strange)} "
            f"{'is no layer' if len(strange) == 1 else 'are no layers'} that can be adapted; "
            f"those are {', '.join(names)}"
        )
    shared = [name for name in found if name in outer]
    if shared and words is not None and head is not None and words.weight is head.weight:
        raise IncompatibleError(
            f"peft.target_modules={list(config.target_modules)}: {shared[0]} shares its weight between input "
            "embeddings and output head, so an adapter on one would change the other once merged; leave it "
            "out, or use a model that does not share them (model.tie_embeddings=false)"
        )
    return found


def ends(model: nn.Module) -> tuple[nn.Module | None, nn.Module | None]:
    """The input embeddings and the output head of a causal model, as far as it has them."""
    words = getattr(model, "get_input_embeddings", lambda: None)()
    head = getattr(model, "get_output_embeddings", lambda: None)()
    return words, head


def layer_size(layer: nn.Module) -> tuple[int, int]:
    """(in, out) of a layer, without unpacking it; embeddings read one of their rows' numbers."""
    if isinstance(layer, PackedLinear):
        return layer.in_features, layer.out_features
    if isinstance(layer, nn.Embedding):
        return layer.num_embeddings, layer.embedding_dim
    out_features, in_features = weight_matrix(layer).shape
    return in_features, out_features


class LowRank(LibraryPeft):
    """Base of LoRA, AdaLoRA and DoRA."""

    mergeable = True
    adapts_embeddings = False
    """Whether the peft library can put it on embeddings."""
    Config = LowRankConfig
    config: LowRankConfig

    def layers(self, model: nn.Module) -> dict[str, nn.Module]:
        """What is adapted, by name."""
        return linear_targets(model, self.config, embeddings=self.adapts_embeddings)

    @classmethod
    def check(cls, config: Any, cell: CellView, meta_model: nn.Module | None) -> Iterable[Problem]:
        found = list(super().check(config, cell, meta_model))
        yield from found
        message = None if meta_model is None or found else cls(config).rank_problem(meta_model)
        if message is not None:
            yield Problem(where="peft.rank", message=message)

    def rank_problem(self, model: nn.Module) -> str | None:
        """The first layer that the rank is too large for."""
        for name, layer in self.layers(model).items():
            if self.config.rank > min(layer_size(layer)):
                return (
                    f"rank {self.config.rank} is above the size of layer {name}, "
                    f"{layer_size(layer)[0]} x {layer_size(layer)[1]}; use at most {min(layer_size(layer))}"
                )
        return None

    def targets(self, model: nn.Module) -> list[str]:
        return list(self.layers(model))

    def apply(self, model: nn.Module) -> nn.Module:
        if (message := self.rank_problem(model)) is not None:
            raise ConfigError(f"peft.rank: {message}")
        return super().apply(model)

    def trainable_parameters(self, model: nn.Module) -> int:
        """r * (in + out) for each adapted layer."""
        return sum(self.config.rank * sum(layer_size(m)) for m in self.layers(model).values())
